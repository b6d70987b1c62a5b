"""Every row looked at before anything is sent: collisions named, what is done found, what is left counted.

The source is read once; the plan lies on the disk.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from .asking import AskedRow, Asking, asked_row, with_other_seed
from .collisions import TOLD, refuse_clashes, refuse_sources, refuse_strangers
from .former_runs import FormerRuns
from .made import DONE, FAILED, PlannedRow
from .naming import key_of
from .plan_tables import OWN, STANDING, STATE, opened_tables, written
from .source_rows import SourceRow

_PAGE = 128


@dataclass(frozen=True)
class Counts:
    """Rows of this shard, and of them: done before, over (failed before, and not tried by itself again), left to do,
    and of these the ones whose result was made before and is gone from its place, and those known to be wrong; of the
    done ones those that something marks, those that are to be made again with other seeds, and how often at most."""

    all: int
    mine: int
    done: int
    over: int
    left: int
    gone: int
    wrong: int
    flagged: int = 0
    marked: int = 0
    tries: int = 0


@dataclass(frozen=True)
class _Stands:
    """What the report says of a row."""

    state: str | None
    over: int | None
    marked: int | None
    other: int | None
    seed: str | None


class RowPlan:
    """The rows of one batch, and how they stand. Safe to use from several threads. A context manager is not needed:
    what SQLite wrote is gone with the process, however it ends."""

    def __init__(self, asking: Asking, marks: Callable[[Mapping[str, Any]], bool] = lambda entry: False) -> None:
        """marks: as in `FormerRuns`."""
        self._asking = asking
        self._guard = threading.Lock()
        self._database = opened_tables()
        self._former = FormerRuns(self._database, self._key, marks)

    def close(self) -> None:
        self._database.close()

    def read(self, rows: Iterable[SourceRow]) -> None:
        """Take in all rows. Raises SourceError, and names the first of those whose results would be one file."""
        self._database.execute("BEGIN")
        for row in rows:
            self._insert(asked_row(row, self._asking))
        self._database.execute("COMMIT")
        refuse_clashes(self._database)

    def read_report(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Take in what a former run of the same batch reported, oldest first."""
        self._former.read(entries)

    @property
    def spent(self) -> Decimal:
        """US dollars that the batch paid, by its report."""
        return self._former.spent

    @property
    def perhaps(self) -> Decimal:
        """What it paid besides if the service bills what fails there, which it does not say."""
        return self._former.perhaps

    @property
    def spent_in_words(self) -> str:
        """Such as "$0.16 paid, and perhaps $0.04 for what failed"; empty where nothing was."""
        parts = [f"${self.spent:.2f} paid"] if self.spent else []
        parts += [f"perhaps ${self.perhaps:.2f} for what failed"] if self.perhaps else []
        return ", and ".join(parts)

    def refuse_overwriting(self, results: Path, *, replaces: bool) -> None:
        """Raise SourceError where a result's place is taken by a picture of the source; or, unless `replaces`, by
        anything else that is not this row's result."""
        self._note_sources(results)
        refuse_sources(self._database, results)
        if not replaces:
            refuse_strangers(self._database, results)

    def _note_sources(self, results: Path) -> None:
        """Which of the pictures lie among the results, by the keys that results have there."""
        folder = self._key(f"{_real(results)}/")
        root = _real(self._asking.root)
        for number, image in self._database.execute("SELECT number, image FROM rows"):
            key = self._key(f"{root}/{image}")
            if key.startswith(folder):
                self._database.execute("INSERT OR IGNORE INTO sources VALUES (?, ?)", (key[len(folder) :], number))

    def counts(self, results: Path, *, again: bool, tries: int = 0) -> Counts:
        """How the rows stand. again: rows that are over are left to do, too. tries: how many other seeds a row gets."""
        done = over = left = gone = wrong = flagged = marked = to_try = 0
        for output, problem, state, was_over, has_flags, is_marked, other in self._database.execute(
            f"SELECT output, problem, {STATE}, over, flagged, marked, other FROM {STANDING} WHERE mine"
        ):
            if state == DONE and (results / output).is_file():
                done += 1
                flagged += has_flags
                if is_marked and other < tries:
                    marked += 1
                    to_try += tries - other
            elif state == FAILED and was_over and not again:
                over += 1
            else:
                left += 1
                gone += state == DONE
                wrong += problem is not None
        ((total, mine),) = self._database.execute("SELECT COUNT(*), COALESCE(SUM(mine), 0) FROM rows").fetchall()
        return Counts(total, mine, done, over, left, gone, wrong, flagged, marked, to_try)

    def first_problems(self) -> list[str]:
        """Some of the rows that are known to be wrong, a line each."""
        found = self._database.execute(
            "SELECT spot, problem FROM rows WHERE mine AND problem IS NOT NULL ORDER BY number LIMIT ?", (TOLD,)
        )
        return [f"{where}: {problem}" for where, problem in found]

    def to_do(self, results: Path, *, again: bool) -> Iterator[PlannedRow]:
        """The rows that are left, in the source's order; a page at a time, so that others may write meanwhile.

        First those that were made before and are gone from their place: they cost nothing, so that a limit which the
        others meet does not keep them away.
        """
        for row, stands in self._pages():
            if stands.state == DONE and not (results / row.output).is_file():
                yield with_other_seed(row, stands.other) if stands.other else row
        for row, stands in self._pages():
            if stands.state != DONE and (again or not (stands.state == FAILED and stands.over)):
                yield row

    def to_try(self, results: Path, tries: int) -> Iterator[PlannedRow]:
        """The rows whose result is marked, each with another seed than all before, as long as there were fewer than
        `tries`."""
        for row, stands in self._pages():
            other = stands.other or 0
            if stands.state == DONE and stands.marked and other < tries and (results / row.output).is_file():
                yield replace(with_other_seed(row, other + 1), former=int(stands.seed or 0))

    def lines(self) -> Iterator[int]:
        """The last line of every row in the report, as `read_report` counted them, in order. What it tells of other
        requests, or of rows that are no more, is none."""
        query = f"SELECT line FROM {STANDING} WHERE mine AND {STATE} IS NOT NULL ORDER BY line"
        yield from (line for (line,) in self._database.execute(query))

    def is_taken(self, name: str, results: Path | None = None) -> bool:
        """Whether some row's result or picture is called so; or a file in the folder `results` that is none of this
        batch's further pictures."""
        with self._guard:
            for others in ("rows", "sources"):
                if self._database.execute(f"SELECT 1 FROM {others} WHERE key = ?", (self._key(name),)).fetchall():
                    return True
            if results is None or not os.path.lexists(results / name):
                return False
            own = self._database.execute("SELECT 1 FROM further WHERE key = ?", (self._key(ascii(name)),)).fetchall()
            return not own

    def tells_of(self, generation_id: str) -> bool:
        """Whether the report tells of a generation as of one that a result was made of."""
        with self._guard:
            query = "SELECT 1 FROM told WHERE id = ?"
            return bool(self._database.execute(query, (written(generation_id),)).fetchall())

    def has_placed(self, generation_id: str, results: Path) -> bool:
        """Whether that result is in its row's place, too."""
        with self._guard:
            found = self._database.execute(
                f"SELECT output FROM told JOIN rows USING (key) JOIN placed USING (key) WHERE id = ? AND {OWN}",
                (written(generation_id),),
            ).fetchall()
        return any((results / output).is_file() for (output,) in found)

    def _key(self, output: str) -> str:
        return key_of(output, folds=self._asking.folds)

    def _pages(self) -> Iterator[tuple[PlannedRow, _Stands]]:
        last = -1
        while page := self._page(last):
            for number, spot, image, path, output, asked, made_with, given, size, problem, *stands in page:
                last = number
                file, values = Path(os.fsdecode(path)), json.loads(given)
                yield (
                    PlannedRow(number, spot, image, file, output, asked, values, problem, made_with, size),
                    _Stands(*stands),
                )

    def _page(self, last: int) -> list[tuple[Any, ...]]:
        with self._guard:
            return self._database.execute(
                "SELECT number, spot, image, path, output, rows.asked, rows.made_with, given, size, problem,"
                f" {STATE}, over, marked, other, seed FROM {STANDING} WHERE mine AND number > ? ORDER BY number"
                " LIMIT ?",
                (last, _PAGE),
            ).fetchall()

    def _insert(self, asked: AskedRow) -> None:
        row, output, key = asked.row, asked.output, self._key(asked.output)
        taken = self._database.execute(
            "INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.number,
                row.where,
                row.image,
                os.fsencode(asked.path),
                output,
                key,
                asked.digest,
                asked.made_with,
                asked.given,
                asked.size,
                asked.problem,
                asked.mine,
            ),
        ).rowcount
        if not taken:
            self._database.execute("INSERT INTO clashes SELECT ?, number FROM rows WHERE key = ?", (row.number, key))
            self._database.execute(
                "INSERT INTO rows VALUES (?, ?, ?, '', ?, ?, '', '', '{}', -1, NULL, 0)",
                (row.number, row.where, row.image, output, f"{key}\n{row.number}"),
            )
            return
        folder = key.rpartition("/")[0]
        while folder:
            self._database.execute("INSERT OR IGNORE INTO folders VALUES (?, ?)", (folder, row.number))
            folder = folder.rpartition("/")[0]


def _real(folder: Path) -> str:
    return written(os.path.realpath(folder)).replace(os.sep, "/").rstrip("/")
