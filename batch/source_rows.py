"""A row of the source, and what is wrong with a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class SourceError(Exception):
    """The source as a whole cannot be used; the text says why and what to do. Nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message} Nothing was sent.")


class Advised(SourceError):
    """What each way to run a batch names by other words. what: what is wrong; advice: the command's options."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what} {advice}")
        self.what = what


class Clashing(Advised):
    """Results would be written over what is in their place, or over one another."""


class Taken(Clashing):
    """Results of other requests, or files of unknown origin, are where results would be."""


class Unwritable(Advised):
    """Results cannot be written where they are to be."""


class RowError(Exception):
    """One row cannot be used; the others can."""


@dataclass(frozen=True)
class SourceRow:
    """One edit as the source asks for it.

    number: counted from 1 over the whole source. where: for people, such as "line 7". image: a path from the source's
    folder, with slashes. output: the result's name as asked for, None where it follows from the image's. given: the
    other columns' values. problem: what is wrong with this row alone.
    """

    number: int
    where: str
    image: str
    output: str | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
