"""How a shape goes on beyond the last line in which it is seen: by the ends of its runs, followed from line to line.

Two ends that belong together go on by their middle and the square of half their distance: exact for straight edges and
for round things that close. One alone goes on by its slope and bend. What is further off tells less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .components import Mask

Numbers = NDArray[np.floating]

_NEXT, _FIRST = 5, 10  # pixels within which an end lies in the next line, and while its way is not known
_BACK = 4  # lines that tell an end's way
_NEAR = 9  # lines: what is further off tells less
_UNSURE = 1.7  # pixels: the deviation of an end, as its neighbours err alike
_EVEN = 1.4  # a mean of two ends errs so much less
_SLOPE, _BEND = 1.5, 0.02  # pixels a line, and that a line, before anything is seen
_CALM = 2.0, 4  # so many times as far from an end as it moves, and pixels, nothing moves with it


@dataclass(frozen=True, eq=False)
class _Fit:
    """The ends with these numbers: middle and square [3] say value, slope and bend at line 0 of where they are and, for
    two, of the square of half their distance."""

    ends: tuple[int, ...]
    middle: Numbers
    square: Numbers

    def at(self, line: float) -> list[float]:
        middle = _value(self.middle, line)
        if len(self.ends) == 1:
            return [middle]
        half = max(0.0, _value(self.square, line)) ** 0.5
        return [middle - half, middle + half]


@dataclass(frozen=True, eq=False)
class Ends:
    """Of the runs of a shape in line 0; further lines count towards where it is seen, and negative ones beyond.

    inside: whether the line begins within a run; begins [n] bool: whether a run begins at an end or stops.
    """

    inside: bool
    begins: Mask
    fits: tuple[_Fit, ...]

    @classmethod
    def of(cls, strip: Mask, closing: int | None = None) -> Ends:
        """strip [lines,w] bool: where the shape is, line 0 first. closing: only runs that close so far beyond count."""
        places, begins = _followed(strip)
        if closing is None:
            return cls(bool(strip[0, 0]), begins, tuple(_fits(places, range(len(begins) - 1))))
        pairs = [n for n in range(len(begins) - 1) if begins[n]]
        fits = [fit for fit in _fits(places, pairs) if len(fit.ends) == 2 and _value(fit.square, -closing) <= 0]
        kept = sorted(end for fit in fits for end in fit.ends)
        fits = [_Fit(tuple(kept.index(end) for end in fit.ends), fit.middle, fit.square) for fit in fits]
        return cls(False, begins[kept], tuple(fits))

    def at(self, line: float, places: Numbers) -> Mask:
        """Whether the shape is at these places [w] of that line."""
        ends = self._places(line)
        order = np.argsort(ends, kind="stable")
        depth = np.concatenate([[0], np.cumsum(np.where(self.begins, 1, -1)[order])]) + int(self.inside)
        found: Mask = depth[np.searchsorted(ends[order], places)] > 0
        return found

    def moved(self, line: float, to: float, places: Numbers) -> Numbers:
        """Where what lies at these places [w] of one line lies in another: with the ends, the less the further off."""
        ends = self._places(line)
        if not len(ends):
            return places
        order = np.argsort(ends, kind="stable")
        knots, moves = _calmed(ends[order], (self._places(to) - ends)[order])
        return places + np.interp(places, knots, moves)

    def _places(self, line: float) -> Numbers:
        """[n]: where the ends are."""
        found = np.empty(len(self.begins))
        for fit in self.fits:
            found[list(fit.ends)] = fit.at(line)
        return found


def _fits(places: Numbers, pairs: range | list[int]) -> list[_Fit]:
    """How each end of places [n,lines] goes on; pairs: ends that may belong together with the next, the nearest do."""
    fits, free = [], set(range(len(places)))
    for one in sorted(pairs, key=lambda n: float(places[n + 1, 0] - places[n, 0])):
        if {one, one + 1} <= free:
            free -= {one, one + 1}
            first, second = _seen(places[one : one + 2])
            half = np.maximum((second - first) / 2, 0.5)
            wide = float(half[0])
            middle = _fitted((first + second) / 2, _UNSURE / _EVEN, _SLOPE, _BEND)
            unsure = (2 * wide + 1) * _UNSURE / _EVEN
            fits.append(
                _Fit((one, one + 1), middle, _fitted(half**2, unsure, 2 * wide * _SLOPE + 2, 2 * wide * _BEND + 2))
            )
    alone = [_Fit((one,), _fitted(_seen(places[[one]])[0], _UNSURE, _SLOPE, _BEND), np.zeros(3)) for one in free]
    return fits + alone


def _seen(places: Numbers) -> Numbers:
    """Of ends [n,lines] what lies before any of them is lost."""
    lost = np.isnan(places).any(0)
    return places[:, : int(lost.argmax())] if lost.any() else places


def _fitted(values: Numbers, unsure: float, slope: float, bend: float) -> Numbers:
    """[3]: the value, slope and bend at line 0 of one value a line, as likely as these deviations make them."""
    line = np.arange(len(values))
    terms = np.stack([np.ones(len(values)), line, line * line / 2])
    weighed = terms / (unsure**2 * (1 + (line / _NEAR) ** 4))
    found: Numbers = np.linalg.solve(weighed @ terms.T + np.diag([0, slope**-2, bend**-2]), weighed @ values)
    return found


def _value(fit: Numbers, line: float) -> float:
    return float(fit[0] + fit[1] * line + fit[2] * line * line / 2)


def _calmed(ends: Numbers, moves: Numbers) -> tuple[list[float], list[float]]:
    """The ends and how they move, and between them, where there is room, places that do not."""
    calm = _CALM[0] * np.abs(moves) + _CALM[1]
    knots, values = [], []
    for n, (end, move) in enumerate(zip(ends, moves, strict=True)):
        if n == 0 or end - calm[n] > ends[n - 1] + calm[n - 1]:
            knots.append(float(end - calm[n]))
            values.append(0.0)
        knots.append(float(end))
        values.append(float(move))
        if n + 1 == len(ends) or end + calm[n] < ends[n + 1] - calm[n + 1]:
            knots.append(float(end + calm[n]))
            values.append(0.0)
    return knots, values


def _followed(strip: Mask) -> tuple[Numbers, Mask]:
    """[n,lines]: where the ends of line 0 lie in each line of strip [lines,w], NaN from where they are lost; [n]:
    whether a run begins there."""
    lines, columns = np.nonzero(strip[:, 1:] != strip[:, :-1])
    begins = strip[lines, columns + 1]
    first = lines == 0
    kind: Mask = begins[first]
    places = np.full((len(kind), len(strip)), np.nan)
    places[:, 0] = columns[first] + 1
    way, reach = np.zeros(len(kind)), _FIRST
    for line in range(1, len(strip)):
        for one in (True, False):
            ends = columns[(lines == line) & (begins == one)] + 1.0
            mine = (kind == one) & ~np.isnan(places[:, line - 1])
            if len(ends) and mine.any():
                guess = places[mine, line - 1] + way[mine]
                nearest = ends[np.abs(ends[:, None] - guess).argmin(0)]
                places[mine, line] = np.where(np.abs(nearest - guess) <= reach, nearest, np.nan)
        back = min(line, _BACK)
        way, reach = np.nan_to_num((places[:, line] - places[:, line - back]) / back), _NEXT
    return places, kind
