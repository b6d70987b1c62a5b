"""From a sent job to its picture: waited for, downloaded, kept; or cancelled at the service."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from typing import Generic, TypeVar

from ..api.client import ENQUEUED_WITHIN
from ..api.events import EventStream
from ..api.replies import JobStatus
from ..control import Deadline
from ..errors import (
    GenerationCancelled,
    GenerationFailed,
    Interrupted,
    OxenError,
    ResultUnavailable,
    ResultUnreadable,
)
from . import unread
from .ends import End, Fate
from .lookup import Found, asked
from .order import Terms
from .progress import Progress, Stage
from .record import Record, State
from .results import Results
from .session import Session
from .shelf import Shelf
from .waiting import wait_for_row

logger = logging.getLogger(__name__)

Picture = TypeVar("Picture")

# How long a job that was just sent may be unknown to the service, and its picture not be there yet.
_LATE_SECONDS = 15.0
# Until when a job may have been sent just now, as its request may have been under way for as long as its run waited.
_YOUNG_SECONDS = ENQUEUED_WITHIN + _LATE_SECONDS
# How long a stopped run may go on cancelling its job at the service, with the job's lock held.
_CLEANUP_SECONDS = 20.0


class Finisher(Generic[Picture]):
    """Brings in what was sent."""

    def __init__(
        self,
        session: Session,
        results: Results[Picture],
        terms: Terms,
        shelf: Shelf[Picture],
        stream: EventStream,
        progress: Progress,
    ) -> None:
        self._client = session.client
        self._ledger = session.ledger
        self._results = results
        self._terms = terms
        self._shelf = shelf
        self._stream = stream
        self._progress = progress

    def finish(
        self, index: int, record: Record, *, is_new: bool = False, settling: float | None = None
    ) -> tuple[Record, Picture]:
        """Wait for a sent job, download its picture and keep it.

        is_new: it was sent in this run. settling: of a job that the artist gave up, how many seconds it is looked for
        while the service cannot be reached.
        """
        seconds = self._terms.seconds
        if self._terms.submit_only and settling is not None:
            seconds = min(seconds, settling)
        try:
            url = record.result_url
            young = is_new or (bool(record.input_digest) and time.time() - record.sent_at < _YOUNG_SECONDS)
            late = _LATE_SECONDS if young and record.collected_at is None else 0.0
            if record.generation_id is not None:
                row = wait_for_row(
                    self._client,
                    record.generation_id,
                    Deadline(seconds),
                    stream=self._stream,
                    on_row=lambda row: self._progress.at_status(index, row.status),
                    first_look_now=time.time() - record.sent_at > 1.0,
                    unknown_for=late,
                    outage=settling,
                )
                url = row.result_url
            self._progress.at(index, Stage.DOWNLOADING)
            record, data, picture = self._download(record, url, late)
        except ResultUnreadable as came:
            raise unread.keep(self._ledger, record, came) from None
        except GenerationCancelled as error:
            self._shelf.ended(record, State.CANCELLED, error.message)
            raise
        except GenerationFailed as error:
            self._shelf.ended(record, State.FAILED, error.message)
            raise
        except Interrupted:
            cancels = self._client.control.cancel_remotely
            self._progress.ended(index, self.cancel(record) if cancels else End(Fate.RUNS_ON))
            raise
        return self._note_cost(self._shelf.keep(record, data)), picture

    def _download(self, record: Record, url: str | None, late: float) -> tuple[Record, bytes, Picture]:
        """The picture behind a result's address; where a blocking request's has expired, by way of the history."""
        if record.generation_id is not None:
            return record, *self._results.download(url, record.generation_id, late)
        try:
            return record, *self._results.download(url, None)
        except ResultUnreadable:
            raise
        except ResultUnavailable:
            answer = asked(self._client, self._ledger, record)
        if not isinstance(answer, Found):
            return record, *self._results.download(url, None, late)
        record = self._ledger.sent(record, generation_id=answer.row.generation_id)
        return record, *self._results.download(answer.row.result_url, answer.row.generation_id, late)

    def _note_cost(self, record: Record) -> Record:
        """Ask the history what the job cost. Nothing else tells it; without an answer the edit goes on."""
        if record.generation_id is None:
            return record
        try:
            cost = self._client.past(record.generation_id, patient=False).cost
            return record if cost is None else self._ledger.note_cost(record, cost)
        except (OxenError, sqlite3.Error) as error:
            logger.debug("No cost for generation %s: %s", record.generation_id, error)
            return record

    def cancel(self, record: Record) -> End:
        """Cancel a job at the service; where that comes too late, keep the picture that was paid for."""
        if record.generation_id is None:
            return End(Fate.UNKNOWN)
        client = self._client.for_cleanup()
        ends = threading.Timer(_CLEANUP_SECONDS, client.control.detach)
        ends.daemon = True
        try:
            ends.start()
            client.cancel(record.generation_id)
            row = client.row(record.generation_id)
            if row.status is JobStatus.CANCELLED:
                self._shelf.ended(record, State.CANCELLED, "Cancelled.")
                return End(Fate.CANCELLED)
            if row.status is JobStatus.FAILED:
                why = row.error_message or "Failed."
                self._shelf.ended(record, State.FAILED, why)
                return End(Fate.FAILED, why=why)
            if row.status is JobStatus.SUCCEEDED:
                data, _ = self._results.under(client).download(row.result_url, row.generation_id)
                self._shelf.keep(record, data)
                return End(Fate.FINISHED_BEFORE)
        except ResultUnreadable as came:
            logger.warning("%s", unread.keep(self._ledger, record, came))
        except OxenError as error:
            logger.warning("Generation %s could not be cancelled: %s", record.generation_id, error)
        finally:
            ends.cancel()
        return End(Fate.UNKNOWN)
