"""The record of everything that was paid for: what was asked, which job it became, where its picture is.

SQLite in write-ahead mode with full synchronisation, shared by threads and by ComfyUI processes. A record is
written before its request, gets the generation id the moment it is known, and its picture at the end. Pictures
are files beside the database; pruning removes files, never records, and never a picture not yet collected.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .control import Control, Deadline
from .locks import hold
from .request import EditParameters, OutputFormat

_BUSY_SECONDS = 30.0
# No file takes this long to write, so that an older one has lost its writer.
_TORN_SECONDS = 3600.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    state TEXT NOT NULL,
    generation_id TEXT UNIQUE,
    result_url TEXT,
    prompt TEXT NOT NULL,
    seed INTEGER NOT NULL,
    parameters TEXT NOT NULL,
    input_digest TEXT NOT NULL,
    blocking INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    finished_at REAL,
    collected_at REAL,
    price TEXT,
    cost TEXT,
    error TEXT,
    file TEXT,
    bytes INTEGER
);
CREATE INDEX IF NOT EXISTS jobs_by_key ON jobs (key, id);
CREATE INDEX IF NOT EXISTS jobs_by_time ON jobs (created_at);
"""


class State(str, Enum):
    """How far a request came.

    SENDING is written before the request: without a live holder of the key's lock its outcome is unknown.
    REFUSED means that the service did not take it, so that nothing was billed; GONE that neither this machine nor
    the service has its picture any more.
    """

    SENDING = "sending"
    SENT = "sent"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    GONE = "gone"


@dataclass(frozen=True)
class Record:
    """One request. Times are unix seconds, `price` (published, at the time) and `cost` (told afterwards) US dollars.

    input_digest: SHA-256 of the `input_image` text as sent, by which a lost job is recognised.
    blocking: sent as one blocking request, which the service may not list, so that not listed does not mean not billed.
    collected_at: when its picture was handed to a graph; None while it is still owed.
    """

    id: int
    key: str
    state: State
    generation_id: str | None
    result_url: str | None
    prompt: str
    seed: int
    parameters: dict[str, Any]
    input_digest: str
    blocking: bool
    created_at: float
    finished_at: float | None
    collected_at: float | None
    price: Decimal | None
    cost: Decimal | None
    error: str | None
    file: str | None
    bytes: int | None

    @property
    def is_lost(self) -> bool:
        """Whether a run was cut off from this blocking request, so that no list need tell what became of it."""
        return self.blocking and self.state is State.SENDING


_COLUMNS = ", ".join(field.name for field in fields(Record))


def request_key(base_url: str, parameters: EditParameters, pixels: str) -> str:
    """SHA-256 over provider, model, canonical parameters and decoded pixels: equal for what must not be paid twice.

    pixels: a digest of the picture's decoded pixels, so that another file format of the same picture is the same.
    """
    body = parameters.body()
    if parameters.output_format is OutputFormat.PNG:
        del body["output_quality"]  # the service ignores it for png
    whole = {"provider": urlsplit(base_url).netloc, "pixels": pixels, **body}
    return hashlib.sha256(json.dumps(whole, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Ledger:
    """The ledger in one folder. Safe to use from many threads and from several processes at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._results = folder / "results"
        self._results.mkdir(parents=True, exist_ok=True)
        self._guard = threading.RLock()
        self._database = sqlite3.connect(
            folder / "ledger.sqlite3", timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._set_up(folder)
        except sqlite3.Error:
            self._database.close()
            raise

    def _set_up(self, folder: Path) -> None:
        # SQLite waits for no other connection while it changes the journal's mode: one at a time.
        with hold(folder / "locks", "open", Control()):
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
            if "blocking" not in {row[1] for row in self._select("PRAGMA table_info(jobs)", ())}:
                # a ledger of an earlier version
                self._database.execute("ALTER TABLE jobs ADD COLUMN blocking INTEGER NOT NULL DEFAULT 0")

    def close(self) -> None:
        with self._guard:
            self._database.close()

    @contextlib.contextmanager
    def hold(self, key: str, control: Control, deadline: Deadline | None = None) -> Iterator[None]:
        """Be alone with a key, across threads and processes; raises Interrupted or TimedOut while waiting for it."""
        with hold(self._folder / "locks", key[:32], control, deadline):
            yield

    def open(
        self,
        key: str,
        parameters: EditParameters,
        input_image: str,
        price: Decimal | None,
        limit: Decimal | None = None,
        *,
        blocking: bool = False,
    ) -> Record | None:
        """Write the record of a request about to be sent.

        limit: US dollars that all requests of the last 24 hours may come to, this one included; None where that
        would pass it, in which case nothing was written. Checked and written in one transaction, so that several
        processes together keep to it.
        """
        with self._transaction() as database:
            if limit is not None and self.spent_since(time.time() - 86400) + (price or 0) > limit:
                return None
            cursor = database.execute(
                "INSERT INTO jobs (key, state, prompt, seed, parameters, input_digest, blocking, created_at, price)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key,
                    State.SENDING,
                    parameters.prompt,
                    parameters.seed_sent,
                    json.dumps(parameters.body()),
                    text_digest(input_image),
                    blocking,
                    time.time(),
                    None if price is None else str(price),
                ),
            )
            return self._one("id = ?", cursor.lastrowid)

    def adopt(self, generation_id: str) -> Record:
        """The record of a generation that may have been submitted elsewhere, written if it is not there yet."""
        with self._transaction() as database:
            database.execute(
                "INSERT OR IGNORE INTO jobs (key, state, generation_id, prompt, seed, parameters, input_digest,"
                " created_at) VALUES (?, ?, ?, '', 0, '{}', '', ?)",
                (text_digest(generation_id), State.SENT, generation_id, time.time()),
            )
            record = self._one("generation_id = ?", generation_id)
            assert record is not None
            return record

    def forget(self, record: Record) -> None:
        """Remove a record that `adopt` made for an id which turned out to be nobody's; no other is removed."""
        with self._transaction() as database:
            database.execute("DELETE FROM jobs WHERE id = ? AND input_digest = ''", (record.id,))

    def sent(self, record: Record, *, generation_id: str | None = None, result_url: str | None = None) -> Record:
        """Note what the service made of the request: its generation id, or the address of its picture.

        What `adopt` noted of the same generation meanwhile goes into this record.
        """
        values: dict[str, Any] = {"state": State.SENT, "generation_id": generation_id, "result_url": result_url}
        with self._transaction() as database:
            adopted = self._one("generation_id = ? AND id != ? AND input_digest = ''", generation_id, record.id)
            if adopted is not None:
                database.execute("DELETE FROM jobs WHERE id = ?", (adopted.id,))
                cost = None if adopted.cost is None else str(adopted.cost)
                values.update(state=adopted.state, file=adopted.file, bytes=adopted.bytes, cost=cost)
                values.update(finished_at=adopted.finished_at, collected_at=adopted.collected_at)
            return self._set(database, record, values)

    def done(self, record: Record, data: bytes, suffix: str) -> Record:
        """Keep the picture's file bytes; on disk before the record says so. suffix: for example "png"."""
        name = f"{record.id}.{suffix}"
        _write_durably(self._results / name, data)
        return self._update(record, state=State.DONE, finished_at=time.time(), file=name, bytes=len(data))

    def ended(self, record: Record, state: State, error: str) -> Record:
        """Close a record that gets no picture (any more): FAILED, CANCELLED, REFUSED or GONE."""
        return self._update(record, state=state, finished_at=time.time(), error=error)

    def note_cost(self, record: Record, cost: Decimal) -> Record:
        return self._update(record, cost=str(cost))

    def collected(self, record: Record) -> Record:
        """Note that the picture was handed over; from now on its file may be pruned."""
        return record if record.collected_at else self._update(record, collected_at=time.time())

    def picture(self, record: Record) -> bytes | None:
        """The file bytes of a finished record, None where they were pruned."""
        if record.file is None:
            return None
        try:
            return (self._results / record.file).read_bytes()
        except FileNotFoundError:
            return None

    def usable(self, key: str) -> Record | None:
        """The newest record of a key that has a picture, or may still get one; last of all a lost blocking request."""
        usable = "key = ? AND state IN ('done', 'sent', 'sending')"
        return self._one(
            f"{usable} AND NOT (blocking AND state = 'sending') ORDER BY id DESC LIMIT 1", key
        ) or self._one(f"{usable} ORDER BY id DESC LIMIT 1", key)

    def owed(self, key: str) -> Record | None:
        """The oldest record of a key whose picture is under way or was never collected."""
        return self._one(
            "key = ? AND (state IN ('sending', 'sent') OR (state = 'done' AND collected_at IS NULL))"
            " ORDER BY id LIMIT 1",
            key,
        )

    def by_generation(self, generation_id: str) -> Record | None:
        return self._one("generation_id = ?", generation_id)

    def by_id(self, record_id: int) -> Record | None:
        return self._one("id = ?", record_id)

    def recent(self, count: int, *, contains: str = "") -> tuple[Record, ...]:
        """The newest records, newest first; `contains` looks in the prompt and the generation id."""
        pattern = "%" + contains.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        return self._many(
            "(prompt LIKE ? ESCAPE '\\' OR IFNULL(generation_id, '') LIKE ? ESCAPE '\\') ORDER BY id DESC LIMIT ?",
            pattern,
            pattern,
            count,
        )

    def known_generations(self, ids: Sequence[str]) -> frozenset[str]:
        """Which of these generation ids belong to a request of this machine already."""
        return frozenset(i for i in ids if self._one("generation_id = ? AND input_digest != ''", i) is not None)

    def spent_since(self, when: float) -> Decimal:
        """US dollars of all requests since `when` (unix seconds): the cost told, else the price published.

        A request whose outcome is unknown counts; one that the service refused does not.
        """
        rows = self._select("SELECT cost, price FROM jobs WHERE created_at >= ? AND state != ?", (when, State.REFUSED))
        return sum((Decimal(cost or price or "0") for cost, price in rows), Decimal(0))

    def totals(self) -> tuple[int, Decimal]:
        """How many requests were taken by the service, and what they came to in US dollars."""
        rows = self._select("SELECT COUNT(*) FROM jobs WHERE state != ?", (State.REFUSED,))
        return int(rows[0][0]), self.spent_since(0.0)

    def prune(self, *, max_bytes: int, keep_seconds: float) -> int:
        """Remove the files of collected pictures, oldest first, that are too old or over the size; how many."""
        self._remove_torn()
        rows = self._select(
            "SELECT id, file, bytes, collected_at FROM jobs WHERE file IS NOT NULL ORDER BY finished_at DESC", ()
        )
        kept, removed, now = 0, 0, time.time()
        for record_id, name, size, collected_at in rows:
            kept += size
            if collected_at is None or (kept <= max_bytes and now - collected_at <= keep_seconds):
                continue
            with self._transaction() as database:
                database.execute("UPDATE jobs SET file = NULL WHERE id = ?", (record_id,))
            (self._results / name).unlink(missing_ok=True)
            kept -= size
            removed += 1
        return removed

    def _remove_torn(self) -> None:
        """Remove what runs that were killed while writing a file left behind."""
        for path in self._results.glob("*.part"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _TORN_SECONDS:
                    path.unlink()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guard:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _update(self, record: Record, **values: Any) -> Record:
        with self._transaction() as database:
            return self._set(database, record, values)

    def _set(self, database: sqlite3.Connection, record: Record, values: dict[str, Any]) -> Record:
        values = {name: value for name, value in values.items() if value is not None}
        assignments = ", ".join(f"{name} = ?" for name in values)
        database.execute(f"UPDATE jobs SET {assignments} WHERE id = ?", (*values.values(), record.id))
        updated = self._one("id = ?", record.id)
        assert updated is not None
        return updated

    def _one(self, where: str, *values: Any) -> Record | None:
        found = self._many(where, *values)
        return found[0] if found else None

    def _many(self, where: str, *values: Any) -> tuple[Record, ...]:
        return tuple(_record(row) for row in self._select(f"SELECT {_COLUMNS} FROM jobs WHERE {where}", values))

    def _select(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._guard:
            return self._database.execute(query, tuple(values)).fetchall()


def _record(row: tuple[Any, ...]) -> Record:
    values = dict(zip((field.name for field in fields(Record)), row, strict=True))
    values["state"] = State(values["state"])
    values["parameters"] = json.loads(values["parameters"])
    values["blocking"] = bool(values["blocking"])
    for name in ("price", "cost"):
        values[name] = None if values[name] is None else Decimal(values[name])
    return Record(**values)


def _write_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and have it on the disk before returning."""
    temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
