"""Finds where the edit lies: the likeliest first guess, refined."""

from __future__ import annotations

from torch import Tensor

from .bench import Bench
from .refine import COARSE, FINE, MIDDLE, Aligner, Refined
from .search import LONG, first_guesses

_ALIKE = 0.8  # a guess that makes the pictures this alike need not be compared with others


class Alignment:
    """Where the edit lies, as far as is known; `again` finds it better once it is known what was edited."""

    def __init__(self, bench: Bench) -> None:
        self._aligner = Aligner(*bench.luminance, bench.edit)
        best: Refined | None = None
        for guess in first_guesses(*self._aligner.smaller(LONG), bench):
            found = self._aligner.refine(guess.mapping, COARSE)
            if best is None or found.likeness.mean() > best.likeness.mean():
                best = found
            if float(found.likeness.mean()) > _ALIKE:
                break
        assert best is not None
        self.found = self._aligner.refine(best.mapping, MIDDLE)

    def again(self, free: Tensor | None) -> Refined:
        """free [1,h,w] on the bench's source: 1 where nothing was edited; None: nothing is known."""
        self.found = self._aligner.refine(self.found.mapping, FINE, free)
        return self.found
