"""The record of everything that was paid for: what was asked, which job it became, where its picture is.

SQLite with full synchronisation, shared by threads and by ComfyUI processes. A record is written before its request,
gets the generation id the moment it is known, and its picture at the end. Pictures are files beside the database;
pruning removes files, never records, and never a picture not yet collected. No row is ever deleted: SQLite would give
its number to another request.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..api.request import EditParameters
from ..control import Control, Deadline
from ..errors import LocalTrouble, Misconfigured, TimedOut, UnexpectedReply
from ..private_files import PRIVATE_FILE, PRIVATE_FOLDER, make_folder, make_private
from .handover import is_on_its_way
from .locks import hold
from .record import COLUMNS, NO_PROMPT, NO_SEED, Record, State, read_record, sent_digest, text_digest
from .store import Store
from .tables import SPENT, bring_up_to_date, sum_of

FILE_NAME = "ledger.sqlite3"
DAY_SECONDS = 86400.0
_BUSY_SECONDS = 30.0
# How long another program may take to open it.
OPEN_SECONDS = 30.0
# What was retired has no key: the requests of others never see it.
_LISTED = "key != ''"
_TAKEN = f"departed AND state != 'refused' AND {_LISTED}"
_OWED = "(state IN ('sending', 'sent') OR (state = 'done' AND collected_at IS NULL))"
_UNFINISHED = "state IN ('sending', 'sent', 'done')"
_UNDECIDED = f"told AND {_UNFINISHED}"
_SELECT = ", ".join(COLUMNS)
# The ledgers that this process has looked over and closed, each as it left the file: nobody has touched it since.
_sound: dict[Path, tuple[int, ...]] = {}


class Ledger:
    """The ledger in one folder. Safe to use from many threads and from several processes at once.

    control: stops the wait for others that open it. within: how long that may take, at most `OPEN_SECONDS`.
    Raises Misconfigured where a ledger was lost and its results are still there; LocalTrouble where another program
    does not let go of it; Interrupted; sqlite3.Error and OSError.
    """

    def __init__(self, folder: Path, control: Control | None = None, within: Deadline | None = None) -> None:
        self.folder = folder
        self._store = Store(folder / "results")
        self._guard = threading.RLock()
        make_folder(folder)
        path = self._path = folder / FILE_NAME
        # before SQLite opens it, which may change it
        looks_over = _sound.get(path) != _state_of(path)
        with contextlib.suppress(OSError):  # SQLite then says why it cannot be opened
            # Made before SQLite does, which gives its other files the same mode. One that is there is not opened: to
            # close it would take from this process all locks that SQLite has on it, and another one would then remove
            # the journal under it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
        for part in (path, path.with_name(f"{FILE_NAME}-wal"), path.with_name(f"{FILE_NAME}-shm")):
            make_private(part, PRIVATE_FILE)
        self._database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            with contextlib.ExitStack() as alone:
                try:
                    # SQLite waits for no other connection while it changes the journal's mode: one at a time.
                    alone.enter_context(
                        hold(folder / "locks", "open", control or Control(), within or Deadline(OPEN_SECONDS))
                    )
                except TimedOut:
                    raise not_opened(folder) from None
                self._set_up(folder, looks_over)
        except BaseException:
            self._database.close()
            raise

    def _set_up(self, folder: Path, looks_over: bool) -> None:
        make_private(folder / "locks", PRIVATE_FOLDER)
        with contextlib.suppress(sqlite3.OperationalError):
            # some network drives have no shared memory, and then it is the journal that SQLite begins with
            self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        if looks_over:
            ((sound,),) = self._select("PRAGMA quick_check(1)", ())
            if sound != "ok":
                raise sqlite3.DatabaseError(f"it is damaged ({sound})")
        bring_up_to_date(self._database)
        if not self._select("SELECT 1 FROM jobs LIMIT 1", ()) and (names := self._store.names()):
            raise Misconfigured(
                f"The ledger {folder / FILE_NAME} is empty, but {self._store.folder} holds {len(names)} pictures "
                "that were paid for: the ledger was lost or replaced. Nothing was sent. Put the ledger back from "
                "a backup; or, to begin a new one, move the folder results somewhere else: what the lost ledger "
                "knew of is paid again if it is run again."
            )

    def close(self) -> None:
        with self._guard:
            self._database.close()
            _sound[self._path] = _state_of(self._path)

    @contextlib.contextmanager
    def hold(self, key: str, control: Control, deadline: Deadline | None = None) -> Iterator[None]:
        """Be alone with a key, across threads and processes; raises Interrupted or TimedOut while waiting for it."""
        with hold(self.folder / "locks", lock_of(key), control, deadline):
            yield

    def open(
        self,
        key: str,
        parameters: EditParameters,
        input_image: str,
        price: Decimal | None,
        limit: Decimal | None = None,
        *,
        beside: Sequence[str] = (),
        blocking: bool = False,
        clock_offset: float | None = None,
        sent_by: str | None = None,
    ) -> Record | None:
        """Write the record of a request about to be sent, with its picture as sent, and beside it others and a mask.

        limit: US dollars that all requests of the last 24 hours may come to, this one included; None where that
        would pass it, in which case nothing was written. Checked and written in one transaction, so that several
        processes together keep to it. clock_offset, sent_by: as in Record.
        """
        input_digest = sent_digest((input_image, *beside))  # of megabytes, while nobody waits for the ledger
        with self._transaction() as database:
            if limit is not None and self.spent_since(time.time() - DAY_SECONDS) + (price or 0) > limit:
                return None
            return self._insert(
                database,
                key=key,
                state=State.SENDING,
                prompt=NO_PROMPT if parameters.prompt is None else parameters.prompt,
                seed=NO_SEED if parameters.seed_sent is None else parameters.seed_sent,
                parameters=json.dumps(parameters.body()),
                input_digest=input_digest,
                blocking=blocking,
                created_at=time.time(),
                price=None if price is None else str(price),
                clock_offset=clock_offset,
                sent_by=sent_by,
                opened=self._step(database),
                departed=False,
            )

    def leaving(self, record: Record) -> None:
        """Note that the request's last block goes out now: from here on the service may take it.

        Raises LocalTrouble where another run has closed the record, which the locks should have kept away.
        """
        with self._transaction() as database:  # which may have been waited for, so that the time is taken in it
            now = self.current(record)
            if now.state is not State.SENDING:
                raise LocalTrouble(
                    "Another run has taken this edit for one that was cut off, and makes it itself. This run did not "
                    f"send it, nothing was paid for it. The locks in {self.folder / 'locks'} were removed, or keep no "
                    "two runs apart there. Leave that folder alone, on a local disk, and run again."
                )
            self._set(database, now, {"departed": True, "left_at": time.time()})

    def given_up(self, record: Record) -> Record:
        """Note that the answer to the request is no longer waited for."""
        return self._update(record, given_up_at=time.time())

    def closed(self, record: Record, state: State, error: str) -> bool:
        """Close the record of a run that was stopped while it sent; False where that run has gone on since.

        Then it is alive, whatever the locks say.
        """
        with self._transaction() as database:
            now = self.current(record)
            if now.state is not State.SENDING or now.departed != record.departed:
                return False
            self._set(database, now, {"state": state, "finished_at": time.time(), "error": error})
            return True

    def told(self, record: Record) -> Record:
        """Note that the artist was told of the doubt, and of the way to have the edit made and paid anew."""
        return record if record.told else self._update(record, told=True)

    def adopt(self, generation_id: str) -> Record:
        """The record of a generation that may have been submitted elsewhere, written if it is not there yet."""
        with self._transaction() as database:
            return self._one("generation_id = ?", generation_id) or self._insert(
                database,
                key=text_digest(generation_id),
                state=State.SENT,
                generation_id=generation_id,
                prompt="",
                seed=0,
                parameters="{}",
                input_digest="",
                created_at=time.time(),
                departed=True,
            )

    def forget(self, record: Record) -> None:
        """Retire a record that `adopt` made for an id which turned out to be nobody's; no other is touched."""
        with self._transaction() as database:
            if record.input_digest == "":
                self._retire(database, record, "The service knows no such generation.")

    def sent(self, record: Record, *, generation_id: str | None = None, result_url: str | None = None) -> Record:
        """Note what the service made of the request: its generation id, or the address of its picture.

        What `adopt` noted of the same generation meanwhile goes into this record. Raises UnexpectedReply where the
        generation belongs to another request: a service that gives one id twice is not believed.
        """
        values: dict[str, Any] = {"state": State.SENT, "generation_id": generation_id, "result_url": result_url}
        with self._transaction() as database:
            other = self._one("generation_id = ? AND id != ?", generation_id, record.id)
            if other is not None and other.input_digest:
                raise UnexpectedReply(f"The service named generation {generation_id}, which is another edit's.")
            if other is not None:
                self._retire(database, other, f"It is the generation of edit {record.id}.")
                cost = None if other.cost is None else str(other.cost)
                values.update(state=other.state, file=other.file, bytes=other.bytes, cost=cost)
                values.update(finished_at=other.finished_at, collected_at=other.collected_at)
            if record.taken is None:
                values["taken"] = self._step(database)
            return self._set(database, record, values)

    def done(self, record: Record, data: bytes, suffix: str) -> Record:
        """Keep the picture's file bytes; on disk before the record says so. suffix: for example "png"."""
        name = self._store.write(_stem(record), suffix, data)
        return self._update(record, state=State.DONE, finished_at=time.time(), file=name, bytes=len(data))

    def came(self, record: Record) -> Record:
        """Note that the picture came and could not be kept: from now on it is in the graph that asked for it alone."""
        return self._update(record, state=State.DONE, finished_at=time.time())

    def recovered(self, record: Record) -> Record:
        """The record with the file that a run wrote for it before it was stopped, where there is one."""
        waits = record.state in (State.SENDING, State.SENT) or (record.state is State.DONE and record.bytes is None)
        name = self._store.find(_stem(record), record.suffix) or self._store.any(_stem(record)) if waits else None
        data = None if name is None else self._store.read(name)
        if data is None:
            return record
        return self._update(record, state=State.DONE, finished_at=time.time(), file=name, bytes=len(data))

    def ended(self, record: Record, state: State, error: str) -> Record:
        """Close a record that gets no picture (any more): FAILED, CANCELLED, REFUSED or GONE."""
        return self._update(record, state=state, finished_at=time.time(), error=error)

    def note_cost(self, record: Record, cost: Decimal) -> Record:
        return self._update(record, cost=str(cost))

    def collected(self, record: Record) -> Record:
        """Note that the picture was handed over: from now on its file may be pruned, and no doubt is left."""
        if record.collected_at and not record.told:
            return record
        return self._update(record, collected_at=record.collected_at or time.time(), told=False)

    def picture(self, record: Record) -> bytes | None:
        """The file bytes of a finished record, None where they are gone."""
        return None if record.file is None else self._store.read(record.file)

    def to_go_on_from(self, key: str, *, reuse: bool, pays_for_lost: bool) -> Record | None:
        """The record that answers a request, so that nothing new is paid.

        reuse: what was handed over before answers, too. pays_for_lost: what the artist was told of comes first.
        """
        if not reuse:
            return self.owed(key)
        return (self.undecided(key) if pays_for_lost else None) or self.usable(key)

    def path(self, record: Record) -> Path | None:
        """Where a record's file is, or was; None where it has none."""
        return None if record.file is None else self._store.folder / record.file

    def usable(self, key: str) -> Record | None:
        """The newest record of a key that has or will get a picture; failing that, one that was cut off."""
        # two questions: ordered by the state, SQLite would sort what its index has in order already
        return self._one("key = ? AND state IN ('done', 'sent') ORDER BY id DESC LIMIT 1", key) or self._one(
            "key = ? AND state = 'sending' ORDER BY id DESC LIMIT 1", key
        )

    def owed(self, key: str) -> Record | None:
        """The oldest record of a key whose picture is under way or was never collected, and nobody here carries it."""
        found = self._many(f"key = ? AND {_OWED} ORDER BY id", key)
        return next((record for record in found if not is_on_its_way(self.folder, record)), None)

    def owed_since_then(self, record: Record) -> Record | None:
        """The oldest such record of the same key that was opened after this one."""
        return self._one(f"key = ? AND id > ? AND {_OWED} ORDER BY id LIMIT 1", record.key, record.id)

    def undecided(self, key: str) -> Record | None:
        """The oldest record of a key of which the artist was told that it may have been paid for and is not to be had.

        It was cut off, or its picture is gone from here and from the service; to pay for another is the artist's
        decision.
        """
        return self._one(f"key = ? AND {_UNDECIDED} ORDER BY id LIMIT 1", key)

    def unnamed(self, seed: int | None) -> tuple[Record, ...]:
        """The requests of a seed that may have become jobs of which no id is known, of whatever key."""
        return self._many(f"seed = ? AND generation_id IS NULL AND {_TAKEN}", NO_SEED if seed is None else seed)

    def of_seed(self, seed: int | None) -> tuple[Record, ...]:
        """The requests of a seed that may have become jobs, of whatever key."""
        return self._many(f"seed = ? AND {_TAKEN}", NO_SEED if seed is None else seed)

    def by_generation(self, generation_id: str) -> Record | None:
        return self._one("generation_id = ?", generation_id)

    def by_id(self, record_id: int) -> Record | None:
        return self._one("id = ?", record_id)

    def recent(self, count: int, *, contains: str = "") -> tuple[Record, ...]:
        """The newest records, newest first; `contains` looks in the prompt and the generation id."""
        pattern = pattern_of(contains)
        return self._many(
            f"{_LISTED} AND (prompt LIKE ? ESCAPE '\\' OR IFNULL(generation_id, '') LIKE ? ESCAPE '\\')"
            " ORDER BY id DESC LIMIT ?",
            pattern,
            pattern,
            count,
        )

    def owners(self, ids: Sequence[str]) -> Mapping[str, Record]:
        """Which of these generation ids, in upper or lower case, belong to requests that this machine sent itself."""
        owned = "generation_id IN (?, ?, ?) AND input_digest != ''"
        found = {one: self._one(owned, one, one.lower(), one.upper()) for one in ids}
        return {one: record for one, record in found.items() if record is not None}

    def has_sent(self, input_digest: str) -> bool:
        """Whether some request of this machine had this picture."""
        return bool(self._select("SELECT 1 FROM jobs WHERE input_digest = ? LIMIT 1", (input_digest,)))

    def undecided_keys(self) -> frozenset[str]:
        """The keys with a record of which the artist was told that it may have been paid for and is not to be had."""
        return frozenset(key for (key,) in self._select(f"SELECT key FROM jobs WHERE {_UNDECIDED} AND {_LISTED}", ()))

    def spent_since(self, when: float) -> Decimal:
        """US dollars of all requests since `when` (unix seconds): the cost told, else the price published.

        A request whose outcome is unknown counts; one that the service refused does not.
        """
        return sum_of(self._select(SPENT, (when,)))

    def owed_since(self, when: float) -> tuple[Record, ...]:
        """Of the requests of `spent_since`, those whose pictures are under way or were not handed over yet.

        Without those that have not left this machine: the service cannot have taken them.
        """
        return self._many(f"created_at >= ? AND collected_at IS NULL AND departed AND {_UNFINISHED}", when)

    def totals(self) -> tuple[int, Decimal]:
        """How many requests were taken by the service, and what they came to in US dollars."""
        rows = self._select(SPENT, (0.0,))
        return sum(number for _, _, number in rows), sum_of(rows)

    def prune(self, *, max_bytes: int, keep_seconds: float) -> int:
        """Remove the files of collected pictures, oldest first, that are too old or over the size; how many."""
        self._store.remove_torn()
        ((total, first),) = self._select("SELECT SUM(bytes), MIN(collected_at) FROM jobs WHERE file IS NOT NULL", ())
        if (total or 0) <= max_bytes and (first is None or time.time() - first <= keep_seconds):
            return 0
        rows = self._select(
            "SELECT id, file, bytes, collected_at FROM jobs WHERE file IS NOT NULL ORDER BY finished_at DESC", ()
        )
        kept, now = 0, time.time()
        going: dict[int, str] = {}
        for record_id, name, size, collected_at in rows:
            if collected_at is not None and (kept + size > max_bytes or now - collected_at > keep_seconds):
                going[record_id] = name
            else:
                kept += size
        if going:
            with self._transaction() as database:
                database.executemany("UPDATE jobs SET file = NULL WHERE id = ?", [(one,) for one in going])
            self._store.remove(going.values())
        return len(going)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guard:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                # a full disk ends some transactions by itself, and then there is none left to roll back
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                raise

    @staticmethod
    def _step(database: sqlite3.Connection) -> int:
        """The next place in the order of what this ledger wrote."""
        step = database.execute("INSERT INTO steps DEFAULT VALUES").lastrowid
        database.execute("DELETE FROM steps WHERE step < ?", (step,))
        return int(step or 0)

    def _insert(self, database: sqlite3.Connection, **values: Any) -> Record:
        places = ", ".join("?" * len(values))
        cursor = database.execute(f"INSERT INTO jobs ({', '.join(values)}) VALUES ({places})", tuple(values.values()))
        (record,) = self._many("id = ?", cursor.lastrowid)
        return record

    @staticmethod
    def _retire(database: sqlite3.Connection, record: Record, why: str) -> None:
        """Keep a record's number and nothing else of it."""
        database.execute(
            "UPDATE jobs SET key = '', state = ?, generation_id = NULL, result_url = NULL, file = NULL, bytes = NULL,"
            " cost = NULL, error = ? WHERE id = ?",
            (State.REFUSED, why, record.id),
        )

    def current(self, record: Record) -> Record:
        """The record as it stands now; where it was retired, the one that its generation belongs to."""
        now = self.by_id(record.id) or record
        if now.is_retired and record.generation_id is not None:
            return self.by_generation(record.generation_id) or now
        return now

    def _update(self, record: Record, **values: Any) -> Record:
        with self._transaction() as database:
            return self._set(database, self.current(record), values)

    def _set(self, database: sqlite3.Connection, record: Record, values: dict[str, Any]) -> Record:
        values = {name: value for name, value in values.items() if value is not None}
        assignments = ", ".join(f"{name} = ?" for name in values)
        database.execute(f"UPDATE jobs SET {assignments} WHERE id = ? AND {_LISTED}", (*values.values(), record.id))
        (updated,) = self._many("id = ?", record.id)
        return updated

    def _one(self, where: str, *values: Any) -> Record | None:
        found = self._many(where, *values)
        return found[0] if found else None

    def _many(self, where: str, *values: Any) -> tuple[Record, ...]:
        return tuple(map(read_record, self._select(f"SELECT {_SELECT} FROM jobs WHERE {where}", values)))

    def _select(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._guard:
            return self._database.execute(query, tuple(values)).fetchall()


def pattern_of(contains: str) -> str:
    """What LIKE, with a backslash as ESCAPE, finds a text by."""
    return "%" + contains.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"


def lock_of(key: str) -> str:
    """What the lock of a request key is called in the folder `locks`."""
    return key[:32]


def not_opened(folder: Path) -> LocalTrouble:
    return LocalTrouble(
        f"The ledger {folder / FILE_NAME} was not opened: another program of this machine has held {folder / 'locks'} "
        f"for {OPEN_SECONDS:g} s while opening it. Nothing was sent. End other ComfyUI processes, which may hang, and "
        "run again."
    )


def _stem(record: Record) -> str:
    """What the names of a record's files begin with; a ledger that was put back from a backup keeps them apart, too."""
    return f"{record.id}-{record.key[:12]}"


def _state_of(path: Path) -> tuple[int, ...]:
    """What of a file changes whenever it is written to or exchanged; of one that is not there nothing."""
    try:
        state = path.stat()
    except OSError:
        return ()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
