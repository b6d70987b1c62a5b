"""Every spelling of a LoRA on every layer, against sums made by hand; what belongs elsewhere; PEFT's patterns."""

import json
import re

import pytest
import torch
from kontext_bridge.kontext.checkpoint.layers import Naming, layers, sizes_by_name
from kontext_bridge.kontext.checkpoint.lora import read_lora
from kontext_bridge.kontext.errors import LoraError
from kontext_bridge.kontext.fp8.compute import Linear
from kontext_bridge.kontext.standalone.lora import attach
from kontext_bridge.kontext.standalone.tiny import TINY
from spellings import PREFIXES, SUFFIXES, irrelevant, kinds, processors, spelled_apart, with_header


def deltas(size, lora):
    """What a file's patches add to each BFL weight."""
    found = {}
    shapes = {layer.bfl: (layer.rows, layer.inputs) for layer in layers(size)}
    for patch in lora.patches:
        delta = found.setdefault(patch.layer, torch.zeros(shapes[patch.layer]))
        delta[patch.offset : patch.offset + patch.up.shape[0]] += patch.up.float() @ patch.down.float() * patch.scale
    return found


def check(size, lora, expected):
    got = deltas(size, lora)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(got[name], value, atol=1e-4), name


@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda prefix: f"{prefix[0]}{prefix[1]}")
def test_a_spelling_that_lands_elsewhere_or_is_refused_is_noticed(save, size, prefix):
    for suffix in SUFFIXES:
        for file in spelled_apart(size, prefix, suffix):
            check(size, read_lora(save(file.tensors), size), file.expected)


def test_the_processors_of_uso_and_xlabs_are_read(save, size):
    file = processors(size)
    check(size, read_lora(save(file.tensors), size), file.expected)


@pytest.mark.parametrize("name", ["all", *irrelevant(TINY)])
def test_what_no_edit_needs_is_no_reason_to_refuse_a_file(save, size, name):
    plain = spelled_apart(size, PREFIXES[1], SUFFIXES[0])[0]
    beside = irrelevant(size)
    if name != "all":
        beside = {name: beside[name]}
    check(size, read_lora(save({**plain.tensors, **beside}), size), plain.expected)


@pytest.mark.parametrize(
    ("pattern", "scale"),
    [
        ("attn.to_q", 0.25),
        ("to_q", 0.25),
        ("o_q", 2.0),
        ("to_", 2.0),
        (r"transformer_blocks\.\d+\.attn\.to_q", 0.25),
        (r"transformer_blocks.[0-9]+.attn.(to_q|to_k)", 0.25),
        (r".*\.to_(q|v)", 0.25),
        (r"^transformer_blocks\.0\..*", 0.25),
        (r"single_transformer_blocks\.\d+\.attn\.to_q", 2.0),
        (r"blocks\.0\.attn\.to_q", 2.0),
        (r".*", 0.25),
    ],
)
@pytest.mark.parametrize("prefix", ["transformer.", "base_model.model.", "base_model.model.transformer.", ""])
def test_pefts_patterns_match_as_peft_matches_them(save, size, pattern, scale, prefix):
    down, up = torch.randn(4, 128), torch.randn(128, 4)
    layer = f"{prefix}transformer_blocks.0.attn.to_q"
    path = save({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, with_header({pattern: 1}))
    (patch,) = read_lora(path, size).patches
    assert patch.scale == scale


def test_the_first_pattern_that_matches_counts_and_ranks_are_those_of_the_matrices(save, size):
    layer = "transformer.transformer_blocks.0.attn.to_q"
    tensors = {f"{layer}.lora_A.weight": torch.randn(2, 128), f"{layer}.lora_B.weight": torch.randn(128, 2)}
    header = with_header({r"to_(q|k)": 3, "to_q": 100}, rank_pattern={r"to_(q|k)": 2})
    assert read_lora(save(tensors, header), size).patches[0].scale == 1.5
    header = with_header({r"to_(q|k)": 3}, use_rslora=True)
    assert read_lora(save(tensors, header), size).patches[0].scale == pytest.approx(3 / 2**0.5)


@pytest.mark.parametrize("patterns", [{"to_(q": 1}, {"to_q": "much"}, ["to_q"], {"to_q": None}])
def test_settings_that_cannot_be_read_are_refused(save, size, patterns):
    layer = "transformer.transformer_blocks.0.attn.to_q"
    tensors = {f"{layer}.lora_A.weight": torch.randn(2, 128), f"{layer}.lora_B.weight": torch.randn(128, 2)}
    header = {"lora_adapter_metadata": json.dumps({"transformer.alpha_pattern": patterns})}
    with pytest.raises(LoraError, match="settings cannot be read"):
        read_lora(save(tensors, header), size)


@pytest.mark.parametrize(
    "settings",
    [
        "[" * 100_000,
        '{"lora_alpha": 1' + "0" * 400 + "}",
        json.dumps({"alpha_pattern": {"to_q": 10**400}}),
        json.dumps({"alpha_pattern": {"(" * 3000: 1}}),
        json.dumps({"alpha_pattern": {"a{99999999999}": 1}}),
    ],
    ids=["deep", "huge alpha", "huge pattern alpha", "deep pattern", "huge repetition"],
)
def test_settings_that_python_cannot_hold_are_refused_in_words(save, size, settings):
    layer = "transformer.transformer_blocks.0.attn.to_q"
    tensors = {f"{layer}.lora_A.weight": torch.randn(2, 128), f"{layer}.lora_B.weight": torch.randn(128, 2)}
    with pytest.raises(LoraError, match="settings cannot be read"):
        read_lora(save(tensors, {"lora_adapter_metadata": settings}), size)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("part", ["diff_b", "lora_B.bias", "diff"])
def test_changes_in_fp8_are_read(save, size, part, dtype):
    layer = "transformer.transformer_blocks.0.attn.to_q"
    values = torch.ones((128, 128) if part == "diff" else 128).to(dtype)
    tensors = {f"{layer}.lora_A.weight": torch.randn(2, 128), f"{layer}.lora_B.weight": torch.randn(128, 2)}
    beside = {} if part == "diff" else tensors
    lora = read_lora(save({**beside, f"{layer}.{part}": values}), size, every_kind=True)
    assert len(lora.changes) == 1
    zeros = (-torch.zeros(values.shape)).to(dtype)
    assert not read_lora(save({**tensors, f"{layer}.{part}": zeros}), size, every_kind=True).changes


@pytest.mark.parametrize("dtype", ["float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "uint16", "complex64"])
@pytest.mark.parametrize("part", ["lora_A.weight", "diff_b", "alpha", "dora_scale"])
def test_what_no_adapter_is_stored_as_is_named(save, size, part, dtype):
    layer = "transformer.transformer_blocks.0.attn.to_q"
    tensors = {f"{layer}.lora_A.weight": torch.ones(2, 128), f"{layer}.lora_B.weight": torch.ones(128, 2)}
    shape = {"lora_A.weight": (2, 128), "diff_b": (128,), "alpha": (), "dora_scale": (128, 1)}[part]
    tensors[f"{layer}.{part}"] = torch.ones(shape).to(getattr(torch, dtype))
    with pytest.raises(LoraError, match=rf"stores .* as {dtype}"):
        read_lora(save(tensors), size, every_kind=True)


NOT_PLAIN = {
    "dora by row": "DoRA",
    "loha": "LoHa",
    "lokr in factors": "LoKr",
    "oft": "OFT",
    "boft": "BOFT",
    "glora": "GLoRA",
    "diff": "whole",
    "set": "whole",
    "norms": "norms",
}


@pytest.mark.parametrize(("kind", "words"), NOT_PLAIN.items())
def test_a_kind_that_only_comfyui_computes_says_where_and_is_read_there(save, size, kind, words):
    path = save(kinds(size)[kind])
    with pytest.raises(LoraError, match=rf"{words}.*Inside it Kontext LoRA.*Load LoRA"):
        read_lora(path, size)
    assert len(read_lora(path, size, every_kind=True).changes) >= 1


def test_a_middle_matrix_is_multiplied_in(save, size):
    tensors = kinds(size)["middle"]
    name = "lora_unet_txt_in"
    lora = read_lora(save({k: v for k, v in tensors.items() if k.startswith(name)}), size)
    middle = tensors[f"{name}.lora_mid.weight"][:, :, 0, 0]
    expected = tensors[f"{name}.lora_up.weight"] @ middle @ tensors[f"{name}.lora_down.weight"] * 0.5
    check(size, lora, {"txt_in": expected})


@pytest.mark.parametrize("naming", list(Naming))
@pytest.mark.parametrize("spelling", [".diff_b", ".lora_B.bias", ".lora_B.default.bias"])
def test_a_bias_is_shifted_where_its_rows_are(save, size, naming, spelling):
    layer = "single_blocks.0.linear1"
    bias = torch.randn(7 * size.hidden)
    tensors = {f"{layer}.lora_A.weight": torch.zeros(4, 128), f"{layer}.lora_B.weight": torch.zeros(896, 4)}
    path = save({**tensors, f"{layer}{spelling}": bias}, with_header({}))
    linears = {
        name: Linear(torch.zeros(rows, inputs), None, torch.zeros(rows))
        for name, (rows, inputs) in sizes_by_name(size, naming).items()
    }
    attach(linears, naming, read_lora(path, size), 0.5)
    parts = next(one for one in layers(size) if one.bfl == layer).parts
    names = [layer] if naming is Naming.BFL else [part.name for part in parts]
    got = torch.cat([linears[name](torch.randn(1, linears[name].in_features))[0] for name in names])
    scale = 0.5 if spelling == ".diff_b" else 0.5 * 8 / 4
    assert torch.allclose(got, bias * scale, atol=1e-6)


CONTROL = {
    "img_in.lora_A.weight": torch.ones(4, 128),
    "img_in.lora_B.weight": torch.ones(128, 4),
    "img_in.lora_B.bias": torch.ones(128),
    "double_blocks.0.img_attn.norm.key_norm.scale": torch.ones(128),
}
PLAIN = {
    "double_blocks.0.img_mod.lin.lora_A.weight": torch.ones(4, 128),
    "double_blocks.0.img_mod.lin.lora_B.weight": torch.ones(768, 4),
}


@pytest.mark.parametrize(
    ("tensors", "words", "untrue"),
    [
        (CONTROL, "Canny, Depth", "Inside it"),
        ({**PLAIN, "double_blocks.7.img_mod.lin.lora_A.weight": torch.ones(4, 128),
          "double_blocks.7.img_mod.lin.lora_B.weight": torch.ones(768, 4)},
         r"changes 'double_blocks\.7\.img_mod\.lin'", "another model|Qwen"),
        ({**PLAIN, "ip_adapter.0.to_k.lora_A.weight": torch.ones(4, 128),
          "ip_adapter.0.to_k.lora_B.weight": torch.ones(768, 4)}, "ip_adapter", "another model"),
        ({**PLAIN, "img_in.lora_A.weight": torch.ones(0, 64), "img_in.lora_B.weight": torch.ones(128, 0)},
         r"shape \[0, 64\]", "another model"),
        ({**PLAIN, "img_in.lora_A.weight": torch.ones(64), "img_in.lora_B.weight": torch.ones(128)},
         "no LoRA of a linear layer", "another model"),
        ({**PLAIN, "img_in.lora_magnitude_vector": torch.ones(128)}, "PEFT's own form", "Inside it"),
        ({"lora_unet_double_blocks_0_img_mlp_fc1.lora_down.weight": torch.ones(4, 128),
          "lora_unet_double_blocks_0_img_mlp_fc1.lora_up.weight": torch.ones(512, 4)}, "HunyuanVideo", "Wan"),
        ({"lora_unet_blocks_0_cross_attn_k.lora_down.weight": torch.ones(4, 128),
          "lora_unet_blocks_0_cross_attn_k.lora_up.weight": torch.ones(128, 4)}, "Wan", "FLUX.1 Kontext does not"),
        ({"diffusion_model.img_in.oft_blocks": torch.ones(3, 5, 5)}, "OFT adapter", "Inside it"),
        ({"diffusion_model.img_in.lokr_w1": torch.ones(3, 5)}, "LoKr", "Inside it"),
    ],
)  # fmt: skip
def test_a_refusal_that_says_what_is_not_so_is_noticed(save, size, tensors, words, untrue):
    with pytest.raises(LoraError, match=words) as refused:
        read_lora(save(tensors), size)
    assert not re.search(untrue, str(refused.value))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("diffusion_model.double_blocks.0.img_attn.proj", "lora_unet_double_blocks_0_img_attn_proj"),
        ("double_blocks.0.img_attn.proj", "transformer.transformer_blocks.0.attn.to_out.0"),
        ("transformer.transformer_blocks.0.attn.to_q", "lora_transformer_transformer_blocks_0_attn_to_q"),
        ("diffusion_model.final_layer.adaLN_modulation.1", "transformer.norm_out.linear"),
    ],
)
def test_a_layer_under_two_names_is_not_changed_twice(save, size, one, other):
    rows = 256 if "adaLN" in one else 128
    tensors = {
        f"{name}.{part}": torch.randn(shape)
        for name in (one, other)
        for part, shape in (("lora_A.weight", (4, 128)), ("lora_B.weight", (rows, 4)))
    }
    with pytest.raises(LoraError) as refused:
        read_lora(save(tensors), size)
    assert repr(one) in str(refused.value)
    assert repr(other) in str(refused.value)


def twice(names, pieces=(slice(None),), alike=True, **more):
    """A file with a LoRA of every name; the names after the first have pieces of its rows, in their order."""
    rows = {"norm_out.linear": 256}.get(names[0].removeprefix("transformer."), 128 * (len(names) - 1 or 1))
    rows = 896 if "linear1" in names[0] else rows
    down, up = torch.randn(4, 128), torch.randn(rows, 4)
    tensors = {f"{names[0]}.lora_A.weight": down, f"{names[0]}.lora_B.weight": up}
    for name, piece in zip(names[1:], pieces, strict=True):
        other = up[piece] if alike else torch.randn_like(up[piece])
        tensors |= {f"{name}.lora_A.weight": down.clone(), f"{name}.lora_B.weight": other.clone()}
    return {**tensors, **more}


BLOCK = "transformer.transformer_blocks.0"
ONE_TRAINER = {
    "out": (f"{BLOCK}.attn.to_out.0", f"{BLOCK}.attn.to_out"),
    "wrapped": ("diffusion_model.double_blocks.0.img_attn.proj", "diffusion_model.double_blocks.0.img_attn_proj"),
    "compiled": (
        "diffusion_model.double_blocks.0.img_attn.proj",
        "diffusion_model._orig_mod.double_blocks.0.img_attn.proj",
    ),
    "underscore": ("lora_unet_double_blocks_0_img_attn_proj", "lora_unet_double_blocks_0_img_attn_proj_"),
    "two trainers": (
        "diffusion_model.double_blocks.0.img_attn.proj",
        "lora_transformer_transformer_blocks_0_attn_to_out",
    ),
}


@pytest.mark.parametrize("names", ONE_TRAINER.values(), ids=ONE_TRAINER)
def test_the_same_matrices_under_two_names_do_not_count_twice(save, size, names):
    file = twice(names)
    once = {name: tensor for name, tensor in file.items() if name.startswith(f"{names[0]}.")}
    assert len(once) == 2
    check(size, read_lora(save(file), size), deltas(size, read_lora(save(once, name="once"), size)))
    different = save(twice(names, alike=False))
    with pytest.raises(LoraError, match="under two names") as refused:
        read_lora(different, size)
    assert all(repr(name.rstrip("_")) in str(refused.value).replace("_'", "'") for name in names)


@pytest.mark.parametrize(
    ("names", "pieces"),
    [
        (
            (f"{BLOCK}.attn.to_qkv", *(f"{BLOCK}.attn.to_{x}" for x in "qkv")),
            [slice(i, i + 128) for i in (0, 128, 256)],
        ),
        (("lora_unet_single_blocks_0_linear1", "lora_unet_single_blocks_0_linear1_qkv"), [slice(0, 384)]),
        (("transformer.norm_out.linear", "final_layer.adaLN_modulation.1"), [torch.arange(256).roll(128)]),
    ],
    ids=["fused and apart", "whole and part", "swapped"],
)
def test_the_same_rows_under_names_of_a_whole_and_of_its_parts_do_not_count_twice(save, size, names, pieces):
    file = twice(names, pieces)
    once = {name: tensor for name, tensor in file.items() if name.startswith(f"{names[0]}.")}
    check(size, read_lora(save(file), size), deltas(size, read_lora(save(once, name="once"), size)))


def test_the_same_matrices_under_two_names_with_two_strengths_are_refused(save, size):
    names = ONE_TRAINER["out"]
    file = twice(names, **{f"{names[0]}.alpha": torch.tensor(4.0), f"{names[1]}.alpha": torch.tensor(2.0)})
    with pytest.raises(LoraError, match="under two names"):
        read_lora(save(file), size)


def test_a_bias_and_a_weight_of_one_layer_under_two_names_are_both_taken(save, size):
    one, other = ONE_TRAINER["two trainers"]
    file = {**twice((one,), ()), f"{other}.diff_b": torch.ones(128)}
    lora = read_lora(save(file), size)
    assert len(lora.patches) == len(lora.changes) == 1
    again = {**file, f"{one}.diff_b": torch.ones(128)}
    assert len(read_lora(save(again), size).changes) == 1
    with pytest.raises(LoraError, match="under two names"):
        read_lora(save({**file, f"{one}.diff_b": torch.full((128,), 2.0)}), size)


@pytest.mark.parametrize("kind", ["dora by row", "loha", "lokr in factors", "oft", "glora", "diff", "set", "norms"])
def test_another_kind_of_change_under_two_names_is_made_once(save, size, kind):
    one = {k: v for k, v in kinds(size)[kind].items() if k.startswith("diffusion_model.double_blocks.0.img_attn.")}
    both = {**one, **{key.replace("diffusion_model.", "unet."): tensor.clone() for key, tensor in one.items()}}
    assert len(read_lora(save(both), size, every_kind=True).changes) == 1
    changed = {key: tensor * (2 if key.startswith("unet.") else 1) for key, tensor in both.items()}
    with pytest.raises(LoraError, match="under two names"):
        read_lora(save(changed), size, every_kind=True)


@pytest.mark.parametrize("kind", ["loha", "lokr", "lokr in factors", "glora"])
def test_half_an_adapter_of_another_kind_is_incomplete_and_not_for_another_model(save, size, kind):
    name = "diffusion_model.double_blocks.0.img_attn.proj"
    whole = {key: value for key, value in kinds(size)[kind].items() if key.startswith(name)}
    assert read_lora(save(whole), size, every_kind=True).changes
    for missing in [key for key in whole if not key.endswith(".alpha")]:
        rest = {key: value for key, value in whole.items() if key != missing}
        with pytest.raises(LoraError, match=r"only part of the (LoHa|LoKr|GLoRA) .*incomplete"):
            read_lora(save(rest), size, every_kind=True)


def test_an_oft_in_a_form_that_nothing_reads_is_not_for_another_model(save, size):
    blocks = {"diffusion_model.double_blocks.0.img_attn.proj.oft_diag": torch.zeros(4, 32, 32)}
    with pytest.raises(LoraError, match="oft_diag") as refused:
        read_lora(save(blocks), size, every_kind=True)
    assert "another model" not in str(refused.value)
