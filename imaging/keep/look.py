"""One look at the pictures as they lie: the edit on the source's pixels, its drift taken back, and what was edited."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .bench import Bench
from .change import CUT, FINE_REACH, EditedPixels, find_change, fine_ratio, left_over
from .colour import Drift, fit_drift
from .filters import centres, enlarged, grown, halved, in_blocks, pooled, sampled, shrunk
from .mapping import Mapping

_POOLED = 6_000, 12_000  # pixels that the drift is learnt from, at first and then: enough, and quick
BORDER = 3  # pixels at a border that cannot be judged: what lies beside them is unknown
_APART = 6  # pixels around a change that may not tell of the drift
_CLOSE = 8  # pixels around a likely change that are looked at closely, too
_OBVIOUS = 1e6
_BESIDE = 2  # pixels at half the size into which a change's blur may reach
_INNER = 12  # pixels inside a change from where on there is no doubt


@dataclass(frozen=True, eq=False)
class Look:
    """What is seen of one pair.

    source, aligned, corrected [3,h,w] fp32, covered [h,w] bool: both pictures at half the bench's size, and where the
    edit reaches; judged [H,W] bool: where it is far enough from any border to be judged; mask, likely [H,W] bool: what
    was edited, and what may have been; drift: None where too little is left to learn it.
    """

    source: Tensor
    aligned: Tensor
    corrected: Tensor
    covered: Tensor
    judged: Tensor
    mask: Tensor
    likely: Tensor
    drift: Drift | None
    noise: float

    @cached_property
    def free(self) -> Tensor:
        """[h,w] bool: what is covered and was not edited."""
        return self.covered & ~(_at(self.mask, *self.covered.shape)[0] > 0)

    @property
    def sure(self) -> Tensor:
        """[h,w] bool: what was certainly not edited: at a border, and right beside a change, that cannot be told."""
        return shrunk(self.free, _BESIDE) & (_at(self.judged, *self.covered.shape)[0] == 1)


def first_look(bench: Bench, mapping: Mapping, likeness: Tensor, allowed: Tensor | None) -> Look:
    """What half the size shows. bench: at half the size; allowed [H,W] bool: where alone the picture may be edited."""
    seen = _seen(bench, mapping, likeness, allowed)
    height, width = bench.source.shape[1:]
    judged = _judged(bench, mapping, *mapping.on(height, width))
    left, reach = left_over(*seen.pictures, judged.float()[None]), judged.float()[None]

    def fine(rows: slice, columns: slice) -> Tensor:
        return fine_ratio(*(planes[:, rows, columns] for planes in (bench.source, left, reach)))

    ratio = in_blocks(fine, FINE_REACH, height, width)[0]
    change = find_change(ratio, halved(bench.source), halved(left), judged)
    return _told(seen, judged, change, allowed)


def close_look(
    bench: Bench, small: Bench, mapping: Mapping, likeness: Tensor, edited: Tensor, allowed: Tensor | None, first: Look
) -> Look:
    """What the full size shows where that may be more than the first look did. small: the bench at half the size.

    edited [H,W] bool: what is known to have been edited; allowed [H,W] bool: where alone that may be. Both at any size
    over the source.
    """
    seen = _seen(small, mapping, likeness, edited, first)
    height, width = bench.source.shape[1:]
    u, v = mapping.on(height, width)
    judged = _judged(bench, mapping, u, v)
    reach, down, across = judged.float()[None], centres(height), centres(width)

    def fine(rows: slice, columns: slice) -> Tensor:
        at = bench.on_edit(u[rows, columns], v[rows, columns])
        aligned = sampled(bench.edited, *at, "bicubic").clamp_(0, 1)
        corrected = seen.mended(aligned, down[rows], across[columns])
        source = bench.source[:, rows, columns]
        left = left_over(source, corrected, aligned, reach[:, rows, columns])
        return fine_ratio(source, left, reach[:, rows, columns])

    inner = _at(shrunk(first.mask, _INNER), height, width)[0] > 0.5
    around = (_at(grown(first.likely, _CLOSE), height, width)[0] > 0) & ~inner
    ratio = in_blocks(fine, FINE_REACH, height, width, around)[0].masked_fill_(inner, _OBVIOUS)
    beyond = halved(reach)
    change = find_change(ratio, small.source, left_over(*seen.pictures, beyond), judged, around)
    return _told(seen, judged, change, allowed)


@dataclass(frozen=True, eq=False)
class _Seen:
    """The pictures at half the bench's size, as they lie, and the drift between them."""

    pictures: tuple[Tensor, Tensor, Tensor]  # the source, the edit corrected, the edit
    covered: Tensor
    drift: Drift | None

    def mended(self, aligned: Tensor, down: Tensor, across: Tensor) -> Tensor:
        """The edit's colours at these shares of the source, its drift taken back."""
        return aligned if self.drift is None else self.drift.corrected(aligned, down, across).clamp_(0, 1)


def _seen(bench: Bench, mapping: Mapping, likeness: Tensor, edited: Tensor | None, first: Look | None = None) -> _Seen:
    height, width = bench.source.shape[1:]
    u, v = mapping.on(height, width)
    aligned = sampled(bench.edited, *bench.on_edit(u, v), "bilinear" if first is None else "bicubic").clamp_(0, 1)
    covered = mapping.covered(u, v)
    weight = covered.float()[None]
    if edited is not None:
        weight *= ~grown(_at(edited, height, width)[0] > 0, _APART)
    drift = _drift(bench.source, aligned, weight, likeness, edited is not None, None if first is None else first.drift)
    seen = _Seen((bench.source, aligned, aligned), covered, drift)
    corrected = seen.mended(aligned, centres(height), centres(width))
    return replace(seen, pictures=(bench.source, corrected, aligned))


def _judged(bench: Bench, mapping: Mapping, u: Tensor, v: Tensor) -> Tensor:
    """[h,w] bool: which of the points u, v are far enough from the borders of both."""
    # In the edit's pixels, which at half the size are half as wide.
    judged = mapping.covered(u, v, BORDER * math.sqrt(math.prod(bench.edit) / u.numel()))
    judged[:BORDER] = judged[-BORDER:] = judged[:, :BORDER] = judged[:, -BORDER:] = False
    return judged


def _told(seen: _Seen, judged: Tensor, change: EditedPixels, allowed: Tensor | None) -> Look:
    source, corrected, aligned = seen.pictures
    mask = change.mask
    if allowed is not None:
        mask &= _at(allowed, *mask.shape)[0] > 0.5
    return Look(source, aligned, corrected, seen.covered, judged, mask, change.likely, seen.drift, change.noise)


def half(bench: Bench) -> Bench:
    """The same at half the size, for a first look."""
    return Bench(halved(bench.source), halved(bench.edited), bench.size, bench.edit)


def _at(mask: Tensor, height: int, width: int) -> Tensor:
    """[1,height,width] 0..1 of a bool mask: by areas where that is coarser, else linear between."""
    planes = mask.float()[None]
    return pooled(planes, height, width) if mask.shape[0] >= height else enlarged(planes, height, width)


def _drift(
    source: Tensor, aligned: Tensor, weight: Tensor, likeness: Tensor, known: bool, first: Drift | None
) -> Drift | None:
    height, width = source.shape[1:]
    pool = max(1, round(math.sqrt(height * width / _POOLED[known])))
    small = max(1, height // pool), max(1, width // pool)
    cut = (aligned > 1 - CUT).float() - (aligned < CUT).float()
    planes = pooled(torch.cat([source * weight, aligned * weight, cut * weight, weight]), *small)
    share, planes = planes[9:], planes[:9] / planes[9:].clamp(min=1e-3)
    if not known:
        # Flat places look unlike for no reason; the fit leaves out what does not follow.
        share = share * ((enlarged(likeness, *small) - 0.3) / 0.4).clamp(0.3, 1)
    return fit_drift(planes[:3], planes[3:6], share, known, first, planes[6:])
