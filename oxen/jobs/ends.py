"""What became of the edits of a run, as the one line of text that stands on a node when the run is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

from ...editing.short import in_short
from ..errors import OxenError, TimedOut
from .order import How

_CENTS = Decimal("0.01")


class Fate(Enum):
    """What became of one edit. Of one of several edits it is told by `word`, of the only one by `alone`."""

    NEW = ("new", "done")
    FOUND = ("found again, not paid twice", "found again, not paid twice")
    BROUGHT_BACK = ("brought back", "brought back, not paid again")
    COLLECTED = ("collected", "collected")
    SUBMITTED = ("submitted", "submitted")
    SUBMITTED_BEFORE = ("submitted before", "submitted before, not paid again")
    FAILED = ("failed", "failed")
    RUNS_ON = (
        "still running there; run again to go on waiting",
        "still running there; run again to go on waiting",
    )
    # of a run that was stopped
    CANCELLED = ("at Oxen.ai too", "at Oxen.ai too")
    CANCELLING = ("being cancelled at Oxen.ai", "being cancelled at Oxen.ai")
    FINISHED_BEFORE = (
        "finished before and kept: run again to have it",
        "finished before and kept: run again to have it",
    )
    NOT_SENT = ("not sent", "before it was sent")
    UNKNOWN = ("not known to have stopped at Oxen.ai", "not known to have stopped at Oxen.ai")

    def __init__(self, word: str, alone: str) -> None:
        self.word = word
        self.alone = alone


_PAID_NOW = (Fate.NEW, Fate.FOUND)
_TIMED = (Fate.NEW, Fate.FOUND, Fate.COLLECTED, Fate.SUBMITTED)
_CAME = (Fate.NEW, Fate.FOUND, Fate.COLLECTED, Fate.BROUGHT_BACK)
_OF_HOW = {
    How.NEW: Fate.NEW,
    How.FOUND: Fate.FOUND,
    How.RESUMED: Fate.BROUGHT_BACK,
    How.REUSED: Fate.BROUGHT_BACK,
}


@dataclass(frozen=True)
class End:
    """What became of one edit. cost: US dollars, where the service told them. why: of what failed, in a few words."""

    fate: Fate
    cost: Decimal | None = None
    why: str = ""

    @classmethod
    def of_picture(cls, how: How, cost: Decimal | None, *, collects: bool = False) -> End:
        """A picture came. collects: of a job that was submitted before its run."""
        fate = Fate.COLLECTED if collects and how is not How.REUSED else _OF_HOW[how]
        return cls(fate, cost)

    @classmethod
    def of_submission(cls, how: How) -> End:
        return cls(Fate.SUBMITTED_BEFORE if how in (How.REUSED, How.RESUMED) else Fate.SUBMITTED)

    @classmethod
    def of_error(cls, error: Exception) -> End:
        if isinstance(error, TimedOut) and error.alive:
            return cls(Fate.RUNS_ON)
        return cls(Fate.FAILED, why=error.line if isinstance(error, OxenError) else in_short(str(error)))


def line(ends: Sequence[End], seconds: float) -> str:
    """How a run ended by itself: "done · 9 s · $0.04", "3 new, 1 brought back", "1 of 4 failed: ..."."""
    counts = Counter(end.fate for end in ends)
    parts = [_failed(ends)] if counts[Fate.FAILED] else []
    parts += [_others(counts, len(ends))] if counts.total() > counts[Fate.FAILED] else []
    if any(counts[fate] for fate in _TIMED):
        parts.append(f"{seconds:.0f} s")
    costs = [end.cost for end in ends if end.fate in _PAID_NOW]
    known = [cost for cost in costs if cost is not None]
    if known and len(known) == len(costs):
        parts.append(dollars(sum(known, Decimal(0))))
    return " · ".join(parts)


def stopped_line(ends: Sequence[End], *, cancelled: bool) -> str:
    """How a run ended that was stopped: "cancelled, all 4 at Oxen.ai too".

    cancelled: by the artist; otherwise what was sent goes on there.
    """
    how = "cancelled" if cancelled else "stopped"
    counts = Counter(Fate.FINISHED_BEFORE if end.fate in _CAME else end.fate for end in ends)
    total = counts.total()
    if counts[Fate.NOT_SENT] == total:
        return f"{how}, nothing was sent"
    if counts[Fate.CANCELLING] == total:
        return f"{how} here, Oxen.ai is being told"
    if counts[Fate.CANCELLED] == total:
        return f"{how}, {_all(total)}at Oxen.ai too"
    told = [f"{_number(count, total)}{fate.word}" for fate, count in _in_order(counts)]
    return " · ".join([f"{how}, {told[0]}", *told[1:]])


def dollars(amount: Decimal) -> str:
    """For example "$0.04", and "$0.0025" where cents do not hold it."""
    exact = amount.normalize()
    exponent = exact.as_tuple().exponent
    fine = isinstance(exponent, int) and exponent < -2
    return f"${exact:f}" if fine else f"${amount.quantize(_CENTS):f}"


def _others(counts: Counter[Fate], total: int) -> str:
    """What became of those that did not fail."""
    (first, count), *more = [(fate, count) for fate, count in _in_order(counts) if fate is not Fate.FAILED]
    if total == 1:
        return first.alone
    if count == total:
        return f"{total} of {total} done" if first is Fate.NEW else f"{_all(total)}{first.alone}"
    return ", ".join(f"{count} {fate.word}" for fate, count in [(first, count), *more])


def _failed(ends: Sequence[End]) -> str:
    """How many failed, and why: of each reason once."""
    reasons = Counter(end.why for end in ends if end.fate is Fate.FAILED)
    count = reasons.total()
    if len(ends) == 1:
        return next(iter(reasons))
    whole = f"all {count} failed" if count == len(ends) else f"{count} of {len(ends)} failed"
    more = f" (and {len(reasons) - 1} more reasons)" if len(reasons) > 1 else ""
    return f"{whole}: {reasons.most_common(1)[0][0]}{more}"


def _in_order(counts: Counter[Fate]) -> list[tuple[Fate, int]]:
    return [(fate, counts[fate]) for fate in Fate if counts[fate]]


def _number(count: int, total: int) -> str:
    return "" if total == 1 else f"{count} "


def _all(total: int) -> str:
    return {1: "", 2: "both "}.get(total, f"all {total} ")
