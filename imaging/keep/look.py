"""One look at the pictures as they lie: the edit on the source's pixels, its drift taken back, and what was edited."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .bench import Bench
from .change import find_change
from .colour import Drift, fit_drift
from .filters import blur, centres, enlarged, grown, halved, pooled, sampled, shrunk
from .mapping import Mapping

_POOLED = 6_000, 12_000  # pixels that the drift is learnt from, at first and then: enough, and quick
_BORDER = 3  # pixels at a border that cannot be judged: what lies beside them is unknown
_APART = 6  # pixels around a change that may not tell of the drift
_CLOSE = 16  # pixels around a likely change that are looked at closely, too
_SLACK = 0.08  # a colour cut off at black or white was at least this near, drift or not
_SEEN = 0.02  # a difference that is one at a border
_GAP = 8  # pixels
_OVER = 5  # pixels that a mask reaches beyond its change
_CARRIED = 0.03  # of the long side: how far beyond the edit's border a change goes on


@dataclass(frozen=True, eq=False)
class Look:
    """What is seen of one pair.

    aligned, corrected [3,h,w] fp32; covered, judged [h,w] bool: where the edit reaches, and where it is far enough from
    any border to be judged; mask, likely [h,w] bool: what was edited, and what may have been; drift: None where too
    little is left to learn it.
    """

    aligned: Tensor
    corrected: Tensor
    covered: Tensor
    judged: Tensor
    mask: Tensor
    likely: Tensor
    drift: Drift | None
    noise: float


def look(
    bench: Bench,
    mapping: Mapping,
    likeness: Tensor,
    edited: Tensor | None,
    allowed: Tensor | None,
    likely: Tensor | None = None,
) -> Look:
    """edited [H,W] bool: what is known to have been edited, or None; allowed [H,W] bool: where alone that may be;
    likely [H,W] bool: where alone to look closely.

    All at any size over the source.
    """
    height, width = bench.source.shape[1:]
    u, v = mapping.on(height, width)
    aligned = sampled(bench.edited, *bench.on_edit(u, v), "bicubic" if edited is not None else "bilinear").clamp_(0, 1)
    covered = mapping.covered(u, v)
    # In the edit's pixels, which at half the size are half as wide.
    judged = mapping.covered(u, v, _BORDER * math.sqrt(math.prod(bench.edit) / (height * width)))
    judged[:_BORDER] = judged[-_BORDER:] = judged[:, :_BORDER] = judged[:, -_BORDER:] = False
    weight = covered.float()[None]
    known = edited if edited is not None else allowed
    if known is not None:
        weight *= ~grown(_at(known, height, width)[0] > 0, _APART)
    drift = _drift(bench.source, aligned, weight, likeness, known is not None)
    corrected = aligned
    if drift is not None:
        corrected = drift.corrected(aligned, centres(height), centres(width)).clamp_(0, 1)
    slack = _SLACK if drift is None else max(_SLACK, drift.limit)
    around = None if likely is None else _at(grown(likely, _CLOSE), height, width)[0] > 0
    change = find_change(bench.source, corrected, aligned, judged, slack, around)
    mask = change.mask
    if allowed is not None:
        mask &= _at(allowed, height, width)[0] > 0.5
    return Look(aligned, corrected, covered, judged, mask, change.likely, drift, change.noise)


def carried(seen: Look, mapping: Mapping, source: Tensor) -> Tensor:
    """The mask [h,w] gone on from where the edit can be judged to the source's border, if that is near.

    Each pixel beyond takes the nearest judged one's, if the change is still seen at the edit's very border: a thing
    that ends there ends. Its edges go on as they ran, so that what narrows towards the border comes to its end. Where
    the edit shows much less than the source, a change ends with the edit, unless it so closes soon. source [3,h,w].
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
    goes_on = seen.mask[rows, columns] & _reaches(source - seen.corrected, down, across, rows, columns)
    if goes_on.any():
        goes_on &= _still_wide(seen.mask, seen.judged, down, rows, columns, far_down, most)
        goes_on &= _still_wide(seen.mask.T, seen.judged.T, across, columns, rows, far_across, most)
        mask[down, across] |= goes_on
        # Two textures are alike here and there by chance: so short a gap is none.
        mask[down, across] |= shrunk(grown(mask, _GAP), _GAP)[down, across]
        # A mask runs over its change. Within the edit that shows nothing; beyond it, it would.
        mask[down, across] &= ~grown(~mask, _OVER)[down, across]
    # Its ends were drawn row by row: made even.
    mask[down, across] &= blur(mask.float()[None], 2.0)[0][down, across] > 0.5
    return mask


def _reaches(difference: Tensor, down: Tensor, across: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[N]: whether what differs at the last pixels that can be judged (rows, columns) still does at the very border of
    the edit, towards the pixels beyond (down, across): a mask reaches further than its change."""
    far = blur(difference.square().sum(0, keepdim=True).sqrt_(), 0.7)[0]
    last = [near + (there - near).clamp(1 - _BORDER, _BORDER - 1) for near, there in ((rows, down), (columns, across))]
    return (far[last[0], last[1]] > _SEEN) & (far[last[0], last[1]] > 0.3 * far[rows, columns])


def _still_wide(
    mask: Tensor, judged: Tensor, there: Tensor, near: Tensor, along: Tensor, far: Tensor, most: int
) -> Tensor:
    """[N]: whether a change has not closed yet, in the rows `there` beyond the last that can be judged, `near`.

    What narrows goes on to narrow: its middle moves evenly, and the square of its width shrinks evenly. That is exact
    for a round end and, as far as it matters, for straight edges. along: the pixels' columns; far: where it must have
    closed within `most` rows.
    """
    left, right = _edges(mask, judged)

    def beyond(way: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The middle and the square of half the width so far beyond; whether it is known how that changes."""
        before = (near - way).clamp(0, len(mask) - 1)
        middle, half, old_middle, old_half = (
            (right[at, along] + sign * left[at, along]) / 2 for at in (near, before) for sign in (1, -1)
        )
        return 2 * middle - old_middle, 2 * half.square() - old_half.square(), mask[before, along]

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


def _drift(source: Tensor, aligned: Tensor, weight: Tensor, likeness: Tensor, known: bool) -> Drift | None:
    height, width = source.shape[1:]
    pool = max(1, round(math.sqrt(height * width / _POOLED[known])))
    small = max(1, height // pool), max(1, width // pool)
    share = pooled(weight, *small)
    planes = torch.cat([pooled(picture * weight, *small) for picture in (source, aligned)]) / share.clamp(min=1e-3)
    if not known:
        # Flat places look unlike for no reason; the fit leaves out what does not follow.
        share = share * ((enlarged(likeness, *small) - 0.3) / 0.4).clamp(0.3, 1)
    return fit_drift(planes[:3], planes[3:], share, known)
