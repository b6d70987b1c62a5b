"""LoRA files as branches beside the layers, never merged into FP8.

Merging a LoRA into FP8 weights rounds most of its effect away. A branch is exact, can be removed or weighed anew, and
costs about a percent of the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch

from ..checkpoint.layers import Layer, Naming, layers
from ..checkpoint.lora import Lora
from ..checkpoint.lora_keys import BIAS
from ..errors import BadRequest
from ..fp8.branches import Branch, Shift, join
from ..fp8.compute import Linear


def attach(linears: Mapping[str, Linear], naming: Naming, lora: Lora, strength: float) -> None:
    """Put the LoRA beside the layers it changes; one of the same name is replaced.

    linears: a model's layers by their names in `naming`. lora: read without every_kind. strength: any finite number,
    1 as trained.
    """
    if not math.isfinite(strength):
        raise BadRequest(f"The strength of the LoRA {lora.name!r} is {strength}; it must be a number.")
    detach(linears, lora.name)
    parts = {layer.bfl: layer for layer in layers(lora.size)}
    placed: dict[str, list[Branch]] = {}
    for patch in lora.patches:
        for name, offset, rows in _placed(parts[patch.layer], naming, patch.offset, patch.up.shape[0]):
            placed.setdefault(name, []).append(Branch(patch.down, patch.up[rows], offset, patch.scale * strength))
    for name, branches in placed.items():
        linear = linears[name]
        linear.branches[lora.name] = [*(join(branches, linear.weight.device, _type_of(linear)) or ())]
    for change in lora.changes:
        for name, offset, rows in _placed(parts[change.layer], naming, change.offset, change.rows):
            linear = linears[name]
            values = change.tensors[BIAS][rows].to(torch.float32) * (change.scale * strength)
            shift = Shift(values.to(linear.weight.device, _type_of(linear)), offset)
            linear.branches.setdefault(lora.name, []).append(shift)


def detach(linears: Mapping[str, Linear], name: str) -> None:
    """Take the LoRA of this name away again, which leaves the layers exactly as they were."""
    for linear in linears.values():
        linear.branches.pop(name, None)


def linears_of(model: torch.nn.Module) -> dict[str, Linear]:
    """A model's layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear)}


def _type_of(linear: Linear) -> torch.dtype:
    """The type that a layer's model computes in."""
    return torch.bfloat16 if linear.bias is None else linear.bias.dtype


def _placed(layer: Layer, naming: Naming, offset: int, rows: int) -> Iterator[tuple[str, int, slice]]:
    """Where rows of a BFL layer fall in a model of this naming: name, first row there, which of the rows."""
    if naming is Naming.BFL:
        yield layer.bfl, offset, slice(None)
        return
    for start, part in layer.placed_parts():
        first, last = max(start, offset), min(start + part.rows, offset + rows)
        if first < last:
            yield part.name, part.offset + first - start, slice(first - offset, last - offset)
