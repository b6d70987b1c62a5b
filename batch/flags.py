"""Rows marked by their measures, such as `changed_area>0.6`."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .source_rows import SourceError

# What Keep finds of an edit: the share that changed, the shift in pixels, how far the rest is from the picture.
MEASURES = ("changed_area", "shift", "outside")
_COMPARE = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}
_FORM = re.compile(r"\s*([a-z_]+)\s*(>=|<=|>|<)\s*([0-9.]+)\s*")


@dataclass(frozen=True)
class Flag:
    """One condition; `text` as it was written."""

    text: str
    measure: str
    compare: str
    bound: float

    def holds(self, facts: Mapping[str, Any]) -> bool:
        value = facts.get(self.measure)
        return isinstance(value, int | float) and bool(_COMPARE[self.compare](value, self.bound))


def read_flag(text: str) -> Flag:
    """The condition in a text; raises SourceError."""
    found = _FORM.fullmatch(text)
    try:
        if found is None or found[1] not in MEASURES:
            raise ValueError
        return Flag(text.strip(), found[1], found[2], float(found[3]))
    except ValueError:
        raise SourceError(
            f"--flag {text!r}: write a measure ({', '.join(MEASURES)}), > or <, and a number, as changed_area>0.6."
        ) from None


def marked(flags: Sequence[Flag], facts: Mapping[str, Any]) -> bool:
    """Whether one of the conditions holds."""
    return any(flag.holds(facts) for flag in flags)


def flags_of(flags: Sequence[Flag], facts: Mapping[str, Any]) -> list[str]:
    """What marks a row: the conditions that hold, and what a look at its pixels found wrong."""
    return [*(facts.get("health") or ()), *(flag.text for flag in flags if flag.holds(facts))]
