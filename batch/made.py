"""What became of a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

DONE, FAILED = "done", "failed"
_LEFT = "Nothing was sent for the rows that are left: the same command with a higher --usd goes on with them."


@dataclass(frozen=True)
class PlannedRow:
    """A row that has passed the plan: its picture's file, its result's name, and all values that it is edited with.

    asked: a digest of what is asked for, by which a result is known to be this row's. problem: what is known to be
    wrong with it. made_with: what tells the files of its model, and of its further pictures, from others under the same
    names. size: of its picture's file, in bytes. other: the how-many-eth other seed this is, 0 for its own. former: the
    seed of the result that is in the place now, and is laid aside for this one.
    """

    number: int
    where: str
    image: str
    path: Path
    output: str
    asked: str
    values: Mapping[str, Any]
    problem: str | None = None
    made_with: str = ""
    size: int | None = None
    other: int = 0
    former: int | None = None


@dataclass(frozen=True)
class RowResult:
    """A row's result. data: the file's bytes. more: further pictures of the same row, each with its file's ending.

    facts: for the report. cost: US dollars, of which `is_paid` says whether this batch paid them. delivered: is called
    once the result is in its place.
    """

    data: bytes = field(repr=False)
    facts: Mapping[str, Any]
    cost: Decimal | None = None
    is_paid: bool = False
    delivered: Callable[[], None] = lambda: None
    more: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)


class RowFailed(Exception):
    """A row has no result. is_over: the service made something of it that may have been billed, so that trying again is
    for the artist to ask for; otherwise the next run tries again, and pays for nothing twice. price: US dollars that it
    came to, if it was."""

    def __init__(
        self,
        message: str,
        *,
        is_over: bool = False,
        facts: Mapping[str, Any] | None = None,
        price: Decimal | None = None,
    ) -> None:
        super().__init__(message)
        self.is_over = is_over
        self.facts = dict(facts or {})
        if is_over and price is not None:
            self.facts["cost_usd"] = float(price)


class RunStopped(Exception):
    """No further row can succeed; the text says why. What has been made is kept."""


class LimitReached(RunStopped):
    """The batch's own limit in dollars would be passed."""

    def __init__(self, message: str = f"Stopped before passing --usd. {_LEFT}") -> None:
        super().__init__(message)
