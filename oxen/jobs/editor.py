"""Edits that are paid once and never lost.

One edit goes through these steps, alone with its key: look into the ledger; hand back what is there, go on waiting
for what is under way, look up at the service what was lost; only then write a record, send, note the id, wait,
download, keep. Whatever stops the run between two steps, the next run goes on from the record.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Generic, TypeVar

from ..api.events import EventStream
from ..api.replies import JobStatus
from ..api.request import EditParameters
from ..choices import WaitMode
from ..control import Deadline
from ..errors import (
    GenerationCancelled,
    GenerationError,
    GenerationFailed,
    GenerationNotFound,
    Interrupted,
    OutcomeUnknown,
    OxenError,
    RateLimited,
    ResultUnavailable,
    ResultUnreadable,
    SpendLimitReached,
    TimedOut,
    UnexpectedReply,
    Upstream,
)
from . import unread
from .doubt import Doubts
from .given_up import NO_PICTURE, Decision, is_gone, with_way_out
from .lookup import Answer, Found, Perhaps, look_up
from .progress import Progress, Stage
from .record import Record, State, request_key
from .results import ANEW, Results, unreadable
from .session import Session
from .slots import slot
from .spend import SpendGuard
from .waiting import wait_for_row

logger = logging.getLogger(__name__)

Picture = TypeVar("Picture")

# After these a paid request may have been taken all the same.
_OPEN = (OutcomeUnknown, Upstream, UnexpectedReply)
# A blocking request that is cut off sooner may be paid and lost.
_BLOCKING_SECONDS = 300.0
# How long a job that was just sent may be unknown to the service, and its picture not be there yet.
_LATE_SECONDS = 15.0
# How long a stopped run may go on cancelling its job at the service, with the job's lock held.
_CLEANUP_SECONDS = 20.0
_TRIES_WHEN_BUSY = 6
_BUSY_PAUSE = 2.0
_NEVER_KEPT = (
    "It was paid for, and its picture came, but could not be kept on this machine, and Oxen.ai does not list it."
)


class How(str, Enum):
    """Where a picture came from; only NEW was paid for in this run."""

    NEW = "new"
    REUSED = "reused"
    RESUMED = "resumed"
    FOUND = "found again"


@dataclass(frozen=True)
class Edit:
    """One picture to edit.

    pixels: a digest of the decoded pixels. input_image: makes the data URI, or the URL that the service can
    download; called only when the edit is really sent, so that nothing is encoded or uploaded in vain.
    """

    parameters: EditParameters
    pixels: str
    input_image: Callable[[], str]


@dataclass(frozen=True)
class Outcome(Generic[Picture]):
    """What became of one edit: a picture, or (submitted only) neither, or an error. `seconds` is what it took."""

    record: Record | None = None
    how: How | None = None
    picture: Picture | None = field(default=None, repr=False)
    error: OxenError | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Terms:
    """How edits are run. reuse: hand back a picture that was paid for before. seconds: patience for one edit."""

    wait: WaitMode = WaitMode.EVENTS
    reuse: bool = True
    seconds: float = 300.0
    submit_only: bool = False


class Editor(Generic[Picture]):
    """Does one edit at a time; `batch.Batch` runs many of these side by side."""

    def __init__(
        self,
        session: Session,
        guard: SpendGuard,
        decode: Callable[[bytes], Picture],
        terms: Terms,
        stream: EventStream,
        progress: Progress,
        *,
        decision: Decision | None = None,
        pays_for_lost: bool = False,
    ) -> None:
        """pays_for_lost: an edit of which the artist was told that it may have been paid for and cannot be had is made
        anew, although `terms` reuse all else."""
        self._client = session.client
        self._ledger = session.ledger
        self._settings = session.settings
        self._guard = guard
        self._results = Results(session.client, session.fetcher, decode)
        self._doubts = Doubts(session.client, session.ledger, terms.seconds)
        self._terms = terms
        self._stream = stream
        self._progress = progress
        self._pays_for_lost = pays_for_lost
        self._submitted: list[Record] = []
        self._anew: dict[str, Record] = {}
        self._decision = decision or Decision(session.ledger.undecided_keys())
        self.uncounted: set[int] = set()

    def key(self, edit: Edit) -> str:
        return request_key(self._client.account.base_url, edit.parameters, edit.pixels)

    def record_to_go_on_from(self, key: str) -> Record | None:
        """The record that answers a request under these terms, so that nothing new is paid."""
        return self._ledger.to_go_on_from(key, reuse=self._terms.reuse, pays_for_lost=self._pays_for_lost)

    def edit(self, index: int, edit: Edit) -> Outcome[Picture]:
        """Do one edit, or find that it is done; raises OxenError."""
        since = time.monotonic()
        key = self.key(edit)
        with self._ledger.hold(key, self._client.control, Deadline(self._terms.seconds)):
            claim = None
            try:
                while claim is None:
                    claim = self._attempt(index, key, edit)
            finally:
                self._anew.pop(key, None)
            self._progress.at(index, Stage.SUBMITTED if self._terms.submit_only else Stage.DONE)
        return Outcome(claim.record, claim.how, claim.picture, seconds=time.monotonic() - since)

    def collect(self, index: int, record: Record) -> Outcome[Picture]:
        """Wait for a job that was submitted earlier and get its picture; raises OxenError."""
        since = time.monotonic()
        with self._ledger.hold(record.key, self._client.control, Deadline(self._terms.seconds)):
            record = self._ledger.recovered(self._ledger.current(record))
            picture = self._kept(record)
            if picture is None and record.generation_id is None and record.result_url is None:
                record = self._found_again(record)
            how = self._how(record, picture)
            if picture is None:
                try:
                    record, picture = self._finish(index, record)
                except NO_PICTURE as error:
                    told = with_way_out(self._ledger, record, error)
                    if isinstance(error, GenerationNotFound):
                        self._ledger.forget(record)
                        raise  # the caller's own words for an id that nobody knows
                    raise told from error
        self._progress.at(index, Stage.DONE)
        return Outcome(record, how, picture, seconds=time.monotonic() - since)

    def _attempt(self, index: int, key: str, edit: Edit) -> _Claim[Picture] | None:
        """One way through an edit; None where a record led nowhere and was closed, so that another is due."""
        claim = None if key in self._anew else self._take_up(index, key)
        # one that was submitted is looked after only where a new one is asked for in its place
        leaves_it = self._terms.submit_only and (claim is None or not self._is_given_up(claim.record))
        if claim is not None and (claim.picture is not None or leaves_it):
            return claim
        with slot(self._settings.max_in_flight, self._client.control):
            if claim is None:
                claim = self._send_patiently(index, key, edit)
                self._close_given_up(key)
            if claim.picture is not None or leaves_it:
                return claim
            try:
                record, picture = self._finish(index, claim.record, claim=claim)
            except NO_PICTURE as error:
                if self._terms.submit_only and isinstance(error, TimedOut) and error.alive:
                    return claim
                if not self._may_pay_again(claim, error):
                    raise with_way_out(self._ledger, claim.record, error) from error
                return self._give_up(key, claim, error)
        return _Claim(record, claim.how, picture)

    def _give_up(self, key: str, claim: _Claim[Picture], error: OxenError) -> _Claim[Picture] | None:
        """Have an edit sent anew in place of a record that leads nowhere; the picture where it came after all."""
        record = claim.record
        if not self._is_asked_for(record):
            self._ledger.ended(record, State.GONE, error.message)
            return None
        if isinstance(error, TimedOut) and error.alive:
            self._cancel(record)
            record = self._ledger.current(record)
            if (picture := self._kept(record)) is not None:
                return _Claim(record, claim.how, picture)
        self._anew[key] = record  # an older picture of the same request is not what was asked for
        return None

    def _close_given_up(self, key: str) -> None:
        """Close the record that was given up, now that another takes its place."""
        record = self._anew.get(key)
        if record is not None and self._ledger.current(record).state in (State.SENT, State.DONE):
            self._ended(record, State.GONE, "It could not be had, and the artist had it made anew.")

    def _take_up(self, index: int, key: str) -> _Claim[Picture] | None:
        """What is there already for a key: a picture, or a job to wait for; None where the edit is to be sent."""
        while (found := self.record_to_go_on_from(key)) is not None:
            found = self._ledger.recovered(found)
            asked_for = self._is_asked_for(found)
            decided = self._is_decided(found)
            if found.state is State.SENDING:
                # nobody else holds the key: a run was stopped between its record and its answer
                self._progress.at(index, Stage.LOOKING)
                taken = self._doubts.of_a_stopped_run(found, decided=decided)
                if taken is not None:
                    return _Claim(taken, How.FOUND, self._kept(taken))
                if asked_for:
                    return None
                continue
            picture = self._kept(found)
            if picture is None and found.state is State.DONE and self._has_no_address(found):
                answer = self._asked_for(found)
                if isinstance(answer, Found):
                    found = self._ledger.sent(found, generation_id=answer.row.generation_id)
                else:
                    self._close_what_is_gone(found, answer, decided=decided)
                    if asked_for:
                        return None
                    continue
            return _Claim(found, self._how(found, picture), picture)
        return None

    def _asked_for(self, record: Record) -> Answer | OxenError:
        """What the lists say of a record whose picture is not here, or why they could not be asked."""
        try:
            return look_up(self._client, self._ledger, record)
        except Interrupted:
            raise
        except OxenError as error:
            return error

    def _close_what_is_gone(self, record: Record, answer: Answer | OxenError, *, decided: bool) -> None:
        """Close the record of a blocking edit whose picture is neither here nor listed, so that it is made anew.

        So where the artist was told of it and decided to pay again; raises ResultUnavailable otherwise, and why the
        lists could not be asked.
        """
        if decided and record.told:
            self._ledger.ended(record, State.GONE, "Its file is gone from this machine.")
            return
        self._ledger.told(record)
        if (came := self._unread(record)) is not None:
            raise unread.error_of(self._ledger, record, came)
        if isinstance(answer, OxenError):
            raise answer.reworded(
                f"Edit {record.id} of the history is paid for, its picture is not on this machine, and Oxen.ai could "
                f"not be asked for it: {answer} Run again to ask once more, or {ANEW}."
            )
        if record.bytes is None:
            raise ResultUnavailable(
                f"Edit {record.id} of the history: {_NEVER_KEPT} To pay for another, set result to always new."
            )
        raise ResultUnavailable(
            f"Edit {record.id} of the history is paid for, but its file is gone from this machine, and Oxen.ai does "
            "not list it. Set result to always new to pay for another."
        )

    def _found_again(self, record: Record) -> Record:
        """The record with the id by which the service lists it; raises GenerationFailed where it has no picture."""
        answer = None
        if record.state in (State.SENDING, State.DONE) and record.departed:
            answer = look_up(self._client, self._ledger, record)
        if isinstance(answer, Perhaps):
            raise ResultUnavailable(
                f"The picture of edit {record.id} of the history is not on this machine, and Oxen.ai {answer.why}. Run "
                "again to ask once more."
            )
        if not isinstance(answer, Found):
            if (came := self._unread(record)) is not None:
                raise unread.error_of(self._ledger, record, came)
            why = record.error or "Oxen.ai does not list it."
            if record.state is State.DONE and record.bytes is None:
                why = _NEVER_KEPT
            raise GenerationFailed(f"Edit {record.id} of the history has no picture to collect: {why}")
        return self._ledger.sent(record, generation_id=answer.row.generation_id)

    @staticmethod
    def _how(record: Record, picture: Picture | None) -> How:
        return How.RESUMED if picture is None and record.collected_at is None else How.REUSED

    def _kept(self, record: Record) -> Picture | None:
        """The picture that this machine holds of a record."""
        held = self._held(record)
        if not isinstance(held, ResultUnreadable):
            return held
        logger.warning("The kept file of edit %d cannot be read (%s): %s", record.id, self._ledger.path(record), held)
        return None

    def _unread(self, record: Record) -> ResultUnreadable | None:
        """What is wrong with the file that this machine holds of a record; None where there is none."""
        held = self._held(record)
        return held if isinstance(held, ResultUnreadable) else None

    def _held(self, record: Record) -> Picture | ResultUnreadable | None:
        """What this machine holds of a record: its picture, or what is wrong with its file."""
        data = self._ledger.picture(record) if record.state is State.DONE else None
        if data is None:
            return None
        try:
            return self._results.decode(data)
        except ValueError as error:
            return unreadable(str(error), data, record.generation_id)

    @staticmethod
    def _has_no_address(record: Record) -> bool:
        """Whether its picture can be downloaded only with an address from the service's lists."""
        return record.generation_id is None and (record.result_url is None or record.collected_at is not None)

    def _may_pay_again(self, claim: _Claim[Picture], error: OxenError) -> bool:
        """Whether a record that leads nowhere is given up and the edit sent anew.

        Only where the artist asks for a new picture, after having been told of this one, or where this one is
        certainly gone.
        """
        record = claim.record
        return self._is_decided(record) and (record.told or is_gone(error))

    def _is_asked_for(self, record: Record) -> bool:
        """Whether a new picture is asked for on account of this record."""
        return self._pays_for_lost and record.told and self._decision.concerns(record)

    def _is_decided(self, record: Record) -> bool:
        """Whether the artist asks for a new picture, although this record may have one."""
        return self._is_asked_for(record) or (not self._terms.reuse and self._decision.concerns(record))

    def _is_given_up(self, record: Record) -> bool:
        """Whether the artist was told that a job's picture is not to be had, and asks for a new one."""
        return record.state in (State.SENT, State.DONE) and record.told and self._is_decided(record)

    def _send_patiently(self, index: int, key: str, edit: Edit) -> _Claim[Picture]:
        """Send the request; again after a while where a gateway turned it away for the moment and nothing was taken."""
        for attempt in range(_TRIES_WHEN_BUSY):
            try:
                return self._send(index, key, edit)
            except _TurnedAway as busy:
                if attempt == _TRIES_WHEN_BUSY - 1:
                    raise busy.error from None
                pause = busy.error.retry_after
                self._client.control.sleep(_BUSY_PAUSE * (attempt + 1) if pause is None else pause)
        raise AssertionError("the last attempt returns or raises")

    def _send(self, index: int, key: str, edit: Edit) -> _Claim[Picture]:
        """Write the record, then send the request, once."""
        self._progress.at(index, Stage.SENDING)
        if index in self.uncounted:
            self._guard.check(1, edit.parameters.model.id)
            self.uncounted.discard(index)
        price = self._guard.price(edit.parameters.model.id)
        input_image = edit.input_image()
        limit = self._settings.usd_per_day
        blocking = self._terms.wait is WaitMode.BLOCKING and not self._terms.submit_only
        record = self._ledger.open(
            key,
            edit.parameters,
            input_image,
            price,
            limit,
            blocking=blocking,
            clock_offset=self._client.transport.clock_offset,
        )
        if record is None:
            raise SpendLimitReached(
                f"One more picture would pass the limit of ${limit} for 24 hours (usd_per_day). It was not sent."
            )
        self._decision.sent.add(key)
        leaving = partial(self._ledger.leaving, record)
        try:
            if blocking:
                return self._edit_at_once(record, edit.parameters, input_image, leaving)
            generation_id = self._client.enqueue(edit.parameters, input_image, before_last=leaving)
            record = self._noted(record, generation_id=generation_id)
            self._submitted.append(record)
            return _Claim(record, How.NEW)
        except ResultUnreadable as came:
            return self._in_place_of(came, record)
        except Interrupted:  # of a request that is out the outcome is unknown, and that is another error
            self._ended(record, State.REFUSED, "Its run was stopped before it was sent.")
            raise
        except OxenError as error:
            # without the service's own envelope it is a gateway's word, which knows nothing of the service
            if isinstance(error, _OPEN) or (error.status is not None and not error.definite):
                return self._looked_up(record, error)
            billed = isinstance(error, GenerationError) and (error.status or 0) >= 500
            self._ended(record, State.FAILED if billed else State.REFUSED, error.message)
            raise

    def _looked_up(self, record: Record, error: OxenError) -> _Claim[Picture]:
        taken = self._doubts.after_a_lost_answer(self._ledger.current(record), error)
        if taken is None:
            assert isinstance(error, RateLimited)
            raise _TurnedAway(error)
        return _Claim(taken, How.FOUND)

    def _edit_at_once(
        self, record: Record, parameters: EditParameters, input_image: str, leaving: Callable[[], None]
    ) -> _Claim[Picture]:
        """One blocking request; its answer is the picture, or the address of it."""
        seconds = max(self._terms.seconds, _BLOCKING_SECONDS)
        try:
            image = self._client.edit(parameters, input_image, seconds=seconds, before_last=leaving)[0]
        except UnexpectedReply as error:
            if error.picture is None:
                raise
            raise unreadable(error.message, error.picture) from None
        if image.data is None:
            return _Claim(self._noted(record, result_url=image.url), How.NEW)
        try:
            picture = self._results.decode(image.data)
        except ValueError as error:
            raise unreadable(str(error), image.data) from None
        return _Claim(self._keep(record, image.data), How.NEW, picture)

    def _in_place_of(self, came: ResultUnreadable, record: Record) -> _Claim[Picture]:
        """Keep the bytes that a blocking request gave and that are no picture; the history may have a better copy."""
        error = unread.keep(self._ledger, record, came)
        record = self._ledger.current(record)
        answer = self._asked_for(record)
        if not isinstance(answer, Found):
            raise error
        return _Claim(self._noted(record, generation_id=answer.row.generation_id), How.NEW)

    def _noted(self, record: Record, *, generation_id: str | None = None, result_url: str | None = None) -> Record:
        """The record with its id or address from the service; this run goes on even if it cannot be written down.

        The next run then looks the job up, as after a lost answer.
        """
        try:
            return self._ledger.sent(record, generation_id=generation_id, result_url=result_url)
        except sqlite3.Error as error:
            logger.warning("Edit %d was taken, which could not be written down: %s", record.id, error)
            return replace(record, state=State.SENT, generation_id=generation_id, result_url=result_url)

    def _ended(self, record: Record, state: State, why: str) -> None:
        """Close a record while an error is being raised; a full disk must not take that error's place."""
        try:
            self._ledger.ended(record, state, why)
        except sqlite3.Error as error:
            logger.warning("The end of edit %d could not be written down: %s", record.id, error)

    def _finish(self, index: int, record: Record, *, claim: _Claim[Picture] | None = None) -> tuple[Record, Picture]:
        """Wait for a sent job, download its picture and keep it. claim: of the edit that asks for it."""
        given_up = claim is not None and self._is_given_up(record)
        settling = self._doubts.settling if given_up else None
        seconds = self._terms.seconds
        if self._terms.submit_only and settling is not None:
            seconds = min(seconds, settling)
        try:
            url = record.result_url
            young = (claim is not None and claim.how is How.NEW) or (
                bool(record.input_digest) and time.time() - record.created_at < _LATE_SECONDS
            )
            late = _LATE_SECONDS if young and record.collected_at is None else 0.0
            if record.generation_id is not None:
                row = wait_for_row(
                    self._client,
                    record.generation_id,
                    Deadline(seconds),
                    stream=self._stream,
                    on_row=lambda row: self._progress.at_status(index, row.status),
                    first_look_now=time.time() - record.created_at > 1.0,
                    unknown_for=late,
                    outage=settling,
                )
                url = row.result_url
            self._progress.at(index, Stage.DOWNLOADING)
            record, data, picture = self._download(record, url, late)
        except ResultUnreadable as came:
            raise unread.keep(self._ledger, record, came) from None
        except GenerationCancelled as error:
            self._ended(record, State.CANCELLED, error.message)
            raise
        except GenerationFailed as error:
            self._ended(record, State.FAILED, error.message)
            raise
        except Interrupted:
            if self._client.control.cancel_remotely:
                self._cancel(record)
            raise
        return self._note_cost(self._keep(record, data)), picture

    def _download(self, record: Record, url: str | None, late: float) -> tuple[Record, bytes, Picture]:
        """The picture behind a result's address; where a blocking request's has expired, by way of the history."""
        if record.generation_id is not None:
            return record, *self._results.download(url, record.generation_id, late)
        try:
            return record, *self._results.download(url, None)
        except ResultUnreadable:
            raise
        except ResultUnavailable:
            answer = self._asked_for(record)
        if not isinstance(answer, Found):
            return record, *self._results.download(url, None, late)
        record = self._ledger.sent(record, generation_id=answer.row.generation_id)
        return record, *self._results.download(answer.row.result_url, answer.row.generation_id, late)

    def _keep(self, record: Record, data: bytes) -> Record:
        """The record with its picture on disk; where the disk takes none, the picture is handed over all the same."""
        try:
            return self._ledger.done(record, data, record.suffix)
        except (OSError, sqlite3.Error) as error:
            logger.warning("The picture of edit %d could not be kept on this machine: %s", record.id, error)
        if record.generation_id is None and record.result_url is None:  # nor can it be downloaded again
            with contextlib.suppress(sqlite3.Error):
                return self._ledger.came(record)
        return record

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

    def cancel_submitted(self) -> None:
        """Cancel at the service what this run has put into the queue."""
        for record in self._submitted:
            self._cancel(record)

    def _cancel(self, record: Record) -> None:
        """Cancel a job at the service; where that comes too late, keep the picture that was paid for."""
        if record.generation_id is None:
            return
        client = self._client.for_cleanup()
        ends = threading.Timer(_CLEANUP_SECONDS, client.control.detach)
        ends.daemon = True
        try:
            ends.start()
            client.cancel(record.generation_id)
            row = client.row(record.generation_id)
            if row.status is JobStatus.CANCELLED:
                self._ended(record, State.CANCELLED, "Cancelled.")
            elif row.status is JobStatus.FAILED:
                self._ended(record, State.FAILED, row.error_message or "Failed.")
            elif row.status is JobStatus.SUCCEEDED:
                data, _ = self._results.under(client).download(row.result_url, row.generation_id)
                self._keep(record, data)
        except ResultUnreadable as came:
            logger.warning("%s", unread.keep(self._ledger, record, came))
        except OxenError as error:
            logger.warning("Generation %s could not be cancelled: %s", record.generation_id, error)
        finally:
            ends.cancel()


class _TurnedAway(Exception):
    """A gateway refused a request for the moment, and the service's lists show that it was not taken."""

    def __init__(self, error: RateLimited) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True)
class _Claim(Generic[Picture]):
    """A record that answers an edit, and its picture where it is at hand."""

    record: Record
    how: How
    picture: Picture | None = None
