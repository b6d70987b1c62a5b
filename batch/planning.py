"""Every row looked at before anything is sent: collisions named, what is done found, what is left counted.

The plan is a table on the disk that SQLite makes and removes by itself, so that 100,000 rows take no more memory than
ten. The source is read once.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..editing.values import Unfit
from ..editing.words import SEED
from ..oxen.api.prices import read_amount
from ..oxen.errors import OxenError
from .collisions import TOLD, refuse_clashes, refuse_sources, refuse_strangers
from .columns import Columns
from .made import PlannedRow
from .naming import format_asked, inside, key_of, result_name
from .source_rows import RowError, SourceRow

DONE, FAILED = "done", "failed"
_FORMAT = "output_format"
# As many as the service tells apart.
_SEEDS = 2**31
_PAGE = 128
# Of other seeds; far more than a command line asks for.
_MOST_OTHERS = 2**31
_SCHEMA = """
CREATE TABLE rows (
    number INTEGER PRIMARY KEY,
    spot TEXT NOT NULL,
    image TEXT NOT NULL,
    path BLOB NOT NULL,
    output TEXT NOT NULL,
    key TEXT NOT NULL,
    asked TEXT NOT NULL,
    given TEXT NOT NULL,
    problem TEXT,
    mine INTEGER NOT NULL
);
CREATE TABLE clashes (number INTEGER, other INTEGER);
CREATE UNIQUE INDEX rows_by_key ON rows (key);
CREATE TABLE folders (key TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID;
CREATE TABLE ended (
    key TEXT,
    asked TEXT,
    state TEXT,
    line INTEGER,
    over INTEGER,
    flagged INTEGER,
    marked INTEGER,
    other INTEGER,
    seed TEXT,
    PRIMARY KEY (key, asked)
) WITHOUT ROWID;
CREATE TABLE placed (key TEXT PRIMARY KEY, asked TEXT) WITHOUT ROWID;
CREATE TABLE sources (key TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID;
CREATE TABLE further (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE paid (key TEXT, id TEXT, cost TEXT, surely INTEGER, PRIMARY KEY (key, id)) WITHOUT ROWID;
"""
# A row with the last line about just what it asks for, and with what lies in its place: a line about something else,
# such as a picture that was missing for a while, changes neither.
_STATE = "CASE WHEN state = 'failed' OR placed.asked = rows.asked THEN state END"
_STANDING = "rows LEFT JOIN ended USING (key, asked) LEFT JOIN placed ON placed.key = rows.key"


@dataclass(frozen=True)
class Asking:
    """What the command line says of every row.

    root: where the images' paths begin. by: who edits, as part of what is asked for: a result of another model is
    another result. whole: as in `result_name`. shard: (this one, of how many), from 1. folds: as in `key_of`.
    """

    root: Path
    by: str
    columns: Columns
    defaults: Mapping[str, Any]
    whole: bool = False
    shard: tuple[int, int] = (1, 1)
    folds: bool = False


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
        """marks: whether a line of the report tells of a result that is to be made again, where that is asked for.

        spent: US dollars that the batch paid, by its report. perhaps: what it paid besides if the service bills what
        fails there, which it does not say.
        """
        self._asking = asking
        self._marks = marks
        self._guard = threading.Lock()
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(_SCHEMA)
        self.spent = self.perhaps = Decimal(0)

    def close(self) -> None:
        self._database.close()

    def read(self, rows: Iterable[SourceRow]) -> None:
        """Take in all rows. Raises SourceError, and names the first of those whose results would be one file."""
        self._database.execute("BEGIN")
        for row in rows:
            self._add(row)
        self._database.execute("COMMIT")
        refuse_clashes(self._database)

    def read_report(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Take in what a former run of the same batch reported, oldest first."""
        self._database.execute("BEGIN")
        for line, entry in enumerate(entries):
            self._add_paid(entry, line)
            self._take_in(line, entry)
        self._database.execute("COMMIT")
        sums = [Decimal(0), Decimal(0)]
        for cost, surely in self._database.execute("SELECT cost, surely FROM paid"):
            sums[surely] += Decimal(cost)
        self.perhaps, self.spent = sums

    @property
    def spent_in_words(self) -> str:
        """Such as "$0.16 paid, and perhaps $0.04 for what failed"; empty where nothing was."""
        parts = [f"${self.spent:.2f} paid"] if self.spent else []
        parts += [f"perhaps ${self.perhaps:.2f} for what failed"] if self.perhaps else []
        return ", and ".join(parts)

    def _take_in(self, line: int, entry: Mapping[str, Any]) -> None:
        key, state, asked = self._key(entry["output"]), str(entry.get("state")), _written(entry.get("asked"))
        other = min(_whole(entry.get("other")), _MOST_OTHERS)
        more = entry.get("more")
        for name in (*(more if isinstance(more, list) else ()), entry.get("aside")):
            if name is not None:
                self._database.execute("INSERT OR IGNORE INTO further VALUES (?)", (self._key(ascii(name)),))
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
            self._database.execute("INSERT OR REPLACE INTO placed VALUES (?, ?)", (key, asked))

    def _add_paid(self, entry: Mapping[str, Any], line: int) -> None:
        """What was paid stays paid, also where a later line says that the same result was brought back for nothing."""
        surely = entry.get("paid") is True
        cost = read_amount(entry.get("cost_usd")) if surely or entry.get("over") else None
        if cost is not None:
            id = _written(entry.get("generation_id") or f"line {line}")
            self._database.execute(
                f"INSERT OR {'REPLACE' if surely else 'IGNORE'} INTO paid VALUES (?, ?, ?, ?)",
                (self._key(entry["output"]), id, str(cost), surely),
            )

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
            f"SELECT output, problem, {_STATE}, over, flagged, marked, other FROM {_STANDING} WHERE mine"
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
                yield _with_other_seed(row, stands.other) if stands.other else row
        for row, stands in self._pages():
            if stands.state != DONE and (again or not (stands.state == FAILED and stands.over)):
                yield row

    def to_try(self, results: Path, tries: int) -> Iterator[PlannedRow]:
        """The rows whose result is marked, each with another seed than all before, as long as there were fewer than
        `tries`."""
        for row, stands in self._pages():
            other = stands.other or 0
            if stands.state == DONE and stands.marked and other < tries and (results / row.output).is_file():
                yield replace(_with_other_seed(row, other + 1), former=int(stands.seed or 0))

    def lines(self) -> Iterator[int]:
        """The last line of every row in the report, as `read_report` counted them, in order. What it tells of other
        requests, or of rows that are no more, is none."""
        query = f"SELECT line FROM {_STANDING} WHERE mine AND {_STATE} IS NOT NULL ORDER BY line"
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

    def _key(self, output: str) -> str:
        return key_of(output, folds=self._asking.folds)

    def _pages(self) -> Iterator[tuple[PlannedRow, _Stands]]:
        last = -1
        while page := self._page(last):
            for number, spot, image, path, output, asked, given, problem, *stands in page:
                last = number
                yield (
                    PlannedRow(number, spot, image, Path(os.fsdecode(path)), output, asked, json.loads(given), problem),
                    _Stands(*stands),
                )

    def _page(self, last: int) -> list[tuple[Any, ...]]:
        with self._guard:
            return self._database.execute(
                f"SELECT number, spot, image, path, output, rows.asked, given, problem, {_STATE}, over, marked, other,"
                f" seed FROM {_STANDING} WHERE mine AND number > ? ORDER BY number LIMIT ?",
                (last, _PAGE),
            ).fetchall()

    def _add(self, row: SourceRow) -> None:
        values = {**self._asking.defaults, **row.given}
        problem, path = row.problem, Path()
        by_name = format_asked(row)
        if by_name is not None and _FORMAT not in row.given:
            values[_FORMAT] = by_name
        size = -1
        try:
            path = inside(self._asking.root, row.image)
            row = replace(row, image=os.path.relpath(path, self._asking.root).replace(os.sep, "/"))
            size = _size(path)
            if problem is None:
                self._asking.columns.check(values)
        except (RowError, Unfit, OxenError) as error:
            problem = problem or _written(error)
        try:
            output = result_name(row, _format_of(values), whole=self._asking.whole)
        except RowError as error:
            # what no result is called, so that none of the others meets it
            problem, output = str(error), f"./row-{row.number}"
        self._insert(row, path, output, size, values, problem)

    def _insert(
        self, row: SourceRow, path: Path, output: str, size: int, values: Mapping[str, Any], problem: str | None
    ) -> None:
        key = self._key(output)
        this, of = self._asking.shard
        # by the name itself: whether a disk tells upper case from lower is no part of it, and differs between machines
        mine = _number_of(output) % of == this - 1
        given = json.dumps(values)
        asked = _digest(self._asking.by, row.image, size, given)
        taken = self._database.execute(
            "INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (row.number, row.where, row.image, os.fsencode(path), output, key, asked, given, problem, mine),
        ).rowcount
        if not taken:
            self._database.execute("INSERT INTO clashes SELECT ?, number FROM rows WHERE key = ?", (row.number, key))
            self._database.execute(
                "INSERT INTO rows VALUES (?, ?, ?, '', ?, ?, '', '{}', NULL, 0)",
                (row.number, row.where, row.image, output, f"{key}\n{row.number}"),
            )
            return
        folder = key.rpartition("/")[0]
        while folder:
            self._database.execute("INSERT OR IGNORE INTO folders VALUES (?, ?)", (folder, row.number))
            folder = folder.rpartition("/")[0]


def _format_of(values: Mapping[str, Any]) -> str:
    found = values.get(_FORMAT)
    return found if found in ("png", "webp", "jpg") else "png"


def _number_of(name: str) -> int:
    """A number that spreads names evenly over parts, however alike they are; on every machine the same."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _size(path: Path) -> int:
    try:
        about = path.stat()
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise RowError(f"There is no picture {path}: {said}.") from None
    if not stat.S_ISREG(about.st_mode):
        raise RowError(f"There is no picture {path}: it is {'a folder' if stat.S_ISDIR(about.st_mode) else 'no file'}.")
    return about.st_size


def _digest(by: str, image: str, size: int, given: str) -> str:
    """A picture that was exchanged is told by its size: times differ from copy to copy."""
    return hashlib.sha256("\n".join((by, image, str(size), given)).encode("utf-8", "backslashreplace")).hexdigest()[:24]


def _with_other_seed(row: PlannedRow, other: int) -> PlannedRow:
    """The row with its how-many-eth other seed: the same in every run, and no neighbour of another row's."""
    number = hashlib.sha256(f"{row.asked} {other}".encode()).digest()
    seed = int.from_bytes(number[:8], "big") % _SEEDS
    return replace(row, values={**row.values, SEED.name: seed}, other=other)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _real(folder: Path) -> str:
    return _written(os.path.realpath(folder)).replace(os.sep, "/").rstrip("/")


def _written(value: object) -> str:
    """A text as SQLite takes it: what is half of a character stands as an escape."""
    return str(value).encode("utf-8", "backslashreplace").decode()
