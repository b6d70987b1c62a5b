"""Connected parts of a mask [H,W] bool, from the runs of its rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
_Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Parts:
    """A mask's runs, where each starts and ends in the rows laid end to end (one empty pixel between), and its part."""

    shape: tuple[int, int]
    starts: _Numbers
    ends: _Numbers
    part: _Numbers
    count: int

    def counts(self, marked: Mask) -> _Numbers:
        """[count]: how many pixels of each part are marked [H,W]."""
        places = np.flatnonzero(_apart(marked))
        return self._gathered(np.searchsorted(places, self.ends) - np.searchsorted(places, self.starts))

    def areas(self) -> _Numbers:
        """[count]: pixels of each part."""
        return self._gathered(self.ends - self.starts)

    def painted(self, chosen: Mask) -> Mask:
        """[H,W]: the parts chosen [count]."""
        height, width = self.shape
        runs = chosen[self.part]
        steps = np.zeros(height * (width + 1) + 1, np.int8)
        steps[self.starts[runs]] += 1
        steps[self.ends[runs]] -= 1
        filled: Mask = np.cumsum(steps, dtype=np.int8)[:-1].reshape(height, width + 1)[:, :width] > 0
        return filled

    def _gathered(self, each: _Numbers) -> _Numbers:
        return np.bincount(self.part, each, self.count).astype(np.int64)


def parts_of(mask: Mask, corners: bool = True) -> Parts:
    """The mask's connected parts; corners: pixels that touch at a corner belong together."""
    height, width = mask.shape
    flat = _apart(mask)
    steps = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    # Every row ends with an empty pixel, so runs start and end in turns.
    starts, ends = (steps if not flat[0] else np.concatenate([[0], steps])).reshape(-1, 2).T
    # The run below touches where it ends after this one's start and starts before this one's end.
    reach = int(corners)
    first = np.searchsorted(ends, starts + width + 1 - reach, "right")
    last = np.searchsorted(starts, ends + width + 1 + reach, "left")
    touching = np.maximum(last - first, 0)
    above = np.repeat(np.arange(len(starts)), touching)
    below = np.arange(len(above)) - np.repeat(np.cumsum(touching) - touching, touching) + np.repeat(first, touching)
    roots, part = np.unique(_joined(len(starts), above, below), return_inverse=True)
    return Parts((height, width), starts, ends, part.reshape(-1), len(roots))


def with_filled_holes(mask: Mask, most: int) -> Mask:
    """Holes of fewer pixels than that filled."""
    holes = parts_of(~mask, corners=False)
    return mask | holes.painted(holes.areas() < most)


def _apart(mask: Mask) -> Mask:
    """The rows laid end to end, an empty pixel after each."""
    apart = np.zeros((mask.shape[0], mask.shape[1] + 1), np.bool_)
    apart[:, :-1] = mask
    return apart.reshape(-1)


def _joined(count: int, one: _Numbers, other: _Numbers) -> _Numbers:
    """[count]: for each the lowest it is connected to, by hooking and pointer jumping."""
    lowest = np.arange(count)
    while True:
        a, b = lowest[one], lowest[other]
        if (a == b).all():
            return lowest
        np.minimum.at(lowest, np.maximum(a, b), np.minimum(a, b))
        while (lowest[lowest] != lowest).any():
            lowest = lowest[lowest]
