"""A look at the ledger that changes nothing in it, for whoever only shows what is there."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..errors import LocalTrouble, Misconfigured
from .ledger import FILE_NAME, Ledger, lock_of, pattern_of
from .locks import is_held
from .record import COLUMNS, Record, read_record
from .tables import SPENT, is_up_to_date, sum_of
from .trouble import of_the_ledger

_BUSY_SECONDS = 5.0
_SELECT = ", ".join(COLUMNS)
_LISTED = "key != ''"
# Not one whose request never left this machine: nothing will come of it.
_OPEN = (
    f"{_LISTED} AND ((state = 'sending' AND departed) OR state = 'sent' OR (state = 'done' AND collected_at IS NULL))"
)


@dataclass(frozen=True)
class FinishedEdit:
    """One finished edit in a list: its number, its request key, and when it was asked for in unix seconds."""

    id: int
    key: str
    created_at: float


class Glance:
    """What a ledger holds; for one thread, and as long as its with block lasts."""

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        self._folder = folder
        self._database = database

    def finished(self, contains: str, most: int) -> list[FinishedEdit]:
        """The newest edits that came, newest first; `contains` looks in the prompt and the generation id."""
        pattern = pattern_of(contains)
        rows = self._select(
            f"SELECT id, key, created_at FROM jobs WHERE {_LISTED} AND state = 'done'"
            " AND (prompt LIKE ? ESCAPE '\\' OR IFNULL(generation_id, '') LIKE ? ESCAPE '\\')"
            " ORDER BY id DESC LIMIT ?",
            pattern,
            pattern,
            most,
        )
        return [FinishedEdit(*row) for row in rows]

    def unfinished(self, most: int) -> list[Record]:
        """The newest that were sent and have not come, or came and were handed to nobody; newest first."""
        return self._records(f"{_OPEN} ORDER BY id DESC LIMIT ?", most)

    def by_id(self, number: int) -> Record | None:
        found = self._records(f"id = ? AND {_LISTED}", number)
        return found[0] if found else None

    def spent_since(self, when: float) -> Decimal:
        """As the ledger's own `spent_since`."""
        return sum_of(self._select(SPENT, when))

    def stamp(self) -> str:
        """Another text whenever `finished` gives something else."""
        ((count, newest),) = self._select("SELECT COUNT(*), MAX(finished_at) FROM jobs WHERE state = 'done'")
        return f"{count}-{newest or 0}"

    def is_held(self, record: Record) -> bool:
        """Whether some run, of whatever process, is working on this edit."""
        return is_held(self._folder / "locks", lock_of(record.key))

    def _records(self, where: str, *values: Any) -> list[Record]:
        return [read_record(row) for row in self._select(f"SELECT {_SELECT} FROM jobs WHERE {where}", *values)]

    def _select(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._database.execute(query, values).fetchall()


@contextlib.contextmanager
def glance(folder: Path) -> Iterator[Glance | None]:
    """A look at the ledger of a folder; None where there is none yet, and none is made.

    Raises Misconfigured where it cannot be read, and LocalTrouble; also for what goes wrong in the with block.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        yield None
        return
    try:
        with contextlib.closing(_connect(path)) as database:
            if not is_up_to_date(database):
                # an earlier version's: to open it as a run does brings it up to date
                Ledger(folder).close()
            yield Glance(folder, database)
    except sqlite3.Error as error:
        raise Misconfigured(f"The ledger {path} cannot be read: {of_the_ledger(error)}") from error
    except OSError as error:
        raise LocalTrouble(
            f"The ledger {path} cannot be read: {error}. Nothing was changed. Check that its disk is there."
        ) from error


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=_BUSY_SECONDS, isolation_level=None, uri=True)
