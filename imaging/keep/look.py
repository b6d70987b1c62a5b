"""One look at the pictures as they lie: the edit on the source's pixels, its drift taken back, and what was edited."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .bench import Bench
from .change import FINE_REACH, EditedPixels, find_change, fine_ratio, left_over
from .colour import Drift, fit_drift
from .filters import blur, centres, enlarged, grown, halved, in_blocks, pooled, sampled, shrunk
from .mapping import Mapping

_POOLED = 6_000, 12_000  # pixels that the drift is learnt from, at first and then: enough, and quick
_BORDER = 3  # pixels at a border that cannot be judged: what lies beside them is unknown
_APART = 6  # pixels around a change that may not tell of the drift
_CLOSE = 8  # pixels around a likely change that are looked at closely, too
_OBVIOUS = 1e6
_BESIDE = 2  # pixels at half the size into which a change's blur may reach
_INNER = 12  # pixels inside a change from where on there is no doubt
_SLACK = 0.08  # a colour cut off at black or white was at least this near, drift or not
_SEEN = 0.02  # a difference that is one at a border
_GAP = 8  # pixels
_OVER = 5  # pixels that a mask reaches beyond its change
_CARRIED = 0.03  # of the long side: how far beyond the edit's border a change goes on


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
    left, reach = left_over(*seen.pictures, judged.float()[None], seen.slack), judged.float()[None]

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
        left = left_over(source, corrected, aligned, reach[:, rows, columns], seen.slack)
        return fine_ratio(source, left, reach[:, rows, columns])

    inner = _at(shrunk(first.mask, _INNER), height, width)[0] > 0.5
    around = (_at(grown(first.likely, _CLOSE), height, width)[0] > 0) & ~inner
    ratio = in_blocks(fine, FINE_REACH, height, width, around)[0].masked_fill_(inner, _OBVIOUS)
    beyond = halved(reach)
    change = find_change(ratio, small.source, left_over(*seen.pictures, beyond, seen.slack), judged, around)
    return _told(seen, judged, change, allowed)


@dataclass(frozen=True, eq=False)
class _Seen:
    """The pictures at half the bench's size, as they lie, and the drift between them."""

    pictures: tuple[Tensor, Tensor, Tensor]  # the source, the edit corrected, the edit
    covered: Tensor
    drift: Drift | None

    @property
    def slack(self) -> float:
        return _SLACK if self.drift is None else max(_SLACK, self.drift.limit)

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
    judged = mapping.covered(u, v, _BORDER * math.sqrt(math.prod(bench.edit) / u.numel()))
    judged[:_BORDER] = judged[-_BORDER:] = judged[:, :_BORDER] = judged[:, -_BORDER:] = False
    return judged


def _told(seen: _Seen, judged: Tensor, change: EditedPixels, allowed: Tensor | None) -> Look:
    source, corrected, aligned = seen.pictures
    mask = change.mask
    if allowed is not None:
        mask &= _at(allowed, *mask.shape)[0] > 0.5
    return Look(source, aligned, corrected, seen.covered, judged, mask, change.likely, seen.drift, change.noise)


def carried(seen: Look, mapping: Mapping) -> Tensor:
    """The mask [h,w] gone on from where the edit can be judged to the source's border, if that is near.

    Each pixel beyond takes the nearest judged one's, if the change is still seen at the edit's very border: a thing
    that ends there ends. Its edges go on as they ran, so that what narrows towards the border comes to its end. Where
    the edit shows much less than the source, a change ends with the edit, unless it so closes soon.
    """
    mask = seen.mask.clone()
    height, width = mask.shape
    if not (mask & grown(~seen.judged, _BORDER)).any():
        return mask
    most = max(2 * _BORDER, round(_CARRIED * max(height, width)))
    down, across = (~seen.judged).nonzero(as_tuple=True)
    affine = mapping.affine()
    u, v = mapping.on(height, width)
    columns, far_across = _nearest(u, down, across, mapping.edit[1], float(affine[0, 0]) / width, most)
    rows, far_down = _nearest(v.T, across, down, mapping.edit[0], float(affine[1, 1]) / height, most)
    near = (rows >= 0) & (columns >= 0)
    down, across, rows, columns, far_down, far_across = (
        one[near] for one in (down, across, rows, columns, far_down, far_across)
    )
    # Two textures are alike here and there by chance: so short a gap is none.
    solid = shrunk(grown(mask, _GAP), _GAP)
    goes_on = solid[rows, columns] & _reaches(seen, down, across, rows, columns)
    if goes_on.any():
        goes_on &= _still_wide(solid, seen.judged, down, rows, columns, far_down, most)
        goes_on &= _still_wide(solid.T, seen.judged.T, across, columns, rows, far_across, most)
        mask[down, across] |= goes_on
        mask[down, across] |= shrunk(grown(mask, _GAP), _GAP)[down, across]
        # A mask runs over its change. Within the edit that shows nothing; beyond it, it would.
        mask[down, across] &= ~grown(~mask, _OVER)[down, across]
    # Its ends were drawn row by row: made even.
    mask[down, across] &= blur(mask.float()[None], 2.0)[0][down, across] > 0.5
    return mask


def _reaches(seen: Look, down: Tensor, across: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[N]: whether what differs at the last pixels that can be judged (rows, columns) still does at the very border of
    the edit, towards the pixels beyond (down, across): a mask reaches further than its change."""
    far = (seen.source - seen.corrected).square_().sum(0).sqrt_()

    def at(some: Tensor, other: Tensor) -> Tensor:
        return far[(some // 2).clamp(max=far.shape[0] - 1), (other // 2).clamp(max=far.shape[1] - 1)]

    last = [near + (there - near).clamp(1 - _BORDER, _BORDER - 1) for near, there in ((rows, down), (columns, across))]
    ends = at(last[0], last[1])
    return (ends > _SEEN) & (ends > 0.3 * at(rows, columns))


def _still_wide(
    mask: Tensor, judged: Tensor, there: Tensor, near: Tensor, along: Tensor, far: Tensor, most: int
) -> Tensor:
    """[N]: whether a change has not closed yet, in the rows `there` beyond the last that can be judged, `near`.

    What narrows goes on to narrow: its middle moves evenly, and the square of its width shrinks evenly. That is exact
    for a round end and, as far as it matters, for straight edges. along: the pixels' columns; far: where it must have
    closed within `most` rows.
    """
    left, right = _edges(mask, judged)
    end = mask.shape[1]

    def beyond(way: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The middle and the square of half the width so far beyond; whether it is known how that changes."""
        before = (near - way).clamp(0, len(mask) - 1)
        middle, half, old_middle, old_half = (
            (right[at, along] + sign * left[at, along]) / 2 for at in (near, before) for sign in (1, -1)
        )
        # An edge that is seen in one of them alone is not the same one: a gap began there.
        same = (left[near, along] < 0) == (left[before, along] < 0)
        same &= (right[near, along] > end) == (right[before, along] > end)
        return 2 * middle - old_middle, 2 * half.square() - old_half.square(), mask[before, along] & same

    way = there - near
    middle, square, known = beyond(way)
    _, last, sure = beyond(way.sign() * most)
    closes = sure & (last <= 0)
    return (way == 0) | ((~known | ((along - middle).square() < square)) & (~far | closes))


def _edges(mask: Tensor, judged: Tensor) -> tuple[Tensor, Tensor]:
    """[h,w] twice: where along the row the mask ends before and after a pixel of it; far out where that is not seen."""
    width = mask.shape[1]
    places = torch.arange(width, dtype=torch.int32).expand_as(mask)
    before = torch.where(judged & ~mask, places, -width).cummax(1).values
    after = torch.where(judged & ~mask, places, 2 * width).flip(1).cummin(1).values.flip(1)
    return before, after


def _nearest(
    points: Tensor, rows: Tensor, columns: Tensor, length: int, scale: float, most: int
) -> tuple[Tensor, Tensor]:
    """[N] twice: for each pixel (rows, columns) the nearest column that can be judged; and whether it lies beyond a
    side of the edit that is further than `most` from the source's: there only so many have one, and others -1.

    points [h,w]: u of every pixel of the source; scale: edit pixels in one of them.
    """
    width = points.shape[1]

    def beyond(some: Tensor) -> Tensor:
        return (some - some.clamp(_BORDER + 1, max(_BORDER + 1, length - _BORDER - 1))) / scale

    near = (columns - beyond(points[rows, columns])).round()
    near = near.clamp(min(_BORDER, width // 2), max(width - 1 - _BORDER, width // 2)).long()
    far = torch.zeros_like(near, dtype=torch.bool)
    if float(-beyond(points[:, 0]).min()) > most:
        far |= near > columns
    if float(beyond(points[:, -1]).max()) > most:
        far |= near < columns
    return torch.where(far & ((near - columns).abs() > most), -1, near), far


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
    planes = pooled(torch.cat([source * weight, aligned * weight, weight]), *small)
    share, planes = planes[6:], planes[:6] / planes[6:].clamp(min=1e-3)
    if not known:
        # Flat places look unlike for no reason; the fit leaves out what does not follow.
        share = share * ((enlarged(likeness, *small) - 0.3) / 0.4).clamp(0.3, 1)
    return fit_drift(planes[:3], planes[3:], share, known, first)
