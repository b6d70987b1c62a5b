"""LoRA files in the spellings trainers use, as branches beside the layers, never merged into FP8.

Merging a LoRA into FP8 weights rounds most of its effect away. A branch is exact, can be removed or weighed anew,
and costs about a percent of the arithmetic. Read here: diffusers and PEFT (`lora_A`, alpha in the header), Black
Forest Labs, kohya (`lora_unet_...`, `.alpha`), LyCORIS, XLabs and USO, ai-toolkit and OneTrainer, on BFL's or
diffusers' layer names: all that ComfyUI reads for FLUX.1, and more.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoint.files import open_tensors
from ..checkpoint.layers import Layer, Naming, Size, layers
from ..checkpoint.lora_keys import BIAS, by_layer
from ..checkpoint.lora_kinds import Change, Kind, Patch
from ..checkpoint.lora_reader import Reader
from ..errors import BadRequest, LoraError
from ..fp8.compute import Branch, Linear, Shift

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lora:
    """A LoRA file that fits a model of `size`. name: the file's, without suffix.

    changes: what it does beside adding products. `attach` takes those of biases, comfyui_lora.py all.
    """

    name: str
    size: Size
    patches: tuple[Patch, ...]
    changes: tuple[Change, ...] = ()


def read_lora(path: Path | str, size: Size, *, every_kind: bool = False) -> Lora:
    """The LoRA in a .safetensors file, checked against a model's size.

    every_kind: also take what is no plain LoRA. Parts for other models than the transformer, such as text encoders,
    are left out with a warning; parts that are zero and change nothing, without one. Raises DamagedFile, NonFinite, or
    LoraError saying what the file is: made for another model, another kind of adapter, incomplete, or of ranks that
    do not match.
    """
    path = Path(path)
    file = open_tensors(path)
    found, left_out = by_layer(file, path.name)
    if left_out:
        logger.warning(
            "%s also has parts for other models, such as text encoders (%d tensors); those are left out.",
            path.name,
            left_out,
        )
    reader = Reader(file, path, size)
    # What reads a picture's channels says the most about what a file is for.
    for layer in sorted(found, key=lambda name: not name.endswith(("img_in", "x_embedder"))):
        reader.read(layer, found[layer])
    if not (reader.patches or reader.changes or reader.idle):
        raise LoraError(f"{path.name} changes nothing in the transformer.")
    other = next((change.kind for change in reader.changes if change.kind is not Kind.BIAS), None)
    if other is not None and not every_kind:
        raise LoraError(
            f"{path.name} is {other.value}. Outside ComfyUI only plain LoRA are taken. Inside it Kontext LoRA takes "
            "it, and so does ComfyUI's own Load LoRA where it knows the names in the file."
        )
    return Lora(path.stem, size, tuple(reader.patches), tuple(reader.changes))


def attach(linears: Mapping[str, Linear], naming: Naming, lora: Lora, strength: float) -> None:
    """Put the LoRA beside the layers it changes; one of the same name is replaced.

    linears: a model's layers by their names in `naming`. lora: read without every_kind. strength: any finite number,
    1 as trained.
    """
    if not math.isfinite(strength):
        raise BadRequest(f"The strength of the LoRA {lora.name!r} is {strength}; it must be a number.")
    detach(linears, lora.name)
    parts = {layer.bfl: layer for layer in layers(lora.size)}
    for patch in lora.patches:
        for name, offset, rows in _placed(parts[patch.layer], naming, patch.offset, patch.up.shape[0]):
            linear = linears[name]
            down, up = (_like_bias(tensor, linear) for tensor in (patch.down, patch.up[rows]))
            linear.branches.setdefault(lora.name, []).append(Branch(down, up, offset, patch.scale * strength))
    for change in lora.changes:
        for name, offset, rows in _placed(parts[change.layer], naming, change.offset, change.rows):
            values = _like_bias(change.tensors[BIAS][rows], linears[name])
            linears[name].branches.setdefault(lora.name, []).append(Shift(values, offset, change.scale * strength))


def detach(linears: Mapping[str, Linear], name: str) -> None:
    """Take the LoRA of this name away again, which leaves the layers exactly as they were."""
    for linear in linears.values():
        linear.branches.pop(name, None)


def linears_of(model: torch.nn.Module) -> dict[str, Linear]:
    """A model's layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear)}


def _like_bias(tensor: torch.Tensor, linear: Linear) -> torch.Tensor:
    return tensor.to(linear.weight.device, torch.bfloat16 if linear.bias is None else linear.bias.dtype)


def _placed(layer: Layer, naming: Naming, offset: int, rows: int) -> Iterator[tuple[str, int, slice]]:
    """Where rows of a BFL layer fall in a model of this naming: name, first row there, which of the rows."""
    if naming is Naming.BFL:
        yield layer.bfl, offset, slice(None)
        return
    start, end = 0, offset + rows
    for part in layer.parts:
        first, last = max(start, offset), min(start + part.rows, end)
        if first < last:
            yield part.name, part.offset + first - start, slice(first - offset, last - offset)
        start += part.rows
