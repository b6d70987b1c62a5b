"""What this machine holds of the edits that it paid for, and the writing down that a full disk must not stop."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

from ..errors import ResultUnreadable
from .ledger import Ledger
from .record import Record, State
from .results import unreadable

logger = logging.getLogger(__name__)

Picture = TypeVar("Picture")


class Shelf(Generic[Picture]):
    """The kept pictures of a ledger. decode: file bytes to picture; raises ValueError for damaged ones."""

    def __init__(self, ledger: Ledger, decode: Callable[[bytes], Picture]) -> None:
        self._ledger = ledger
        self.decode = decode

    def kept(self, record: Record) -> Picture | None:
        """The picture that this machine holds of a record."""
        held = self.held(record)
        if not isinstance(held, ResultUnreadable):
            return held
        logger.warning("The kept file of edit %d cannot be read (%s): %s", record.id, self._ledger.path(record), held)
        return None

    def unread(self, record: Record) -> ResultUnreadable | None:
        """What is wrong with the file that this machine holds of a record; None where there is none."""
        held = self.held(record)
        return held if isinstance(held, ResultUnreadable) else None

    def held(self, record: Record) -> Picture | ResultUnreadable | None:
        """What this machine holds of a record: its picture, or what is wrong with its file."""
        data = self._ledger.picture(record) if record.state is State.DONE else None
        if data is None:
            return None
        try:
            return self.decode(data)
        except ValueError as error:
            return unreadable(str(error), data, record.generation_id)

    def noted(self, record: Record, *, generation_id: str | None = None, result_url: str | None = None) -> Record:
        """The record with its id or address from the service; this run goes on even if it cannot be written down.

        The next run then looks the job up, as after a lost answer.
        """
        try:
            return self._ledger.sent(record, generation_id=generation_id, result_url=result_url)
        except sqlite3.Error as error:
            logger.warning("Edit %d was taken, which could not be written down: %s", record.id, error)
            return replace(record, state=State.SENT, generation_id=generation_id, result_url=result_url)

    def ended(self, record: Record, state: State, why: str) -> None:
        """Close a record while an error is being raised; a full disk must not take that error's place."""
        try:
            self._ledger.ended(record, state, why)
        except sqlite3.Error as error:
            logger.warning("The end of edit %d could not be written down: %s", record.id, error)

    def keep(self, record: Record, data: bytes) -> Record:
        """The record with its picture on disk; where the disk takes none, the picture is handed over all the same."""
        try:
            return self._ledger.done(record, data, record.suffix)
        except (OSError, sqlite3.Error) as error:
            logger.warning("The picture of edit %d could not be kept on this machine: %s", record.id, error)
        if record.generation_id is None and record.result_url is None:  # nor can it be downloaded again
            with contextlib.suppress(sqlite3.Error):
                return self._ledger.came(record)
        return record
