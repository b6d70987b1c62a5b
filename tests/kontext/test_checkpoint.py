"""Reading Kontext files: every layout gives the file's bytes, and nothing unknown gets through."""

import json
import struct

import pytest
import torch
from kontext_bridge.kontext.checkpoint.files import open_tensors
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.errors import CheckpointError, DamagedFile, NonFinite, UnknownLayout, WrongModel
from kontext_bridge.kontext.fp8.formats import FORMATS
from safetensors import safe_open
from safetensors.torch import save_file

QKV = "double_blocks.0.img_attn.qkv"


def stored_bytes(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def test_fp8_bytes_are_the_files_bytes_in_every_layout(write, fp8_layout):
    path = write(fp8_layout)
    checkpoint = read_checkpoint(path)
    stored = stored_bytes(path)
    prefix = "model.diffusion_model." if fp8_layout == "metadata_prefixed" else ""
    quantised = 0
    for name, layer in checkpoint.linears.items():
        original = stored[f"{prefix}{name}.weight"]
        assert layer.weight.dtype == original.dtype
        assert torch.equal(layer.weight.view(torch.uint8), original.view(torch.uint8))
        quantised += layer.weight.dtype in FORMATS
    assert quantised >= 22
    assert checkpoint.is_fp8


def test_scales_of_every_layout_reach_their_layers(write, fp8_layout):
    path = write(fp8_layout)
    stored = stored_bytes(path)
    prefix = "model.diffusion_model." if fp8_layout == "metadata_prefixed" else ""
    for name, layer in read_checkpoint(path).linears.items():
        if layer.weight.dtype not in FORMATS:
            assert layer.scale is None
            continue
        written = stored.get(f"{prefix}{name}.weight_scale", stored.get(f"{prefix}{name}.scale_weight"))
        expected = torch.ones(()) if written is None else written.squeeze()
        assert layer.scale is not None and layer.scale.dtype == torch.float32
        assert torch.equal(layer.scale, expected)


def test_a_request_for_full_precision_is_kept(write):
    assert not read_checkpoint(write("legacy")).linears[QKV].full_precision
    assert read_checkpoint(write("legacy_full_precision")).linears[QKV].full_precision
    assert read_checkpoint(write("comfy_quant_full_precision")).linears[QKV].full_precision


def test_writing_to_a_loaded_weight_does_not_reach_the_file(write):
    path = write("legacy")
    before = path.read_bytes()
    read_checkpoint(path).linears[QKV].weight.view(torch.uint8).zero_()
    assert path.read_bytes() == before


def test_released_pages_come_back_as_they_were(write):
    checkpoint = read_checkpoint(write("legacy"))
    weight = checkpoint.linears[QKV].weight
    before = weight.view(torch.uint8).clone()
    checkpoint.release(QKV)
    assert torch.equal(weight.view(torch.uint8), before)


def test_wide_files_are_read_as_they_are(write, wide_layout):
    checkpoint = read_checkpoint(write(wide_layout))
    assert not checkpoint.is_fp8
    assert "quantised on loading" in checkpoint.describe()


def test_a_header_that_is_not_padded_still_gives_the_right_numbers(write, tmp_path):
    path = write("float32")
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = data[8 : 8 + length].rstrip(b" ")
    odd = header + b" " * (1 + (len(header)) % 2)
    unpadded = tmp_path / "kontext_odd.safetensors"
    unpadded.write_bytes(struct.pack("<Q", len(odd)) + odd + data[8 + length :])
    assert (8 + len(odd)) % 2
    expected = read_checkpoint(path).linears[QKV].weight
    assert torch.equal(read_checkpoint(unpadded).linears[QKV].weight, expected)


def test_a_file_cut_anywhere_is_refused_as_cut_short(write, tmp_path):
    data = write("legacy").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    for size in (0, 7, 8, 100, 8 + length - 1, 8 + length, len(data) // 2, len(data) - 1):
        cut = tmp_path / "kontext_cut.safetensors"
        cut.write_bytes(data[:size])
        with pytest.raises(DamagedFile, match=r"kontext_cut\.safetensors"):
            read_checkpoint(cut)


@pytest.mark.parametrize("stored", ["legacy", "bfloat16"])
def test_a_download_that_was_given_its_room_and_broke_off_is_said_to_be_one(write, stored):
    assert read_checkpoint(write(stored)).doubts() == ""

    def broken_off(tensors):
        for name in ("single_blocks.1.linear1.weight", "single_blocks.1.linear2.weight"):
            tensors[name].view(torch.uint8).zero_()

    told = read_checkpoint(write(stored, change=broken_off)).doubts()
    assert told.startswith("2 of ") and "single_blocks.1.linear2" in told and "not downloaded whole" in told


def test_bytes_after_the_end_are_refused(write):
    path = write("legacy")
    path.write_bytes(path.read_bytes() + b"\0" * 16)
    with pytest.raises(DamagedFile, match="16 bytes too many"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "meaning"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"GGUF\x03\0\0\0" + b"\0" * 64, "GGUF"),
        (b"PK\x03\x04" + b"\0" * 64, "archive"),
        (b"\x80\x04\x95\x10\0\0\0\0\0\0\0}", "a pickle"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\xef\xbb\xbf\r\n  <!doctype html>", "web page"),
        (b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>', "web page"),
        (b"Access to model a/b is restricted. You must be authenticated.", "a text and no model"),
        (b'{"error": {"code": 401}}', "a text and no model"),
        (b"", "is empty"),
        (b"\0" * 500, "begins with zeros"),
        (b"\x10\0\0\0\0\0\0\0not json at all!", "cannot be read"),
        (b"\x02\0\0\0\0\0\0\0[]", "no table"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, meaning):
    path = tmp_path / "kontext.safetensors"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=meaning):
        read_checkpoint(path)


def test_an_absent_file_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(DamagedFile, match=r"nowhere\.safetensors"):
        read_checkpoint(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("offsets", [[0, 4], [-4, 0], [0, 1e3], "ab", None])
def test_a_header_that_lies_about_offsets_is_refused(tmp_path, offsets):
    header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": offsets}}).encode()
    path = tmp_path / "kontext.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    with pytest.raises(DamagedFile, match="'x'"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b'{"x":' * 100_000,
        b'{"x": {"dtype": [], "shape": [1], "data_offsets": [0, 8]}}',
        b'{"x": {"dtype": {}, "shape": [1], "data_offsets": [0, 8]}}',
        b'{"x": {"dtype": "F32", "shape": [0, 18446744073709551616], "data_offsets": [0, 0]}}',
    ],
    ids=["list in list", "dict in dict", "list", "dict", "beyond 64 bits"],
)
def test_a_header_that_python_or_torch_cannot_hold_is_refused_in_words(tmp_path, header):
    path = tmp_path / "kontext.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError, match=r"kontext.safetensors"):
        open_tensors(path)


def test_overlapping_tensors_are_refused(tmp_path):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"x": entry, "y": entry}).encode()
    path = tmp_path / "kontext.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    with pytest.raises(DamagedFile, match="overlap"):
        read_checkpoint(path)


def test_a_missing_tensor_is_named(write):
    path = write(change=lambda t: {k: v for k, v in t.items() if k != f"{QKV}.bias"})
    with pytest.raises(DamagedFile, match=f"lacks '{QKV}.bias'"):
        read_checkpoint(path)


def test_a_missing_scale_is_not_taken_for_one(write):
    path = write(change=lambda t: {k: v for k, v in t.items() if k != f"{QKV}.scale_weight"})
    with pytest.raises(DamagedFile, match=f"'{QKV}' lacks its own"):
        read_checkpoint(path)


def test_a_marked_file_without_scales_is_refused(write):
    path = write(change=lambda t: {k: v for k, v in t.items() if not k.endswith("scale_weight")})
    with pytest.raises(DamagedFile, match="marked as scaled"):
        read_checkpoint(path)


def test_an_unknown_tensor_is_named_and_refused(write):
    path = write(change=lambda t: {**t, f"{QKV}.pre_quant_scale": torch.ones(128)})
    with pytest.raises(UnknownLayout, match="pre_quant_scale"):
        read_checkpoint(path)


def test_a_tensor_of_wrong_shape_is_named(write):
    path = write(change=lambda t: {**t, f"{QKV}.bias": torch.zeros(7)})
    with pytest.raises(DamagedFile, match=rf"{QKV}\.bias' has the shape \[7\]"):
        read_checkpoint(path)


@pytest.mark.parametrize("shape", [(2,), (1, 128), (383,), (384, 2), (3, 1)])
def test_a_scale_of_unknown_shape_is_refused(write, shape):
    path = write(change=lambda t: {**t, f"{QKV}.scale_weight": torch.ones(shape)})
    with pytest.raises(UnknownLayout, match=f"{QKV}.scale_weight"):
        read_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
@pytest.mark.parametrize("kind", ["scale_weight", "scale_input"])
def test_a_scale_that_is_no_positive_number_is_named(write, kind, value):
    path = write(change=lambda t: {**t, f"{QKV}.{kind}": torch.tensor(value)})
    with pytest.raises(NonFinite, match=f"{QKV}.{kind}"):
        read_checkpoint(path)


def test_two_scales_for_one_layer_are_refused(write):
    path = write(change=lambda t: {**t, f"{QKV}.weight_scale": torch.tensor(1.0)})
    with pytest.raises(UnknownLayout, match="two scales"):
        read_checkpoint(path)


def test_a_scale_on_a_layer_that_is_not_fp8_is_refused_unless_it_is_one(write):
    assert read_checkpoint(write(change=lambda t: {**t, "img_in.scale_weight": torch.tensor(1.0)}))
    path = write(change=lambda t: {**t, "img_in.scale_weight": torch.tensor(2.0)})
    with pytest.raises(UnknownLayout, match="'img_in' has a scale"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "hint",
    [{"format": "nvfp4"}, {"format": "float8_e5m2"}, {"format": "float8_e4m3fn", "convrot": True}, {}],
)
def test_a_quantisation_that_is_not_known_is_refused(write, hint):
    encoded = torch.tensor(list(json.dumps(hint).encode()), dtype=torch.uint8)
    path = write("comfy_quant", change=lambda t: {**t, f"{QKV}.comfy_quant": encoded})
    with pytest.raises(UnknownLayout, match=QKV):
        read_checkpoint(path)


def test_a_hint_that_is_no_json_is_refused(write):
    path = write("comfy_quant", change=lambda t: {**t, f"{QKV}.comfy_quant": torch.zeros(4, dtype=torch.uint8)})
    with pytest.raises(DamagedFile, match="comfy_quant"):
        read_checkpoint(path)


def test_integer_weights_are_refused(write):
    path = write(change=lambda t: {**t, f"{QKV}.weight": torch.zeros(384, 128, dtype=torch.int8)})
    with pytest.raises(UnknownLayout, match="int8"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["double_blocks.0.img_attn.qkv.lora_A.weight"], "a LoRA"),
        (["double_stream_modulation_img.lin.weight", "double_blocks.0.img_attn.qkv.weight"], "FLUX.2"),
        (["distilled_guidance_layer.in_proj.weight", "double_blocks.0.img_attn.qkv.weight"], "Chroma"),
        (["model.diffusion_model.input_blocks.0.0.weight", "conditioner.embedders.0.x"], "Stable Diffusion XL"),
        (["joint_blocks.0.x_block.attn.qkv.weight"], "Stable Diffusion 3"),
        (["transformer_blocks.0.img_mod.1.weight"], "Qwen-Image"),
        (["decoder.conv_in.weight"], "a VAE"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "a CLIP text encoder"),
        (["encoder.block.0.layer.0.SelfAttention.k.weight"], "a T5 text encoder"),
        (["somebody.elses.tensor"], "no model known here"),
    ],
)
def test_another_model_is_named_and_what_to_get(tmp_path, names, what):
    path = tmp_path / "kontext.safetensors"
    save_file({name: torch.zeros(2, 2) for name in names}, path)
    with pytest.raises(WrongModel, match=f"(?s){what}.*flux1-dev-kontext_fp8_scaled"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "what"), [("x.qweight", "Nunchaku"), ("x.weight.absmax", "bitsandbytes"), ("x.weight_scale_2", "NVFP4")]
)
def test_a_packed_format_is_named(write, name, what):
    path = write(change=lambda t: {**t, name: torch.zeros(1)})
    with pytest.raises(UnknownLayout, match=what):
        read_checkpoint(path)


@pytest.mark.parametrize(("channels", "what"), [(384, "Fill"), (128, "Depth or Canny"), (100, "100 input channels")])
def test_a_flux_for_another_input_is_named(write, channels, what):
    path = write(change=lambda t: {**t, "img_in.weight": torch.zeros(128, channels)})
    with pytest.raises(WrongModel, match=what):
        read_checkpoint(path)


def test_schnell_is_told_by_its_missing_guidance(write):
    path = write(change=lambda t: {k: v for k, v in t.items() if not k.startswith("guidance_in")})
    with pytest.raises(WrongModel, match="schnell"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["flux1-dev.safetensors", "FLUX.1-krea-dev_fp8.safetensors", "flux_fill.safetensors"])
def test_a_flux_that_calls_itself_otherwise_is_refused(write, name):
    with pytest.raises(WrongModel, match="would ignore yours"):
        read_checkpoint(write(name=name))


def test_metadata_that_names_flux_dev_is_believed(write, weights, tmp_path):
    path = tmp_path / "my_merge.safetensors"
    save_file(weights, path, metadata={"modelspec.architecture": "flux-1-dev"})
    with pytest.raises(WrongModel, match="flux-1-dev"):
        read_checkpoint(path)


def test_an_unlabelled_file_is_taken_with_a_warning(write, caplog):
    checkpoint = read_checkpoint(write(name="my_merge.safetensors"))
    assert not checkpoint.labelled
    assert "taken for Kontext" in caplog.text


def test_a_pruned_flux_of_real_width_is_refused(tmp_path):
    names = {
        "double_blocks.0.img_attn.qkv.weight": (1, 1),
        "img_in.weight": (3072, 64),
        "guidance_in.in_layer.weight": (3072, 256),
        "vector_in.in_layer.weight": (3072, 768),
        "txt_in.weight": (3072, 4096),
    }
    path = tmp_path / "kontext_lite.safetensors"
    save_file({name: torch.zeros(shape, dtype=torch.uint8) for name, shape in names.items()}, path)
    with pytest.raises(WrongModel, match="cut to 1 double"):
        read_checkpoint(path)


def test_a_missing_shard_is_named(write):
    folder = write("diffusers_sharded")
    shard = next((folder / "transformer").glob("*00002.safetensors"))
    shard.unlink()
    with pytest.raises(DamagedFile, match=shard.name):
        read_checkpoint(folder)


def test_a_diffusers_folder_of_another_pipeline_is_refused(write):
    folder = write("diffusers")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    moved = folder.rename(folder.with_name("FLUX.1-dev"))
    with pytest.raises(WrongModel, match="FLUX"):
        read_checkpoint(moved)


def test_a_stray_tensor_outside_the_transformer_is_refused(write):
    path = write("metadata_prefixed", change=lambda t: {**t, "who.knows": torch.zeros(1)})
    with pytest.raises(UnknownLayout, match=r"who\.knows"):
        read_checkpoint(path)
