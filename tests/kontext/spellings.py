"""Every spelling of a LoRA's keys, on every layer under every name, with what each file must do to the weights.

Shared by the tests without ComfyUI, which compare with sums made by hand, and by tests/local/test_model_lora.py, which
compares with what ComfyUI itself makes of the same files.
"""

import json
from dataclasses import dataclass

import torch
from kontext_bridge.kontext.checkpoint.layers import layers

RANK, ALPHA = 2, 3.0

# Beginning of the key, whose names follow, whether dots become underscores.
PREFIXES = (
    ("", "bfl", False),
    ("diffusion_model.", "bfl", False),
    ("model.diffusion_model.", "bfl", False),
    ("base_model.model.", "bfl", False),
    ("transformer.", "bfl", False),
    ("unet.", "bfl", False),
    ("diffusion_model._orig_mod.", "bfl", False),
    ("lora_unet_", "bfl", True),
    ("lora_unet__", "bfl", True),
    ("lora_transformer_", "bfl", True),
    ("lycoris_", "bfl", True),
    ("", "diffusers", False),
    ("transformer.", "diffusers", False),
    ("base_model.model.", "diffusers", False),
    ("base_model.model.transformer.", "diffusers", False),
    ("diffusion_model.", "diffusers", False),
    ("unet.", "diffusers", False),
    ("lora_unet_", "diffusers", True),
    ("lora_transformer_", "diffusers", True),
    ("lycoris_", "diffusers", True),
)
# Ends of the keys of the two matrices, and whether they are written as convolutions of one pixel.
SUFFIXES = (
    (".lora_down.weight", ".lora_up.weight", False),
    (".lora_down.weight", ".lora_up.weight", True),
    (".lora_A.weight", ".lora_B.weight", False),
    (".lora_A.weight", ".lora_B.weight", True),
    (".lora_A.default.weight", ".lora_B.default.weight", False),
    (".lora_A.edit.weight", ".lora_B.edit.weight", False),
    (".lora_A", ".lora_B", False),
    (".lora.down.weight", ".lora.up.weight", False),
    ("_lora.down.weight", "_lora.up.weight", False),
    ("_.lora_down.weight", "_.lora_up.weight", False),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight", False),
)


@dataclass(frozen=True)
class Spelled:
    """A file's tensors; the delta of each BFL weight that it changes; how many names of layers it has."""

    tensors: dict
    expected: dict
    names: int


def named(size, naming):
    """Name of a layer, the BFL layer, first row there and rows of the named layer; one entry a piece."""
    pieces = []
    for layer in layers(size):
        if naming == "bfl":
            pieces.append((layer.bfl, layer.bfl, 0, 0, layer.rows, layer.inputs))
            if layer.bfl.endswith("linear1"):
                pieces.append((f"{layer.bfl}_qkv", layer.bfl, 0, 0, 3 * size.hidden, layer.inputs))
            continue
        start = 0
        for part in layer.parts:
            pieces.append((part.name, layer.bfl, start, part.offset, part.rows, layer.inputs))
            start += part.rows
        block = layer.parts[0].name.rpartition(".attn.")[0]
        other = {
            ".net.0.proj": ".linear_in",
            ".net.2": ".linear_out",
            ".attn.to_out.0": ".attn.to_out",
        }
        for end, alias in other.items():
            if layer.parts[0].name.endswith(end):
                pieces.append(
                    (layer.parts[0].name.removesuffix(end) + alias, layer.bfl, 0, 0, layer.rows, layer.inputs)
                )
        if layer.bfl.endswith("linear1"):
            pieces.append((f"{block}.attn.to_qkv_mlp_proj", layer.bfl, 0, 0, layer.rows, layer.inputs))
            pieces.append((f"{block}.attn.to_qkv", layer.bfl, 0, 0, 3 * size.hidden, layer.inputs))
        if layer.bfl.endswith("linear2"):
            single = layer.parts[0].name.removesuffix("proj_out")
            pieces.append((f"{single}attn.to_out", layer.bfl, 0, 0, layer.rows, layer.inputs))
        if layer.bfl.endswith("img_attn.qkv"):
            pieces.append((f"{block}.attn.to_qkv", layer.bfl, 0, 0, layer.rows, layer.inputs))
        if layer.bfl.endswith("txt_attn.qkv"):
            pieces.append((f"{block}.attn.to_added_qkv", layer.bfl, 0, 0, layer.rows, layer.inputs))
    return pieces


def spelled_apart(size, prefix, suffix):
    """The files of one spelling, with every layer of a model in the first, and its second names in the second."""
    pieces = named(size, prefix[1])
    places, first = set(), set()
    for name, bfl, start, _, rows, _ in pieces:
        if (bfl, start, rows) not in places:
            places.add((bfl, start, rows))
            first.add(name)
    groups = [[piece for piece in pieces if (piece[0] in first) is wanted] for wanted in (True, False)]
    return [spelled(size, prefix, suffix, group) for group in groups if group]


def spelled(size, prefix, suffix, pieces=None):
    """The file of one spelling, with every layer of a model in it, each under each of its names."""
    start, naming, flat = prefix
    down_end, up_end, conv = suffix
    generator = torch.Generator().manual_seed(5)
    matrices, tensors, expected = {}, {}, {}
    pieces = named(size, naming) if pieces is None else pieces
    totals = {}
    for name, _, _, offset, rows, inputs in pieces:
        totals[name] = (max(totals.get(name, (0, 0))[0], offset + rows), inputs)
    for name, (rows, inputs) in totals.items():
        down, up = torch.randn(RANK, inputs, generator=generator), torch.randn(rows, RANK, generator=generator)
        matrices[name] = up @ down * (ALPHA / RANK if flat else 1)
        key = start + (name.replace(".", "_") if flat else name)
        shape = (1, 1) if conv else ()
        tensors[key + down_end] = down.reshape(*down.shape, *shape)
        tensors[key + up_end] = up.reshape(*up.shape, *shape)
        if flat:
            trailing = "_" if down_end.startswith("_.") else ""
            tensors[f"{key}{trailing}.alpha"] = torch.tensor(ALPHA)
    for name, bfl, first, offset, rows, inputs in pieces:
        layer = next(layer for layer in layers(size) if layer.bfl == bfl)
        delta = expected.setdefault(bfl, torch.zeros(layer.rows, inputs))
        delta[first : first + rows] += matrices[name][offset : offset + rows]
    return Spelled(tensors, expected, len(totals))


def every_spelling(size):
    for number, prefix in enumerate(PREFIXES):
        for other, suffix in enumerate(SUFFIXES):
            conv = " as convolutions" if suffix[2] else ""
            title = f"{number:02}-{other:02} {prefix[0] or 'no prefix'} {prefix[1]} {suffix[0]}{conv}"
            yield title, spelled(size, prefix, suffix)


def processors(size):
    """USO's and XLabs' file."""
    generator = torch.Generator().manual_seed(6)
    h, tensors, expected = size.hidden, {}, {}
    blocks = [
        (
            f"double_blocks.{i}",
            {
                "qkv_lora1": "img_attn.qkv",
                "qkv_lora2": "txt_attn.qkv",
                "proj_lora1": "img_attn.proj",
                "proj_lora2": "txt_attn.proj",
            },
        )
        for i in range(size.doubles)
    ] + [(f"single_blocks.{i}", {"qkv_lora": "linear1", "proj_lora": "linear2"}) for i in range(size.singles)]
    sizes = {layer.bfl: (layer.rows, layer.inputs) for layer in layers(size)}
    for block, names in blocks:
        for name, own in names.items():
            whole, inputs = sizes[f"{block}.{own}"]
            rows = 3 * h if "qkv" in name else whole
            down, up = torch.randn(RANK, inputs, generator=generator), torch.randn(rows, RANK, generator=generator)
            tensors[f"{block}.processor.{name}.down.weight"] = down
            tensors[f"{block}.processor.{name}.up.weight"] = up
            expected[f"{block}.{own}"] = torch.zeros(whole, inputs)
            expected[f"{block}.{own}"][:rows] = up @ down
    return Spelled(tensors, expected, len(expected))


def kinds(size):
    """Adapters of every other kind as ComfyUI names them: on whole layers, on a part of one, and outside the blocks."""
    generator = torch.Generator().manual_seed(7)

    def random(*shape, scale=0.05):
        return torch.randn(*shape, generator=generator) * scale

    chosen = {
        "diffusion_model.double_blocks.0.img_attn.proj": "double_blocks.0.img_attn.proj",
        "diffusion_model.single_blocks.1.linear1": "single_blocks.1.linear1",
        "transformer.transformer_blocks.1.attn.to_k": "double_blocks.1.img_attn.qkv",
        "lora_unet_txt_in": "txt_in",
        "lycoris_single_transformer_blocks_0_norm_linear": "single_blocks.0.modulation.lin",
    }
    sizes = {layer.bfl: (layer.rows, layer.inputs) for layer in layers(size)}
    files = {}
    for name, bfl in chosen.items():
        rows, inputs = sizes[bfl]
        rows = size.hidden if name.endswith("to_k") else rows
        plain = {
            ".lora_down.weight": random(4, inputs),
            ".lora_up.weight": random(rows, 4),
            ".alpha": torch.tensor(2.0),
        }
        blocks = random(rows // 8, 8, 8)
        parts = {
            "dora by row": {**plain, ".dora_scale": 1 + random(rows, 1)},
            "dora by column": {**plain, ".dora_scale": 1 + random(1, inputs)},
            "loha": {
                f".hada_w{i}_{j}": random(*((rows, 4) if j == "a" else (4, inputs)), scale=0.3)
                for i in (1, 2)
                for j in "ab"
            }
            | {".alpha": torch.tensor(2.0)},
            "lokr": {".lokr_w1": random(4, 2), ".lokr_w2": random(rows // 4, inputs // 2), ".alpha": torch.tensor(1.0)},
            "lokr in factors": {
                ".lokr_w1_a": random(4, 2, scale=0.5),
                ".lokr_w1_b": random(2, 2, scale=0.5),
                ".lokr_w2_a": random(rows // 4, 3, scale=0.5),
                ".lokr_w2_b": random(3, inputs // 2, scale=0.5),
                ".alpha": torch.tensor(2.0),
            },
            "oft": {".oft_blocks": blocks, ".alpha": torch.tensor(0.0)},
            "oft with constraint": {".oft_blocks": blocks, ".alpha": torch.tensor(0.01)},
            "boft": {".oft_blocks": random(3, rows // 8, 8, 8), ".alpha": torch.tensor(0.0)},
            "glora": {
                ".a1.weight": random(inputs, 3),
                ".a2.weight": random(3, inputs),
                ".b1.weight": random(rows, 3),
                ".b2.weight": random(3, inputs),
                ".alpha": torch.tensor(2.0),
            },
            "middle": {**plain, ".lora_mid.weight": random(4, 4, 1, 1, scale=1)},
            "diff": {".diff": random(rows, inputs)},
            "set": {".set_weight": random(rows, inputs)},
        }
        if not name.endswith("to_k"):
            parts["bias"] = {**plain, ".diff_b": random(rows)}
        for kind, tensors in parts.items():
            files.setdefault(kind, {}).update({name + end: tensor for end, tensor in tensors.items()})
    norm = "diffusion_model.double_blocks.0.img_attn.norm.key_norm"
    files["norms"] = {
        f"{norm}.diff": random(128),
        "transformer.single_transformer_blocks.1.attn.norm_q.w_norm": random(128),
    }
    files["norms set"] = {f"{norm}.set_weight": 1 + random(128)}
    return files


def irrelevant(size):
    """What no edit needs, each beside a LoRA that must be read as if it were not there."""
    return {
        "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.diff_b": torch.ones(3),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.dora_scale": torch.ones(3, 1),
        "lora_te2_encoder_block_0_layer_0_SelfAttention_k.lokr_w1": torch.ones(3, 1),
        "lora_te_text_projection.hada_w1_a": torch.ones(3, 1),
        "lycoris_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(3, 1),
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.down.weight": torch.ones(3, 1),
        "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q.lora_magnitude_vector": torch.ones(3),
        "clip_l.transformer.text_model.embeddings.something": torch.ones(3),
        "t5xxl.transformer.shared.set_weight": torch.ones(3),
        "bundle_emb.style.clip_l": torch.ones(2, 3),
        "bundle_emb.style.string_to_param.*": torch.ones(2, 3),
        "emb_params": torch.ones(2, 3),
        "vae.decoder.conv_in.lora_A.weight": torch.ones(2, 3),
        "diffusion_model.img_in.diff_b": torch.zeros(size.hidden),
        "diffusion_model.txt_in.bias.diff": torch.zeros(size.hidden),
        "diffusion_model.txt_in.lora_B.bias": torch.zeros(size.hidden),
        "diffusion_model.txt_in.diff": torch.zeros(size.hidden, size.context),
        "diffusion_model.double_blocks.0.img_attn.norm.key_norm.diff": torch.zeros(128),
        "transformer.transformer_blocks.1.attn.norm_q.w_norm": torch.zeros(128),
    }


def with_header(patterns, **config):
    return {
        "lora_adapter_metadata": json.dumps(
            {
                "transformer.lora_alpha": 8,
                "transformer.r": 4,
                "transformer.alpha_pattern": patterns,
                **{f"transformer.{k}": v for k, v in config.items()},
            }
        )
    }
