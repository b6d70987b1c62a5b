"""What former runs of a batch reported, taken into its plan: how each row ended, what lies where, what was paid."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from ..oxen.api.prices import read_amount
from .made import DONE, FAILED
from .plan_tables import written

# Of other seeds; far more than a command line asks for.
_MOST_OTHERS = 2**31


class FormerRuns:
    """Takes the lines of a report into the tables of a plan.

    key_of: by what two names are the same file. marks: whether a line tells of a result that is to be made again, where
    that is asked for. spent: US dollars that the batch paid. perhaps: what it paid besides if the service bills what
    fails there, which it does not say.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        key_of: Callable[[str], str],
        marks: Callable[[Mapping[str, Any]], bool],
    ) -> None:
        self._database = database
        self._key_of = key_of
        self._marks = marks
        self.spent = self.perhaps = Decimal(0)

    def read(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Take in all lines, oldest first; those that were taken in before change nothing."""
        self._database.execute("BEGIN")
        for line, entry in enumerate(entries):
            self._add_paid(entry, line)
            self._take_in(line, entry)
        self._database.execute("COMMIT")
        sums = [Decimal(0), Decimal(0)]
        for cost, surely in self._database.execute("SELECT cost, surely FROM paid"):
            sums[surely] += Decimal(cost)
        self.perhaps, self.spent = sums

    def _take_in(self, line: int, entry: Mapping[str, Any]) -> None:
        key, state, asked = self._key_of(entry["output"]), str(entry.get("state")), written(entry.get("asked"))
        other = min(_whole(entry.get("other")), _MOST_OTHERS)
        more = entry.get("more")
        for name in (*(more if isinstance(more, list) else ()), entry.get("aside")):
            if name is not None:
                self._database.execute("INSERT OR IGNORE INTO further VALUES (?)", (self._key_of(ascii(name)),))
        if state == FAILED and other:
            # the result that another seed was to replace is still there; one that may have been billed was a try
            if entry.get("over"):
                self._database.execute("UPDATE ended SET other = ? WHERE key = ? AND asked = ?", (other, key, asked))
            return
        self._database.execute(
            "INSERT OR REPLACE INTO ended VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                asked,
                state,
                line,
                bool(entry.get("over")),
                bool(entry.get("flags")),
                self._marks(entry),
                other,
                # as a text: a seed may have more bits than a number of SQLite's
                str(_whole(entry.get("seed"))),
            ),
        )
        if state == DONE:
            made_with = entry.get("made_with")
            self._database.execute(
                "INSERT OR REPLACE INTO placed VALUES (?, ?, ?)",
                (key, asked, None if made_with is None else written(made_with)),
            )
            several = entry.get("generation_ids")
            for id in (entry.get("generation_id"), *(several if isinstance(several, list) else ())):
                if isinstance(id, str):
                    self._database.execute("INSERT OR REPLACE INTO told VALUES (?, ?)", (written(id), key))

    def _add_paid(self, entry: Mapping[str, Any], line: int) -> None:
        """What was paid stays paid, also where a later line says that the same result was brought back for nothing."""
        surely = entry.get("paid") is True
        cost = read_amount(entry.get("cost_usd")) if surely or entry.get("over") else None
        if cost is not None:
            id = written(entry.get("generation_id") or f"line {line}")
            self._database.execute(
                f"INSERT OR {'REPLACE' if surely else 'IGNORE'} INTO paid VALUES (?, ?, ?, ?)",
                (self._key_of(entry["output"]), id, str(cost), surely),
            )


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
