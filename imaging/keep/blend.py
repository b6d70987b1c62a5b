"""Lays what was edited into the source, at the source's own size; everything else stays the source's, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry import Box, box_around
from .bench import Bench
from .colour import Drift
from .filters import blur, centres, halved, sampled, scaled
from .mapping import Mapping

_TILE = 512  # pixels: memory beside the pictures stays small whatever their size, and what is not edited costs nothing
_FAINT = 1e-3  # less of the edit than that is none, and less of the source
_FINER = 1.5  # times the source's pixels: at its own size, what it can just show would be half gone already
_MOST = 0.06  # the largest step at the rim that is carried inwards: more is no leftover drift


@dataclass(frozen=True, eq=False)
class LaidPart:
    """What the edit has to give: where it lies, what to add to its colour, and to its rim.

    rim [3,y,x]: on a coarse grid over the source. strength: how much of the drift is taken back, 0..1. beyond: what
    is taken for the edit beyond its border: its mirror image, or with "border" its last pixels. shift [2,y,x], on any
    grid over the source: from how many of the edit's pixels away a place takes its colour.
    """

    edited: Tensor
    mapping: Mapping
    drift: Drift | None
    rim: Tensor | None
    strength: float
    beyond: str = "reflection"
    shift: Tensor | None = None

    def at(self, down: Tensor, across: Tensor) -> Tensor:
        """[3,h,w] in 0..1 at shares of the source."""
        height, width = self.mapping.edit
        u, v = self.mapping.at(down, across)
        if self.shift is not None:
            along = _spread(self.shift, down, across)
            u, v = u + along[0], v + along[1]
        u, v = u * (self.edited.shape[2] / width), v * (self.edited.shape[1] / height)
        colour = sampled(self.edited, u, v, "bicubic", self.beyond).clamp_(0, 1)
        if self.drift is not None:
            colour = self.drift.corrected(colour, down, across, self.strength)
        if self.rim is not None:
            colour = colour + _spread(self.rim, down, across) * self.strength
        return colour.clamp_(0, 1)


def sharpest(edited: Tensor, bench: Bench) -> Tensor:
    """The edit [3,h,w] to sample from: as it came, or scaled down once where the source has far fewer pixels."""
    share = _FINER * math.sqrt(math.prod(bench.size) / math.prod(bench.edit))
    if share > 0.9:
        return edited
    height, width = (max(1, round(n * share)) for n in bench.edit)
    return scaled(edited, height, width)


def rim_of(source: Tensor, corrected: Tensor, free: Tensor) -> Tensor:
    """[3,h,w] on a grid twice as coarse: what source and edit still differ by around a change, carried smoothly into
    it.

    source, corrected [3,H,W]; free [H,W] bool: where nothing was edited. Near before far; where nothing is known,
    nothing.
    """
    known = free.float()[None]
    small = halved(torch.cat([(source - corrected).mul_(known), known]))
    value, sure = torch.zeros_like(small[:3]), torch.zeros_like(small[:1])
    for sigma in (1.0, 2.5, 6.0):
        near = blur(small, sigma)
        trust = (near[3:] * 6).clamp(0, 1) * (1 - sure)
        value = value + trust * near[:3] / (near[3:] + 1e-3)
        sure = sure + trust
    return value.clamp_(-_MOST, _MOST)


def blended(source: Tensor, patch: LaidPart, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """(picture [H,W,C], mask [H,W]): the patch laid over the source [H,W,C] as far as alpha [h,w] says, 0..1.

    C 3 or 4, floating point; a fourth channel stays. alpha lies over the whole source, at any size.
    """
    height, width = source.shape[:2]
    picture, weight = source.clone(), torch.zeros(height, width)
    if not (alpha > 0).any():
        return picture, weight
    down, across = centres(height), centres(width)
    box = box_around(alpha[None], 1)
    top, low = box.top * height // alpha.shape[0], -(-(box.top + box.height) * height // alpha.shape[0])
    left, right = box.left * width // alpha.shape[1], -(-(box.left + box.width) * width // alpha.shape[1])
    for tile in _tiles(top, low, left, right):
        share = _spread(alpha[None], down[tile.rows], across[tile.columns])[0]
        share = torch.where(share < _FAINT, 0.0, torch.where(share > 1 - _FAINT, 1.0, share))
        if not share.any():
            continue
        within = box_around(share[None], 0)
        share = share[within.rows, within.columns]
        tile = Box(tile.left + within.left, tile.top + within.top, within.width, within.height)
        rows, columns = down[tile.rows], across[tile.columns]
        part = picture[tile.rows, tile.columns, :3]
        mixed = torch.lerp(part.float(), patch.at(rows, columns).permute(1, 2, 0), share[..., None])
        part.copy_(torch.where(share[..., None] > 0, mixed.to(part.dtype), part))
        weight[tile.rows, tile.columns] = share
    return picture, weight


def _tiles(top: int, low: int, left: int, right: int) -> Iterator[Box]:
    for row in range(top, low, _TILE):
        for column in range(left, right, _TILE):
            yield Box(column, row, min(_TILE, right - column), min(_TILE, low - row))


def _spread(planes: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Planes over the whole source at shares of it, linear between."""
    u, v = across * planes.shape[2], (down * planes.shape[1])[:, None]
    return sampled(planes, u.expand(len(down), -1), v.expand(-1, len(across)))
