"""A checkpoint's tensors under Black Forest Labs' names, whichever names its file uses.

From diffusers' names, rows are stacked into the fused layers they came from; FP8 bytes stay what they are. Layers
whose pieces have a scale each get one a row, which says the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..errors import UnknownLayout
from .identify import GET_KONTEXT
from .layers import Layer, Naming, layers, norms
from .reading import Checkpoint, Weights


def bfl_layers(checkpoint: Checkpoint) -> Iterator[tuple[str, Weights]]:
    """Every linear layer by its BFL name, one at a time; memory-mapped where the file has it in one piece."""
    for layer in layers(checkpoint.size):
        if checkpoint.naming is Naming.BFL:
            yield layer.bfl, checkpoint.linears[layer.bfl]
        else:
            yield layer.bfl, _fused(checkpoint, layer)


def bfl_norms(checkpoint: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:
    """The scale of every RMS norm by its BFL name."""
    for norm in norms(checkpoint.size):
        name = norm.bfl if checkpoint.naming is Naming.BFL else norm.diffusers
        yield norm.bfl, checkpoint.norms[name]


def _fused(checkpoint: Checkpoint, layer: Layer) -> Weights:
    pieces = [_rows(checkpoint.linears[part.name], slice(part.offset, part.offset + part.rows)) for part in layer.parts]
    first = pieces[0]
    if len(pieces) == 1:
        return first
    scales = [piece.scale for piece in pieces if piece.scale is not None]
    biases = torch.cat([piece.bias for piece in pieces])
    if not scales:
        weight = torch.cat([piece.weight for piece in pieces])
        return Weights(weight, None, biases, layer.role, first.full_precision)
    if len({piece.weight.dtype for piece in pieces}) > 1:
        raise UnknownLayout(
            f"{checkpoint.path.name} stores the parts of {layer.bfl!r} ({', '.join(p.name for p in layer.parts)}) in "
            f"different number formats, which cannot be fused into one layer. {GET_KONTEXT}"
        )
    shared = all(scale.ndim == 0 and bool(scale == scales[0]) for scale in scales)
    scale = scales[0] if shared else torch.cat([_by_row(piece) for piece in pieces])
    # torch stacks no FP8 on some devices; bytes it does.
    weight = torch.cat([piece.weight.view(torch.uint8) for piece in pieces]).view(first.weight.dtype)
    return Weights(weight, scale, biases, layer.role, any(piece.full_precision for piece in pieces))


def _rows(weights: Weights, rows: slice) -> Weights:
    scale = weights.scale if weights.scale is None or weights.scale.ndim == 0 else weights.scale[rows]
    return Weights(weights.weight[rows], scale, weights.bias[rows], weights.role, weights.full_precision)


def _by_row(weights: Weights) -> torch.Tensor:
    assert weights.scale is not None
    return weights.scale.expand(weights.weight.shape[0])
