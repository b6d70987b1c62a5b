"""Files of other formats and models: named for what they are, with where to load them, and nothing untrue."""

import json

import pytest
import torch
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.errors import CheckpointError, UnknownLayout, WrongModel
from safetensors.torch import load_file, save_file

QKV = "double_blocks.0.img_attn.qkv"


def hinted(hint):
    encoded = torch.tensor(list(json.dumps(hint).encode()), dtype=torch.uint8)
    return lambda tensors: {**tensors, f"{QKV}.comfy_quant": encoded}


@pytest.mark.parametrize(
    "more",
    [
        {"params": {}},
        {"params": None},
        {"params": {"group_size": 128}},
        {"group_size": None},
        {"orig_dtype": "torch.bfloat16", "orig_shape": [384, 128]},
        {"version": 2, "comment": "by a tool"},
        {"convrot": False, "convrot_groupsize": 256},
        {"full_precision_matrix_mult": False},
    ],
)
def test_what_changes_nothing_in_a_hint_is_no_reason_to_refuse_a_file(write, more):
    hint = {"format": "float8_e4m3fn", **more}
    plain = read_checkpoint(write("comfy_quant")).linears[QKV]
    read = read_checkpoint(write("comfy_quant", change=hinted(hint))).linears[QKV]
    assert torch.equal(read.weight.view(torch.uint8), plain.weight.view(torch.uint8)) and read.scale == plain.scale


@pytest.mark.parametrize(
    "more", [{"convrot": True}, {"params": {"convrot": True}}, {"hadamard": 64}, {"params": {"zero_point": 3}}]
)
def test_what_turns_the_numbers_into_others_is_refused(write, more):
    with pytest.raises(UnknownLayout, match=QKV):
        read_checkpoint(write("comfy_quant", change=hinted({"format": "float8_e4m3fn", **more})))


@pytest.mark.parametrize("form", [[], {"a": 1}, None, 8])
def test_a_format_that_is_no_text_is_refused_in_words(write, form):
    with pytest.raises(UnknownLayout, match=QKV):
        read_checkpoint(write("comfy_quant", change=hinted({"format": form})))


def test_hints_without_end_are_refused_in_words(write, tmp_path):
    endless = torch.tensor(list(b"[" * 50_000), dtype=torch.uint8)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(write("comfy_quant", change=lambda tensors: {**tensors, f"{QKV}.comfy_quant": endless}))
    path = tmp_path / "kontext_endless.safetensors"
    save_file(load_file(write("metadata")), path, metadata={"_quantization_metadata": "[" * 50_000})
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("form", "what"),
    [
        ("mxfp8", "MXFP8"),
        ("nvfp4", "NVFP4"),
        ("int8_tensorwise", "INT8"),
        ("convrot_w4a4", "4-bit"),
        ("asym_w4a8_int8", "4-bit"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_comfyuis_other_formats_are_named_with_its_own_loader(write, form, what, packed):
    def change(tensors):
        weight = torch.zeros(384, 64 if packed else 128, dtype=torch.uint8 if packed else torch.int8)
        return hinted({"format": form})({**tensors, f"{QKV}.weight": weight})

    with pytest.raises(UnknownLayout, match=f"{what}.*Load Diffusion Model.*flux1-dev-kontext_fp8_scaled"):
        read_checkpoint(write("comfy_quant", change=change))


def test_mxfp8_without_a_hint_is_named(write):
    scale = torch.zeros(384, 4, dtype=torch.uint8)
    path = write("metadata", change=lambda t: {**t, f"{QKV}.weight_scale": scale})
    with pytest.raises(UnknownLayout, match=r"MXFP8.*Load Diffusion Model"):
        read_checkpoint(path)


PACKED = [
    (["qweight", "wscales", "smooth_factor"], "Nunchaku.*ComfyUI-nunchaku"),
    (["proj_down", "proj_up"], "Nunchaku"),
    (["qweight", "qzeros", "scales"], "GPTQ"),
    (["weight", "weight.absmax", "weight.quant_state.bitsandbytes__nf4"], "bitsandbytes' 4-bit.*bitsandbytes"),
    (["weight", "SCB"], "bitsandbytes' INT8"),
    (["weight._data", "weight._scale"], "quanto.*optimum-quanto"),
    (["float8_data", "scale", "scale_reciprocal"], "float8_data.*program that wrote it"),
    (["weight_qdata", "weight_scale"], "torchao.*torchao"),
    (["weight", "weight_scale", "weight_scale_2"], "NVFP4.*Load Diffusion Model"),
    (["weight", "weight_scale_inv"], "block-wise FP8"),
    (["W_q", "meta"], "packed integer"),
    (["weight", "scale", "zero_point"], "packed integer"),
]


@pytest.mark.parametrize(("parts", "what"), PACKED)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "transformer."])
def test_a_packed_file_is_named_with_where_to_load_it(write, parts, what, prefix):
    def change(tensors):
        left = {prefix + name: tensor for name, tensor in tensors.items() if not name.startswith(QKV)}
        return left | {f"{prefix}{QKV}.{part}": torch.zeros(2, 2) for part in parts}

    with pytest.raises(CheckpointError, match=what):
        read_checkpoint(write("bfloat16", change=change))


def test_packed_text_encoders_beside_the_model_are_not_the_model(write):
    beside = {"text_encoders.t5xxl.transformer.encoder.block.0.x.weight_scale_2": torch.zeros(1)}
    assert read_checkpoint(write("metadata_prefixed", change=lambda t: {**t, **beside})).is_fp8


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.uint8, torch.uint16, torch.uint32])
def test_integers_of_unknown_make_are_no_damage(write, dtype):
    path = write("bfloat16", change=lambda t: {**t, f"{QKV}.weight": torch.zeros(384, 32).to(dtype)})
    with pytest.raises(UnknownLayout, match="program or node pack that wrote it"):
        read_checkpoint(path)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_part_of_diffusers_kontext_is_said_to_be_one(write, weights, size, to_diffusers, tmp_path, number):
    names = sorted(to_diffusers(weights, size))
    third = len(names) // 3
    parts = [names[:third], names[third : 2 * third], names[2 * third :]]
    tensors = to_diffusers(weights, size)
    path = tmp_path / f"diffusion_pytorch_model-0000{number}-of-00003.safetensors"
    save_file({name: tensors[name].contiguous() for name in parts[number - 1]}, path)
    with pytest.raises(UnknownLayout, match=f"part {number} of 3.*the folder with all 3 parts") as refused:
        read_checkpoint(path)
    assert "Stable Diffusion" not in str(refused.value)
    renamed = path.rename(tmp_path / "kontext.safetensors")
    with pytest.raises(CheckpointError) as refused:
        read_checkpoint(renamed)
    assert "Stable Diffusion" not in str(refused.value)


@pytest.mark.parametrize(
    ("names", "what", "untrue"),
    [
        (["encoder.down_blocks.0.resnets.0.conv1.weight", "decoder.conv_in.weight"], "a VAE", "Stable"),
        (["encoder.down.0.block.0.conv1.weight"], "a VAE", "Stable"),
        (["down_blocks.0.resnets.0.conv1.weight"], "a Stable Diffusion U-Net", "VAE"),
        (["transformer_blocks.0.ff_context.net.2.weight", "pos_embed.proj.weight"], "Stable Diffusion 3", "FLUX.2"),
        (["blocks.0.cross_attn.q.weight"], "Wan", "Cosmos"),
        (["blocks.0.cross_attn.q_proj.weight"], "no model known here", "Wan"),
        ([f"{QKV}.weight", "txt_in.individual_token_refiner.blocks.0.x"], "HunyuanVideo", "incomplete"),
        ([f"{QKV}.lora_A"], "a LoRA", "incomplete"),
        (["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"], "a LoRA", "incomplete"),
        (["transformer.x_lora.up.weight"], "a LoRA", "incomplete"),
        ([f"{QKV}.lokr_w2_a"], "a LyCORIS", "incomplete"),
        (["double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight"], "an IP-Adapter", "incomplete"),
        ([f"{QKV}.weight", "latent_in.weight"], "another model", "download it again"),
    ],
)
def test_a_foreign_file_is_not_called_what_it_is_not(tmp_path, names, what, untrue):
    path = tmp_path / "kontext.safetensors"
    save_file({name: torch.zeros(2, 2) for name in names}, path)
    with pytest.raises((WrongModel, UnknownLayout), match=what) as refused:
        read_checkpoint(path)
    assert untrue not in str(refused.value)
