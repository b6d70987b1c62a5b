"""When a picture counts as handed over: as a graph gets it, or where somebody carries it on, once that has arrived.

A batch through a workflow carries it on into a file. Until that is in its place the picture is owed: a run that was
killed in between finds it in the ledger as one that was paid for, and still to be brought.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from .order import How
from .record import Record

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Handed:
    """One picture that a graph got. record: as it was then; folder: its ledger's."""

    record: Record
    how: How | None
    folder: Path


class Consignment:
    """What the graphs of a with block got, on its way. Safe to use from several threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._handed: list[Handed] = []

    @property
    def handed(self) -> list[Handed]:
        with self._guard:
            return list(self._handed)

    def add(self, handed: Iterable[Handed]) -> None:
        with self._guard:
            self._handed += handed

    def arrived(self, collected: Callable[[Record], object]) -> None:
        """All of it is where it belongs. collected: a ledger's."""
        _note(collected, self.handed)
        self.dropped()

    def dropped(self) -> None:
        """It goes no further: it is owed to whoever asks next. Harmless where it has arrived."""
        with _guard:
            _under_way.discard(self)


_consignment: ContextVar[Consignment | None] = ContextVar("consignment", default=None)
_guard = threading.Lock()
_under_way: set[Consignment] = set()


@contextlib.contextmanager
def carrying() -> Iterator[Consignment]:
    """Carry on what the graphs of this context get, after the with block, too: until it is `arrived` or `dropped`, as
    it is where the block raises."""
    consignment = Consignment()
    with _guard:
        _under_way.add(consignment)
    token = _consignment.set(consignment)
    try:
        yield consignment
    except BaseException:
        consignment.dropped()
        raise
    finally:
        _consignment.reset(token)


def hand_over(collected: Callable[[Record], object], handed: Iterable[Handed]) -> None:
    """Note that a graph got these pictures, or leave that to whoever carries them on. collected: their ledger's."""
    consignment = _consignment.get()
    if consignment is None:
        _note(collected, handed)
    else:
        consignment.add(handed)


def is_on_its_way(folder: Path, record: Record) -> bool:
    """Whether this process carries a record's picture, so that whoever asks for another gets another. folder: the
    ledger's."""
    with _guard:
        under_way = list(_under_way)
    return any((one.folder, one.record.id) == (folder, record.id) for each in under_way for one in each.handed)


def _note(collected: Callable[[Record], object], handed: Iterable[Handed]) -> None:
    for one in handed:
        try:
            collected(one.record)
        except sqlite3.Error as error:  # such as a full disk, which must not cost the pictures
            logger.warning("The ledger could not be written: %s", error)
            return
