"""The layers that a LoRA file changes, by any of the names that trainers and converters give them.

Known are Black Forest Labs' and diffusers' names, both with dots and flat (`double_blocks_0_img_attn_qkv`), behind the
prefixes of every trainer, the fused and renamed layers that ComfyUI knows, and the processors of XLabs and USO.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .layers import HEAD, Layer, Size, layers, norms

# What stands before a layer's own name, in the flat spelling; several may be stacked.
_PREFIXES = (
    "model_diffusion_model_",
    "base_model_model_",
    "base_model_",
    "diffusion_model_",
    "transformer_",
    "unet_",
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
    "lora_",
    "model_",
    "module_",
    "pipe_",
    "dit_",
    "flux_",
)
# What torch.compile, FSDP and diffusers' older attention processors put between a layer's names.
_WRAPPERS = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.|(?<=\.)processor\.")
_PROCESSOR = re.compile(r"\.processor\.(qkv|proj)_lora([12]?)\.(down|up)(?=\.|$)")
_PROCESSED = {
    "qkv1": "img_attn.qkv",
    "qkv2": "txt_attn.qkv",
    "proj1": "img_attn.proj",
    "proj2": "txt_attn.proj",
    "qkv": "linear1_qkv",
    "proj": "linear2",
}


@dataclass(frozen=True)
class Rows:
    """A layer under the name that a LoRA calls it: its size, and where its rows are in BFL's layers.

    places: BFL's layer, first row there, rows of the named layer. is_norm: it is the scale of an RMS norm, [HEAD].
    """

    rows: int
    inputs: int
    places: tuple[tuple[str, int, slice], ...]
    is_norm: bool = False


class Targets:
    """Finds the layers of a model of one size by any of their names."""

    def __init__(self, size: Size) -> None:
        found: dict[str, Rows] = {}
        for layer in layers(size):
            found[layer.bfl] = _whole(layer, layer.rows)
            start = 0
            for part in layer.parts:
                place = (layer.bfl, start, slice(part.offset, part.offset + part.rows))
                earlier = found.get(part.name)
                places = (*(earlier.places if earlier else ()), place)
                found[part.name] = Rows((earlier.rows if earlier else 0) + part.rows, layer.inputs, places)
                start += part.rows
            for name, rows in _aliases(layer):
                found[name] = _whole(layer, rows)
        for norm in norms(size):
            for name in (norm.bfl, norm.diffusers):
                found[name] = Rows(HEAD, 0, ((norm.bfl, 0, slice(None)),), is_norm=True)
        self._found = {_flat(name): rows for name, rows in found.items()}

    def find(self, name: str) -> Rows | None:
        """The layer of this name, whatever stands before it."""
        flat = _flat(_WRAPPERS.sub("", name))
        while flat not in self._found:
            prefix = next((p for p in _PREFIXES if flat.startswith(p)), None)
            if prefix is None:
                return None
            flat = flat.removeprefix(prefix).strip("_")
        return self._found[flat]


def unwrapped(name: str) -> str:
    """A tensor's name as other trainers have it, for the attention processors that XLabs and USO train."""
    return _PROCESSOR.sub(lambda match: f".{_PROCESSED[match[1] + match[2]]}.lora_{match[3]}", name)


def _flat(name: str) -> str:
    return re.sub("_+", "_", name.replace(".", "_")).strip("_")


def _whole(layer: Layer, rows: int) -> Rows:
    return Rows(rows, layer.inputs, ((layer.bfl, 0, slice(None)),))


def _aliases(layer: Layer) -> Iterator[tuple[str, int]]:
    """Other names of the first rows of a layer, with how many these are."""
    first = layer.parts[0].name
    block = ".".join(first.split(".")[:2])
    attention = sum(part.rows for part in layer.parts[:3])
    if layer.bfl.endswith("img_attn.qkv"):
        yield f"{block}.attn.to_qkv", attention
    elif layer.bfl.endswith("txt_attn.qkv"):
        yield f"{block}.attn.to_added_qkv", attention
    elif layer.bfl.endswith(".linear1"):
        yield f"{layer.bfl}_qkv", attention
        yield f"{block}.attn.to_qkv", attention
        yield f"{block}.attn.to_qkv_mlp_proj", layer.rows
    elif layer.bfl.endswith(".linear2"):
        yield f"{block}.attn.to_out", layer.rows
    elif first.endswith(".attn.to_out.0"):
        yield first.removesuffix(".0"), layer.rows
    elif first.endswith(".net.0.proj"):
        yield first.replace(".net.0.proj", ".linear_in"), layer.rows
    elif first.endswith(".net.2"):
        yield first.replace(".net.2", ".linear_out"), layer.rows
