"""An instruction as the numbers of its words, for the demo's text encoder.

Articles and marks are left out, so that few places hold nearly all sentences taught. A word that is not in the list is
one and the same unknown word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

PAD, UNKNOWN = 0, 1
_ARTICLES = {"the", "a", "an"}


@dataclass(frozen=True)
class Vocabulary:
    """words: a word's number is its place in them; the first two are PAD and UNKNOWN. places: words of a sentence."""

    words: tuple[str, ...]
    places: int

    def numbers(self, sentence: str) -> list[int]:
        """A sentence as `places` word numbers; what is longer is cut."""
        words = [word for word in re.findall(r"[a-z]+", sentence.lower()) if word not in _ARTICLES]
        found = [self._numbers.get(word, UNKNOWN) for word in words[: self.places]]
        return found + [PAD] * (self.places - len(found))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}
