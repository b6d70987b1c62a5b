"""By an edit's request key what it was made from, and in which graph; and local edits whole.

A database of its own beside the ledger, which it never touches: losing it loses nothing that was paid for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..oxen.private_files import make_folder

FILE_NAME = "album.sqlite3"
BEFORE, LOCAL, THUMBNAILS = "before", "local", "thumbnails"
# A larger graph is not kept.
MOST_GRAPH_BYTES = 4 << 20
_BUSY_SECONDS = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS asked (
    key TEXT PRIMARY KEY,
    before TEXT,
    graph TEXT,
    node TEXT
);
CREATE TABLE IF NOT EXISTS local (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tag TEXT NOT NULL,
    prompt TEXT NOT NULL,
    seed TEXT NOT NULL,
    parameters TEXT NOT NULL,
    made_at REAL NOT NULL,
    seconds REAL,
    file TEXT NOT NULL,
    before TEXT,
    graph TEXT,
    node TEXT
);
CREATE TABLE IF NOT EXISTS graphs (digest TEXT PRIMARY KEY, packed BLOB NOT NULL);
"""


@dataclass(frozen=True)
class Origin:
    """Where an edit comes from. before: the file of the picture in the folder `before`. graph: its digest. node: which
    of the graph's nodes made it."""

    before: str | None
    graph: str | None
    node: str | None


@dataclass(frozen=True)
class LocalEdit:
    """An edit that was made on this machine's own GPU; its picture is `file` in the folder `local`.

    tag: tells two albums' edits of one number apart. made_at: unix seconds.
    """

    id: int
    tag: str
    prompt: str
    seed: str
    parameters: dict[str, Any]
    made_at: float
    seconds: float | None
    file: str
    asked: Origin


class Notes:
    """The notes of one album, for one thread; see `reading` and `writing`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def note_asked(self, keys: Sequence[str], asked: Origin) -> None:
        """Where the edits of these request keys come from; the newest run that asked for one counts."""
        rows = [(key, asked.before, asked.graph, asked.node) for key in keys]
        self._database.executemany("INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?)", rows)

    def note_local(self, edit: LocalEdit) -> None:
        where = (edit.asked.before, edit.asked.graph, edit.asked.node)
        self._database.execute(
            "INSERT INTO local (tag, prompt, seed, parameters, made_at, seconds, file, before, graph, node)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                edit.tag,
                edit.prompt,
                edit.seed,
                json.dumps(edit.parameters),
                edit.made_at,
                edit.seconds,
                edit.file,
                *where,
            ),
        )

    def note_graph(self, graph: Mapping[str, Any] | None) -> str | None:
        """Keep a graph, once however often it is run; its digest, None where it is too large or cannot be written."""
        if graph is None:
            return None
        try:
            text = json.dumps(graph, separators=(",", ":"), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError):
            return None
        if len(text) > MOST_GRAPH_BYTES:
            return None
        digest = hashlib.sha256(text).hexdigest()[:32]
        self._database.execute("INSERT OR IGNORE INTO graphs VALUES (?, ?)", (digest, zlib.compress(text, 6)))
        return digest

    def asked(self, key: str) -> Origin | None:
        return self.asked_all([key]).get(key)

    def asked_all(self, keys: Sequence[str]) -> dict[str, Origin]:
        """Where the edits of these keys come from, as far as it was noted."""
        marks = ", ".join("?" * len(keys))
        rows = self._database.execute(f"SELECT key, before, graph, node FROM asked WHERE key IN ({marks})", list(keys))
        return {key: Origin(*rest) for key, *rest in rows}

    def graph(self, digest: str) -> dict[str, Any] | None:
        row = self._database.execute("SELECT packed FROM graphs WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            return None
        try:
            text = zlib.decompressobj().decompress(row[0], MOST_GRAPH_BYTES + 1)
            found = json.loads(text)
        except (zlib.error, ValueError, TypeError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def local(self, number: int) -> LocalEdit | None:
        row = self._database.execute(
            "SELECT id, tag, prompt, seed, parameters, made_at, seconds, file, before, graph, node FROM local"
            " WHERE id = ?",
            (number,),
        ).fetchone()
        if row is None:
            return None
        id, tag, prompt, seed, parameters, made_at, seconds, file, *where = row
        return LocalEdit(id, tag, prompt, seed, json.loads(parameters), made_at, seconds, file, Origin(*where))

    def locals(self, contains: str, most: int) -> list[tuple[int, str, float]]:
        """The newest local edits with this in their prompt: number, tag, when they were made; newest first."""
        pattern = "%" + contains.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        return self._database.execute(
            "SELECT id, tag, made_at FROM local WHERE prompt LIKE ? ESCAPE '\\' ORDER BY id DESC LIMIT ?",
            (pattern, most),
        ).fetchall()

    def newest_local(self) -> int:
        return int(self._database.execute("SELECT IFNULL(MAX(id), 0) FROM local").fetchone()[0])


def new_local(
    prompt: str, seed: int, parameters: Mapping[str, Any], seconds: float | None, asked: Origin, tag: str, file: str
) -> LocalEdit:
    """A local edit that was just made; its number is given when it is noted."""
    return LocalEdit(0, tag, prompt, str(seed), dict(parameters), time.time(), seconds, file, asked)


def new_tag() -> str:
    return secrets.token_hex(3)


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[Notes]:
    """The notes of an album, as they are now; nothing is made where there are none. Raises sqlite3.Error."""
    path = folder / FILE_NAME
    there = path.is_file()
    name = f"{path.absolute().as_uri()}?mode=ro" if there else ":memory:"
    with contextlib.closing(sqlite3.connect(name, timeout=_BUSY_SECONDS, isolation_level=None, uri=there)) as database:
        if not there:
            database.executescript(_SCHEMA)
        yield Notes(database)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[Notes]:
    """The notes of an album, which is made at the first; what is written in the block is written whole or not at all.

    Raises sqlite3.Error and OSError.
    """
    make_folder(folder)
    path = folder / FILE_NAME
    new = not path.is_file()
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)) as database:
        if new:
            # in WAL those who read are in nobody's way; where there is none, as on some drives, it works without
            with contextlib.suppress(sqlite3.OperationalError):
                database.execute("PRAGMA journal_mode = WAL")
            path.chmod(0o600)
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_SCHEMA)
        database.execute("BEGIN IMMEDIATE")
        try:
            yield Notes(database)
            database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            raise
