"""A change gone on from where the edit can be judged to the source's border, if that is near.

On each side its outline goes on as it ran, line by line, and what the edit shows is carried on with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .components import Mask
from .filters import blur, enlarged, grown, shrunk
from .look import BORDER, Look
from .mapping import Mapping
from .outline import Ends, Numbers

_SEEN = 0.02  # a difference that is one at a border
_GAP = 8  # pixels: two textures are alike here and there by chance, so short a gap is none
_OVER = 2  # pixels that a mask reaches beyond its change
_CARRIED = 0.03  # of the long side: how far beyond the edit's border a change goes on
_FURTHER = 2  # times as far as it was seen, and no further, a change goes on
_LINES = 40  # along which its outline is followed


@dataclass(frozen=True, eq=False)
class Carried:
    """mask [h,w] bool over the source; shift [2,h,w] fp32, None where there is none: from how far along the border, in
    the edit's pixels, a pixel beyond the border takes what mirrors it."""

    mask: Tensor
    shift: Tensor | None


@dataclass(frozen=True, eq=False)
class _Side:
    """The picture turned so that one of its sides is the top, all views [h,w].

    solid, known: the change, and where that is known; both are added to. far: how much the pictures differ; inside: by
    how many rows a pixel lies within the edit; shift: along the side, in the edit's pixels, of which `scale` are one
    here.
    """

    solid: Mask
    known: Mask
    far: Numbers
    inside: Numbers
    shift: Numbers
    scale: float


def carried(seen: Look, mapping: Mapping) -> Carried:
    """The mask gone on to the source's border, if the change is still seen at the edit's very border: a thing that ends
    there ends. Where the edit shows much less than the source, a change ends with the edit, unless it so closes soon.
    """
    mask, beyond = seen.mask.clone(), ~seen.judged
    if not (mask & grown(beyond, BORDER)).any():
        return Carried(mask, None)
    solid = shrunk(grown(mask, _GAP), _GAP)
    # A mask runs over its change. Within the edit that shows nothing; beyond it, it would.
    solid &= ~grown(~solid & seen.judged, _OVER)
    shift = torch.zeros(2, *mask.shape)
    most = max(2 * BORDER, round(_CARRIED * max(mask.shape)))
    for side in _sides(seen, mapping, solid, shift):
        _carry(side, most)
    mask |= solid & beyond
    mask |= shrunk(grown(mask, _GAP), _GAP) & beyond
    # Its ends were drawn row by row: made even.
    mask &= seen.judged | (blur(mask.float()[None], 2.0)[0] > 0.5)
    return Carried(mask, shift if shift.any() else None)


def _sides(seen: Look, mapping: Mapping, solid: Tensor, shift: Tensor) -> list[_Side]:
    height, width = solid.shape
    far = enlarged((seen.source - seen.corrected).square_().sum(0, keepdim=True).sqrt_(), height, width)[0]
    u, v = mapping.on(height, width)
    affine = mapping.affine()
    across, down = float(affine[0, 0]) / width, float(affine[1, 1]) / height
    known = seen.judged.clone()

    def turned(inside: Tensor, along: Tensor, scale: float, columns: bool, end: bool) -> _Side:
        def view(plane: Tensor) -> NDArray[Any]:
            rows = plane.numpy().T if columns else plane.numpy()
            return rows[::-1] if end else rows

        return _Side(view(solid), view(known), view(far), view(inside), view(along), scale)

    return [
        turned(u / across, shift[1], down, True, False),
        turned((mapping.edit[1] - u) / across, shift[1], down, True, True),
        turned(v / down, shift[0], across, False, False),
        turned((mapping.edit[0] - v) / down, shift[0], across, False, True),
    ]


def _carry(side: _Side, most: int) -> None:
    """What lies above what is known is found, but for more than `most` rows."""
    first = side.known.argmax(0)
    columns = np.arange(len(first))
    # Where the edit lies a little turned, a line near another side meets it only further in.
    starts = side.known[first, columns] & ((side.inside[first, columns] < BORDER + 3) | (first <= BORDER))
    columns = np.flatnonzero(starts)
    if not len(columns):
        return
    first = first[columns]
    depth = int(first.max())
    strip = side.solid[np.minimum(first + _OVER + np.arange(_LINES)[:, None], len(side.solid) - 1), columns]
    ends = Ends.of(strip, most + _OVER if depth > most else None)
    last, near = side.far[np.maximum(first - BORDER + 1, 0), columns], side.far[first, columns]
    reaches = (last > _SEEN) & (last > 0.3 * near)
    seen_for = _depths(strip)
    border = float(np.median(side.inside[first, columns]))
    places = np.arange(len(columns)) + 0.5
    for row in range(1, min(depth, most) + 1):
        line = float(-row - _OVER)
        origin = np.clip(ends.moved(line, 0, places), 0, len(columns) - 1).astype(int)
        goes_on = ends.at(line, places) & reaches[origin] & (row <= _FURTHER * seen_for[origin])
        here = first >= row
        at = first[here] - row, columns[here]
        side.solid[at], side.known[at] = goes_on[here], True
        if row > border:
            mirrored = ends.moved(line, row - _OVER - 2 * border, places)
            side.shift[at] = ((mirrored - places) * side.scale)[here]


def _depths(strip: Mask) -> NDArray[np.int64]:
    """[w]: for how many lines of strip [lines,w] what is in the first goes on, at the place where that is longest."""
    depth = np.where(strip.all(0), len(strip), strip.argmin(0))
    part = np.cumsum(np.diff(strip[0].astype(np.int8), prepend=0) != 0)
    longest = np.zeros(int(part[-1]) + 1, np.int64)
    np.maximum.at(longest, part, depth)
    deepest: NDArray[np.int64] = longest[part]
    return deepest
