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
    pieces = [checkpoint.linears[part.name].rows(part.offset, part.rows) for part in layer.parts]
    if len({piece.weight.dtype for piece in pieces}) > 1 and any(piece.scale is not None for piece in pieces):
        raise UnknownLayout(
            f"{checkpoint.path.name} stores the parts of {layer.bfl!r} ({', '.join(p.name for p in layer.parts)}) in "
            f"different number formats, which cannot be fused into one layer. {GET_KONTEXT}"
        )
    return stacked(pieces)


def stacked(pieces: list[Weights]) -> Weights:
    """One layer of the rows of several, all of them FP8 of one format or none."""
    first = pieces[0]
    if len(pieces) == 1:
        return first
    bias = torch.cat([piece.bias for piece in pieces])
    full_precision = any(piece.full_precision for piece in pieces)
    scales = [piece.scale for piece in pieces if piece.scale is not None]
    if not scales:
        return Weights(torch.cat([piece.weight for piece in pieces]), None, bias, first.role, full_precision)
    shared = all(scale.ndim == 0 and bool(scale == scales[0]) for scale in scales)
    by_row = [scale.expand(len(piece.bias)) for scale, piece in zip(scales, pieces, strict=True)]
    # torch stacks no FP8 on some devices; bytes it does.
    weight = torch.cat([piece.weight.view(torch.uint8) for piece in pieces]).view(first.weight.dtype)
    return Weights(weight, scales[0] if shared else torch.cat(by_row), bias, first.role, full_precision)
