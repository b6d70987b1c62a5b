"""LoRA files: every spelling lands on the right rows, exactly, and comes off again."""

import json
import sys
from pathlib import Path

import pytest
import torch
from kontext_bridge.kontext.checkpoint.layers import Naming, layers, norms, sizes_by_name
from kontext_bridge.kontext.checkpoint.lora import read_lora
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.errors import BadRequest, DamagedFile, LoraError, NonFinite
from kontext_bridge.kontext.fp8.compute import Branch, Compute, Linear
from kontext_bridge.kontext.fp8.formats import dequantise, quantise_rows
from kontext_bridge.kontext.standalone.lora import attach, detach, linears_of
from kontext_bridge.kontext.standalone.mount import mount

RANK = 4


def factors(rows, inputs, rank=RANK, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rank, inputs, generator=g), torch.randn(rows, rank, generator=g)


def deltas(size, naming, lora, strength=1.0):
    """What a LoRA adds to every layer's weight, read off the branches that it attaches."""
    linears = {
        name: Linear(torch.empty(rows, inputs), None, torch.empty(rows))
        for name, (rows, inputs) in sizes_by_name(size, naming).items()
    }
    attach(linears, naming, lora, strength)
    found = {}
    for name, linear in linears.items():
        for branch in linear.branches.get(lora.name, []):
            delta = found.setdefault(name, torch.zeros_like(linear.weight))
            delta[branch.offset : branch.offset + branch.up.shape[0]] += branch.strength * (branch.up @ branch.down)
    return found


def spelled(style, layer, down, up):
    """The tensors of one layer's LoRA as each trainer writes them; kohya's carry an alpha."""
    flat = layer.replace(".", "_")
    return {
        "bfl": {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up},
        "peft": {f"base_model.model.{layer}.lora_A.weight": down, f"base_model.model.{layer}.lora_B.weight": up},
        "peft_adapter": {f"{layer}.lora_A.default.weight": down, f"{layer}.lora_B.default.weight": up},
        "comfyui": {f"diffusion_model.{layer}.lora_A.weight": down, f"diffusion_model.{layer}.lora_B.weight": up},
        "diffusers": {f"transformer.{layer}.lora_A.weight": down, f"transformer.{layer}.lora_B.weight": up},
        "diffusers_old": {f"transformer.{layer}.lora.down.weight": down, f"transformer.{layer}.lora.up.weight": up},
        "kohya": {
            f"lora_unet_{flat}.lora_down.weight": down,
            f"lora_unet_{flat}.lora_up.weight": up,
            f"lora_unet_{flat}.alpha": torch.tensor(2.0),
        },
        "onetrainer": {
            f"lora_transformer_{flat}.lora_down.weight": down,
            f"lora_transformer_{flat}.lora_up.weight": up,
            f"lora_transformer_{flat}.alpha": torch.tensor(2.0),
        },
    }[style]


STYLES = ("bfl", "peft", "peft_adapter", "comfyui", "diffusers", "diffusers_old", "kohya", "onetrainer")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("naming", list(Naming))
def test_every_spelling_is_read(save, size, style, naming):
    """A layer inside blocks, one outside, and one whose rows change places between the namings."""
    chosen = {
        Naming.BFL: ("double_blocks.1.img_attn.proj", "guidance_in.out_layer", "final_layer.adaLN_modulation.1"),
        Naming.DIFFUSERS: ("transformer_blocks.1.attn.to_out.0", "x_embedder", "norm_out.linear"),
    }[naming]
    check_names(save, size, style, naming, chosen)


@pytest.mark.parametrize("naming", list(Naming))
def test_every_layer_is_found_in_kohyas_flat_spelling(save, size, naming):
    check_names(save, size, "kohya", naming, sizes_by_name(size, naming))


def check_names(save, size, style, naming, names):
    tensors, expected = {}, {}
    for seed, name in enumerate(names):
        down, up = factors(*sizes_by_name(size, naming)[name], seed=seed)
        tensors |= spelled(style, name, down, up)
        expected[name] = up @ down * (2 / RANK if style in ("kohya", "onetrainer") else 1)
    got = deltas(size, naming, read_lora(save(tensors), size))
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(got[name], value, atol=1e-4), name


def test_a_fused_lora_on_split_layers_is_the_same_change(save, size, to_diffusers):
    tensors, fused = {}, {}
    for seed, layer in enumerate(layers(size)):
        down, up = factors(layer.rows, layer.inputs, seed=seed)
        tensors |= spelled("kohya", layer.bfl, down, up)
        fused[f"{layer.bfl}.weight"] = up @ down * (2 / RANK)
        fused[f"{layer.bfl}.bias"] = torch.zeros(layer.rows)
    fused |= {f"{norm.bfl}.scale": torch.ones(128) for norm in norms(size)}
    expected = to_diffusers(fused, size)
    got = deltas(size, Naming.DIFFUSERS, read_lora(save(tensors), size))
    assert len(got) == len(sizes_by_name(size, Naming.DIFFUSERS))
    for name, value in got.items():
        assert torch.allclose(value, expected[f"{name}.weight"], atol=1e-4), name


def test_a_split_lora_on_a_fused_layer_changes_only_its_rows(save, size):
    down, up = factors(128, 128)
    path = save(spelled("diffusers", "transformer_blocks.1.attn.add_k_proj", down, up))
    ((name, delta),) = deltas(size, Naming.BFL, read_lora(path, size)).items()
    assert name == "double_blocks.1.txt_attn.qkv"
    assert torch.allclose(delta[128:256], up @ down, atol=1e-4)
    assert not delta[:128].any() and not delta[256:].any()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which files are mapped")
def test_a_lora_that_its_trainer_writes_over_stays_what_it_was_and_holds_no_file(save, size):
    # Windows would not let the trainer write; elsewhere what is mapped and cut off ends the program that reads it.
    layer, (rows, inputs) = next((name, shape) for name, shape in sizes_by_name(size, Naming.BFL).items())
    path = save(spelled("bfl", layer, *factors(rows, inputs, rank=3000)))
    lora = read_lora(path, size)
    assert all(patch.up.nbytes + patch.down.nbytes > 1_000_000 for patch in lora.patches)
    assert str(path) not in Path("/proc/self/maps").read_text()
    before = deltas(size, Naming.BFL, lora)
    path.write_bytes(b"")
    after = deltas(size, Naming.BFL, lora)
    assert before and all(torch.equal(before[name], after[name]) for name in before)


def test_several_loras_add_up_with_their_strengths_and_each_comes_off(save, write, size):
    model = mount(read_checkpoint(write("legacy")), dtype=torch.float32)
    linears = linears_of(model)
    layer = linears["transformer_blocks.0.attn.to_q"]
    x = torch.randn(3, 128)
    plain = layer(x)
    loras, changes = [], []
    for seed, strength in ((1, 0.5), (2, -1.25)):
        down, up = factors(384, 128, seed=seed)
        loras.append(read_lora(save(spelled("bfl", "double_blocks.0.img_attn.qkv", down, up), name=f"l{seed}"), size))
        attach(linears, Naming.DIFFUSERS, loras[-1], strength)
        changes.append(strength * x @ (up[:128] @ down).T)
    assert torch.allclose(layer(x), plain + changes[0] + changes[1], atol=1e-4)
    attach(linears, Naming.DIFFUSERS, loras[0], 0.5)
    assert torch.allclose(layer(x), plain + changes[0] + changes[1], atol=1e-4)
    detach(linears, "l1")
    assert torch.allclose(layer(x), plain + changes[1], atol=1e-4)
    detach(linears, "l2")
    assert torch.equal(layer(x), plain)


@pytest.mark.parametrize("compute", [Compute.STORAGE, Compute.FP8])
def test_a_lora_never_touches_the_fp8_bytes(save, write, size, compute):
    model = mount(read_checkpoint(write("legacy")), compute=compute)
    layer = linears_of(model)["transformer_blocks.0.attn.to_q"]
    before = layer.weight.view(torch.uint8).clone()
    down, up = factors(384, 128)
    lora = read_lora(save(spelled("bfl", "double_blocks.0.img_attn.qkv", down, up)), size)
    attach(linears_of(model), Naming.DIFFUSERS, lora, 1.0)
    layer(torch.randn(2, 128, dtype=torch.bfloat16))
    assert torch.equal(layer.weight.view(torch.uint8), before)
    assert layer.branches["style"][0].down.dtype == torch.bfloat16


def test_a_small_lora_keeps_its_effect_beside_fp8_and_loses_it_merged(size):
    """Relative size 0.5 %: within 1 % beside the weight, more than half of it gone when rounded into FP8."""
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(256, 512, generator=g) / 512**0.5
    down, up = torch.randn(16, 512, generator=g), torch.randn(256, 16, generator=g)
    up *= 0.005 * weight.norm() / (up @ down).norm()
    x = torch.randn(64, 512, generator=g)
    effect = x @ (up @ down).T
    quantised, scale = quantise_rows(weight)
    plain, beside = Linear(quantised, scale[:, 0]), Linear(quantised, scale[:, 0])
    beside.branches["style"] = [Branch(down.bfloat16(), up.bfloat16(), 0, 1.0)]
    sums, sum_scale = quantise_rows(dequantise(quantised, scale[:, 0], torch.float32) + up @ down)
    merged = Linear(sums, sum_scale[:, 0])
    error = {layer: ((layer(x) - plain(x) - effect).norm() / effect.norm()).item() for layer in (beside, merged)}
    assert error[beside] < 0.01
    assert error[merged] > 0.5


def test_ranks_may_differ_from_layer_to_layer(save, size):
    tensors, expected = {}, {}
    for rank, name in ((2, "to_q"), (8, "to_k"), (1, "to_v")):
        down, up = factors(128, 128, rank)
        tensors |= spelled("diffusers", f"single_transformer_blocks.0.attn.{name}", down, up)
        expected[f"single_transformer_blocks.0.attn.{name}"] = up @ down
    got = deltas(size, Naming.DIFFUSERS, read_lora(save(tensors), size))
    for name, value in expected.items():
        assert torch.allclose(got[name], value, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"transformer.r": 4, "transformer.lora_alpha": 8}, 2.0),
        ({"transformer.lora_alpha": 8, "transformer.use_rslora": True}, 4.0),
        ({"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"attn.to_q": 1}}, 0.25),
        ({}, 1.0),
    ],
)
def test_the_alpha_in_a_diffusers_header_is_honoured(save, size, config, scale):
    down, up = factors(128, 128)
    tensors = spelled("diffusers", "transformer_blocks.0.attn.to_q", down, up)
    path = save(tensors, {"lora_adapter_metadata": json.dumps(config)})
    (delta,) = deltas(size, Naming.DIFFUSERS, read_lora(path, size)).values()
    assert torch.allclose(delta, up @ down * scale, atol=1e-4)


def test_the_text_encoders_part_is_left_out_with_a_warning(save, size, caplog):
    down, up = factors(128, 128)
    tensors = spelled("kohya", "transformer_blocks.0.attn.to_q", down, up)
    tensors |= {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(2, 2)}
    assert len(read_lora(save(tensors), size).patches) == 1
    assert "text encoders (1 tensors)" in caplog.text


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("lora_unet_input_blocks_4_1_proj_in", "Stable Diffusion 1, 2 or XL"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv", "Stable Diffusion 3"),
        ("diffusion_model.blocks.0.cross_attn.q", "Wan"),
        ("transformer.transformer_blocks.0.img_mod.1", "Qwen-Image"),
        ("double_stream_modulation_img.lin", "FLUX.2"),
        ("lora_unet_double_blocks_70_img_attn_qkv", "which FLUX.1 Kontext does not have"),
        ("lora_unet_double_blocks_7_img_attn_qkv", "made for a larger model.*which this one does not have"),
    ],
)
def test_a_lora_for_another_model_is_named(save, size, name, what):
    down, up = factors(128, 128)
    path = save({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up})
    with pytest.raises(LoraError, match=what):
        read_lora(path, size)


def test_a_lora_for_a_wider_model_is_refused(save, size):
    down, up = factors(3 * 3072, 3072)
    path = save(spelled("bfl", "double_blocks.0.img_attn.qkv", down, up))
    with pytest.raises(LoraError, match=r"made for another model.*128 inputs and 384 outputs"):
        read_lora(path, size)


def test_two_ranks_in_one_layer_are_refused(save, size):
    down, _ = factors(384, 128, rank=4)
    _, up = factors(384, 128, rank=8)
    with pytest.raises(LoraError, match="ranks 4 and 8"):
        read_lora(save(spelled("bfl", "double_blocks.0.img_attn.qkv", down, up)), size)


@pytest.mark.parametrize("missing", ["lora_down", "lora_up", "both"])
def test_half_a_lora_is_refused(save, size, missing):
    down, up = factors(384, 128)
    tensors = spelled("kohya", "double_blocks.0.img_attn.qkv", down, up)
    tensors |= spelled("kohya", "single_blocks.0.modulation.lin", down.clone(), up.clone())
    gone = ("lora_down", "lora_up") if missing == "both" else (missing,)
    left = {k: v for k, v in tensors.items() if "qkv" not in k or not any(f".{g}." in k for g in gone)}
    with pytest.raises(LoraError, match="only part of the LoRA"):
        read_lora(save(left), size)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("double_blocks.0.img_attn.qkv.dora_scale", "DoRA"),
        ("lora_unet_x.lokr_w1", "LoKr"),
        ("lora_unet_x.hada_w1_a", "LoHa"),
        ("double_blocks.0.img_attn.qkv.diff_b", "made for another model"),
        ("double_blocks.0.img_attn.norm.key_norm.scale", "replaces whole weights"),
        ("double_blocks.0.img_attn.qkv.something", "no part of a LoRA"),
    ],
)
def test_another_kind_of_adapter_is_named(save, size, name, what):
    down, up = factors(384, 128)
    path = save({**spelled("bfl", "double_blocks.0.img_attn.qkv", down, up), name: torch.ones(1)})
    with pytest.raises(LoraError, match=what):
        read_lora(path, size)


@pytest.mark.parametrize("which", ["lora_A", "lora_B"])
def test_nan_in_a_lora_is_named(save, size, which):
    tensors = spelled("bfl", "double_blocks.0.img_attn.qkv", *factors(384, 128))
    tensors[f"double_blocks.0.img_attn.qkv.{which}.weight"][0, 0] = float("nan")
    with pytest.raises(NonFinite, match=which):
        read_lora(save(tensors), size)


@pytest.mark.parametrize("alpha", [torch.tensor(float("inf")), torch.ones(2)])
def test_an_alpha_that_is_no_number_is_refused(save, size, alpha):
    tensors = spelled("kohya", "double_blocks.0.img_attn.qkv", *factors(384, 128))
    tensors["lora_unet_double_blocks_0_img_attn_qkv.alpha"] = alpha
    with pytest.raises(LoraError, match="alpha"):
        read_lora(save(tensors), size)


def test_a_strength_that_is_no_number_is_refused(save, size):
    lora = read_lora(save(spelled("bfl", "img_in", *factors(128, 64))), size)
    with pytest.raises(BadRequest, match="strength"):
        attach({}, Naming.BFL, lora, float("nan"))


def test_a_lora_cut_short_is_refused(save, size):
    path = save(spelled("bfl", "img_in", *factors(128, 64)))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DamagedFile, match="10 bytes are missing"):
        read_lora(path, size)


def test_an_empty_lora_is_refused(save, size):
    with pytest.raises(LoraError, match="changes nothing"):
        read_lora(save({"lora_te1_x.lora_down.weight": torch.zeros(1)}), size)
