"""One look at the pictures as they lie: the edit on the source's pixels, its drift taken back, and what was edited."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .bench import Bench
from .change import find_change
from .colour import Drift, fit_drift
from .filters import blur, centres, enlarged, highest, pooled, sampled
from .mapping import Mapping

_POOLED = 12_000  # pixels that the drift is learnt from: enough, and quick
_BORDER = 3  # pixels at a border that cannot be judged: what lies beside them is unknown
_APART = 6  # pixels around a change that may not tell of the drift
_SLACK = 0.08  # a colour cut off at black or white was at least this near, drift or not
_SEEN = 0.02  # a difference that is one at a border
_CARRIED = 0.03  # of the long side: how far beyond the edit's border a change goes on


@dataclass(frozen=True, eq=False)
class Look:
    """aligned, corrected [3,h,w] fp32; covered, judged, mask [h,w] bool: where the edit reaches, where it is far enough
    from any border to be judged, and what was edited; drift: None where too little is left to learn it."""

    aligned: Tensor
    corrected: Tensor
    covered: Tensor
    judged: Tensor
    mask: Tensor
    drift: Drift | None
    noise: float


def look(bench: Bench, mapping: Mapping, likeness: Tensor, edited: Tensor | None, allowed: Tensor | None) -> Look:
    """edited [H,W] bool: what is known to have been edited, or None; allowed [H,W] bool: where alone that may be.

    Both at any size over the source.
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
        weight = weight * (1 - highest(_at(known, height, width), _APART))
    drift = _drift(bench.source, aligned, weight, likeness, known is not None)
    corrected = aligned
    if drift is not None:
        corrected = drift.corrected(aligned, centres(height), centres(width)).clamp_(0, 1)
    change = find_change(
        bench.source, corrected, aligned, judged, _SLACK if drift is None else max(_SLACK, drift.limit)
    )
    mask = torch.from_numpy(change.mask)
    if allowed is not None:
        mask &= _at(allowed, height, width)[0] > 0.5
    return Look(aligned, corrected, covered, judged, mask, drift, change.noise)


def carried(seen: Look, mapping: Mapping, source: Tensor) -> Tensor:
    """The mask [h,w] gone on from where the edit can be judged to the source's border, if that is near.

    Each pixel beyond takes the nearest judged one's, if the change is still seen at the edit's very border: a thing
    that ends there ends. Where the edit shows much less than the source, every change ends with the edit. source
    [3,h,w].
    """
    mask = seen.mask.clone()
    height, width = mask.shape
    most = max(2 * _BORDER, _CARRIED * max(height, width))
    down, across = (~seen.judged).nonzero(as_tuple=True)
    affine = mapping.affine()
    u, v = mapping.on(height, width)
    columns = _nearest(u, mapping.edit[1], float(affine[0, 0]) / width, most)[down, across]
    rows = _nearest(v.T, mapping.edit[0], float(affine[1, 1]) / height, most).T[down, across]
    near = (rows >= 0) & (columns >= 0)
    down, across, rows, columns = (places[near] for places in (down, across, rows, columns))
    goes_on = seen.mask[rows, columns] & _reaches(source - seen.corrected, down, across, rows, columns)
    mask[down, across] |= goes_on
    # Its ends were drawn row by row: made even.
    mask[down, across] &= blur(mask.float()[None], 2.0)[0][down, across] > 0.5
    return mask


def _reaches(difference: Tensor, down: Tensor, across: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[N]: whether what differs at the last pixels that can be judged (rows, columns) still does at the very border of
    the edit, towards the pixels beyond (down, across): a mask reaches further than its change."""
    far = blur(difference.square().sum(0, keepdim=True).sqrt_(), 0.7)[0]
    last = [near + (there - near).clamp(1 - _BORDER, _BORDER - 1) for near, there in ((rows, down), (columns, across))]
    return (far[last[0], last[1]] > _SEEN) & (far[last[0], last[1]] > 0.3 * far[rows, columns])


def _nearest(points: Tensor, length: int, scale: float, most: float) -> Tensor:
    """[h,w]: for each pixel of the source the nearest column that can be judged; -1 beyond a side of the edit that is
    further than `most` from the source's. points [h,w]: u of every pixel; scale: edit pixels in one of them."""
    width = points.shape[1]
    columns = torch.arange(width)
    beyond = (points - points.clamp(_BORDER + 1, max(_BORDER + 1, length - _BORDER - 1))) / scale
    near = (columns - beyond).round().clamp(min(_BORDER, width // 2), max(width - 1 - _BORDER, width // 2)).long()
    if float(-beyond[:, 0].min()) > most:
        near = torch.where(near > columns, -1, near)
    if float(beyond[:, -1].max()) > most:
        near = torch.where((near < columns) & (near >= 0), -1, near)
    return near


def half(bench: Bench) -> Bench:
    """The same at half the size, for a first look."""
    small = [pooled(p, max(8, p.shape[1] // 2), max(8, p.shape[2] // 2)) for p in (bench.source, bench.edited)]
    return Bench(small[0], small[1], bench.size, bench.edit)


def _at(mask: Tensor, height: int, width: int) -> Tensor:
    """[1,height,width] 0..1 of a bool mask: by areas where that is coarser, else linear between."""
    planes = mask.float()[None]
    return pooled(planes, height, width) if mask.shape[0] >= height else enlarged(planes, height, width)


def _drift(source: Tensor, aligned: Tensor, weight: Tensor, likeness: Tensor, known: bool) -> Drift | None:
    height, width = source.shape[1:]
    pool = max(1, round(math.sqrt(height * width / _POOLED)))
    small = max(1, height // pool), max(1, width // pool)
    share = pooled(weight, *small)
    planes = pooled(torch.cat([source, aligned]) * weight, *small) / share.clamp(min=1e-3)
    if not known:
        # Flat places look unlike for no reason; the fit leaves out what does not follow.
        share = share * ((enlarged(likeness, *small) - 0.3) / 0.4).clamp(0.3, 1)
    return fit_drift(planes[:3], planes[3:], share, known)
