"""Written down behind a run, on a thread of its own; what fails here is missing in the panel and nowhere else."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..imaging.errors import ImageError
from ..imaging.pixels import UInt8
from ..imaging.png import write_png
from ..oxen.private_files import replace_file
from . import notes
from .folder import make_part
from .notes import Origin
from .small import before

logger = logging.getLogger(__name__)

# Of pictures that wait to be written, so that a quick run does not fill the memory: what is more is not noted.
_MOST_WAITING = 512
_PRUNE_PAUSE = 600.0
# What the folders of an album may come to, in bytes; the oldest files go first.
ROOM = {notes.BEFORE: 512 << 20, notes.LOCAL: 2048 << 20, notes.THUMBNAILS: 512 << 20}

_guard = threading.Lock()
_thread: ThreadPoolExecutor | None = None
_waiting = 0
_pruned: dict[Path, float] = {}


@dataclass(frozen=True)
class Source:
    """The picture that edits are made from. digest: of its 8-bit pixels, which `pixels` gives; called once at most."""

    digest: str
    pixels: Callable[[], UInt8]

    @property
    def file(self) -> str:
        return f"{self.digest[:32]}.jpg"


@dataclass(frozen=True)
class Where:
    """The graph that a run is of, as the editor would save it, and which of its nodes is being run."""

    graph: Mapping[str, Any] | None
    node: str | None


@dataclass(frozen=True)
class Made:
    """A picture that was made on this machine. pixels: 8-bit, [H,W,C]; called once."""

    source: Source
    prompt: str
    seed: int
    seconds: float | None
    pixels: Callable[[], UInt8]


def note_asked(folder: Path, source: Source, keys: Sequence[str], where: Where) -> None:
    """Note what edits of these request keys are made from; returns at once."""

    def work() -> None:
        _keep_before(folder, source)
        with notes.writing(folder) as album:
            album.note_asked(keys, Origin(source.file, album.note_graph(where.graph), where.node))

    _behind(folder, work)


def note_local(folder: Path, made: Made, parameters: Mapping[str, Any], where: Where) -> None:
    """Note an edit that was made on this machine, with its picture; returns at once."""

    def work() -> None:
        _keep_before(folder, made.source)
        tag = notes.new_tag()
        name = f"{time.time_ns()}-{tag}.png"
        replace_file(make_part(folder, notes.LOCAL) / name, write_png(made.pixels()))
        with notes.writing(folder) as album:
            asked = Origin(made.source.file, album.note_graph(where.graph), where.node)
            album.note_local(notes.new_local(made.prompt, made.seed, parameters, made.seconds, asked, tag, name))

    _behind(folder, work)


def settle() -> None:
    """Wait until all that was given so far is written."""
    with _guard:
        thread = _thread
    if thread is not None:
        thread.submit(lambda: None).result()


def prune(folder: Path, room: Mapping[str, int] | None = None) -> int:
    """Remove the oldest files where a folder of the album has more than its room; how many."""
    removed = 0
    for name, most in (room or ROOM).items():
        try:
            with os.scandir(folder / name) as entries:
                found = [(entry.stat(follow_symlinks=False), entry.path) for entry in entries]
        except FileNotFoundError:
            continue
        total = sum(state.st_size for state, _ in found)
        for state, path in sorted(found, key=lambda one: one[0].st_mtime_ns):
            if total <= most:
                break
            Path(path).unlink(missing_ok=True)
            total -= state.st_size
            removed += 1
    return removed


def _keep_before(folder: Path, source: Source) -> None:
    path = folder / notes.BEFORE / source.file
    if not path.exists():
        make_part(folder, notes.BEFORE)
        replace_file(path, before(source.pixels()))


def _behind(folder: Path, work: Callable[[], None]) -> None:
    global _thread, _waiting

    def call() -> None:
        global _waiting
        try:
            work()
            _prune_sometimes(folder)
        except (OSError, sqlite3.Error, ImageError, MemoryError, ValueError, RuntimeError) as error:
            logger.warning("An edit is missing in the panel Edits, or its picture before: %s", error)
        finally:
            with _guard:
                _waiting -= 1

    with _guard:
        if _waiting >= _MOST_WAITING:
            return
        _waiting += 1
        if _thread is None:
            _thread = ThreadPoolExecutor(1, thread_name_prefix="kontext-bridge album")
        thread = _thread
    try:
        thread.submit(call)
    except RuntimeError as error:  # no thread is to be had, or the program is ending
        with _guard:
            _waiting -= 1
        logger.warning("An edit is missing in the panel Edits: %s", error)


def _prune_sometimes(folder: Path) -> None:
    now = time.monotonic()
    if folder in _pruned and now - _pruned[folder] < _PRUNE_PAUSE:
        return
    _pruned[folder] = now
    prune(folder)
