"""Edits that are paid once and never lost.

One edit goes through these steps, alone with its key: look into the ledger; hand back what is there, go on waiting
for what is under way, look up at the service what was lost; only then write a record, send, note the id, wait,
download, keep. Whatever stops the run between two steps, the next run goes on from the record.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from .choices import WaitMode
from .control import Deadline
from .errors import (
    GenerationCancelled,
    GenerationError,
    GenerationFailed,
    GenerationNotFound,
    Interrupted,
    OutcomeUnknown,
    OxenError,
    ResultUnavailable,
    SpendLimitReached,
    UnexpectedReply,
    Upstream,
)
from .events import EventStream
from .ledger import Record, State, request_key
from .lookup import find_lost
from .progress import Progress, Stage
from .replies import JobStatus, Row
from .request import EditParameters
from .results import Results
from .session import Session
from .slots import slot
from .spend import SpendGuard
from .waiting import wait_for_row

logger = logging.getLogger(__name__)

Picture = TypeVar("Picture")

_LOOKUP_PAUSES = (0.0, 0.5, 1.5)
# How long after a request the service may take to list its job; before that, "not listed" says nothing.
_SETTLE_SECONDS = 10.0
_SETTLE_PAUSE = 1.0
# How long its picture may be on the way before a request arrives.
_UPLOAD_SECONDS = 300.0
# A blocking request that is cut off sooner may be paid and lost.
_BLOCKING_SECONDS = 300.0
_NOT_LISTED = (
    "Oxen.ai lists no job for it. It was not sent again; the next run looks it up once more before anything is sent."
)
_MAYBE_BILLED = (
    "Oxen.ai lists no job for it, but may not list blocking edits at all, so that it may be on your bill. It was not "
    "sent again; the next run looks it up once more. To have it made and paid anew, set result to always new."
)


class How(str, Enum):
    """How a picture was come by; only NEW was paid for in this run."""

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
        pays_for_lost: bool = False,
    ) -> None:
        """pays_for_lost: a blocking request that was cut off and is listed nowhere is sent anew, although `terms`
        reuse all else."""
        self._client = session.client
        self._ledger = session.ledger
        self._settings = session.settings
        self._guard = guard
        self._results = Results(session.client, session.fetcher, decode)
        self._terms = terms
        self._stream = stream
        self._progress = progress
        self._pays_for_lost = pays_for_lost
        self._submitted: list[Record] = []
        self.uncounted: set[int] = set()

    def key(self, edit: Edit) -> str:
        return request_key(self._client.account.base_url, edit.parameters, edit.pixels)

    def record_to_go_on_from(self, key: str) -> Record | None:
        """The record that answers a request under these terms, so that nothing new is paid."""
        if not self._terms.reuse:
            return self._ledger.owed(key)
        if self._pays_for_lost and (owed := self._ledger.owed(key)) is not None and owed.is_lost:
            return owed
        return self._ledger.usable(key)

    def edit(self, index: int, edit: Edit) -> Outcome[Picture]:
        """Do one edit, or find that it is done; raises OxenError."""
        since = time.monotonic()
        key = self.key(edit)
        with self._ledger.hold(key, self._client.control, Deadline(self._terms.seconds)):
            claim = None
            while claim is None:
                claim = self._attempt(index, key, edit)
            self._progress.at(index, Stage.SUBMITTED if self._terms.submit_only else Stage.DONE)
        return Outcome(claim.record, claim.how, claim.picture, seconds=time.monotonic() - since)

    def collect(self, index: int, record: Record) -> Outcome[Picture]:
        """Wait for a job that was submitted earlier and get its picture; raises OxenError."""
        since = time.monotonic()
        with self._ledger.hold(record.key, self._client.control, Deadline(self._terms.seconds)):
            record = self._ledger.by_id(record.id) or record
            picture = self._kept(record)
            if picture is None and record.generation_id is None and record.result_url is None:
                record = self._found_again(record)
            how = self._how(record, picture)
            if picture is None:
                try:
                    record, picture = self._finish(index, record)
                except GenerationNotFound:
                    self._ledger.forget(record)
                    raise
        self._progress.at(index, Stage.DONE)
        return Outcome(record, how, picture, seconds=time.monotonic() - since)

    def _attempt(self, index: int, key: str, edit: Edit) -> _Claim[Picture] | None:
        """One way through an edit; None where a record led nowhere and was closed, so that another is due."""
        claim = self._take_up(key)
        if claim is not None and (claim.picture is not None or self._terms.submit_only):
            return claim
        with slot(self._settings.max_in_flight, self._client.control):
            if claim is None:
                claim = self._send(index, key, edit)
            if claim.picture is not None or self._terms.submit_only:
                return claim
            try:
                record, picture = self._finish(index, claim.record)
            except (GenerationNotFound, ResultUnavailable) as error:
                if not self._may_pay_again(claim, error):
                    raise _with_way_out(error) from error
                self._ledger.ended(claim.record, State.GONE, error.message)
                return None
        return _Claim(record, claim.how, picture)

    def _take_up(self, key: str) -> _Claim[Picture] | None:
        """What is there already for a key: a picture, or a job to wait for; None where the edit is to be sent."""
        while (found := self.record_to_go_on_from(key)) is not None:
            if found.state is State.SENDING:
                # nobody else holds the key: a run was stopped between its record and its answer
                row = self._find_settled(found)
                if row is not None:
                    found = self._ledger.sent(found, generation_id=row.generation_id)
                    return _Claim(found, How.FOUND, self._kept(found))
                self._give_up(found)
                if self._pays_for_lost and found.is_lost:
                    return None
                continue
            picture = self._kept(found)
            if picture is None and found.state is State.DONE and found.generation_id is None:
                row = find_lost(self._client, self._ledger, found)
                if row is not None:
                    found = self._ledger.sent(found, generation_id=row.generation_id)
                elif found.collected_at is None and self._terms.reuse:
                    raise ResultUnavailable(
                        f"Edit {found.id} of the history is paid for, but its file is gone from this machine, and "
                        "Oxen.ai does not list it. Set result to always new to pay for another."
                    )
                else:
                    self._ledger.ended(found, State.GONE, "Its file is gone from this machine.")
                    continue
            return _Claim(found, self._how(found, picture), picture)
        return None

    def _found_again(self, record: Record) -> Record:
        """The record with the id by which the service lists it; raises GenerationFailed where it has no picture."""
        row = None
        if record.state in (State.SENDING, State.DONE):
            row = find_lost(self._client, self._ledger, record)
        if row is None:
            why = record.error or "Oxen.ai does not list it."
            raise GenerationFailed(f"Edit {record.id} of the history has no picture to collect: {why}")
        return self._ledger.sent(record, generation_id=row.generation_id)

    @staticmethod
    def _how(record: Record, picture: Picture | None) -> How:
        return How.RESUMED if picture is None and record.collected_at is None else How.REUSED

    def _give_up(self, record: Record) -> None:
        """Close the record of a request that was cut off and is not listed, so that it is sent anew.

        The queue lists all that it took. Whether blocking edits are listed is not known: such a request may have been
        billed, and only an artist who asks for a new one pays again; raises OutcomeUnknown otherwise.
        """
        age = time.time() - record.created_at
        if not record.blocking:
            logger.warning(
                "A request of %.0f s ago was cut off before its answer, and Oxen.ai lists no job for it: it is sent "
                "again.",
                age,
            )
            self._ledger.ended(record, State.REFUSED, "The service knows no such job.")
        elif self._terms.reuse and not self._pays_for_lost:
            raise OutcomeUnknown(
                f"A blocking request of {age:.0f} s ago was cut off before its answer. {_MAYBE_BILLED}"
            )
        else:
            self._ledger.ended(record, State.GONE, "Its answer was lost, and the service lists no such edit.")

    def _find_settled(self, record: Record) -> Row | None:
        """The job of a request whose run was stopped; looked for until a late listing would have shown it."""
        latest = record.created_at + _UPLOAD_SECONDS + _SETTLE_SECONDS
        settles = Deadline(min(_SETTLE_SECONDS, latest - time.time()))
        while True:
            settled = settles.passed
            row = find_lost(self._client, self._ledger, record)
            if row is not None or settled:
                return row
            self._client.control.sleep(_SETTLE_PAUSE)

    def _kept(self, record: Record) -> Picture | None:
        """The picture that this machine holds of a record."""
        data = self._ledger.picture(record) if record.state is State.DONE else None
        if data is None:
            return None
        try:
            return self._results.decode(data)
        except ValueError as error:
            logger.warning("The kept file of generation %s is damaged: %s", record.generation_id, error)
            return None

    def _may_pay_again(self, claim: _Claim[Picture], error: GenerationError) -> bool:
        """Whether a record that leads nowhere is closed and the edit sent anew.

        So where its picture was handed over before and has been pruned since, or where the artist asked for a new
        one; otherwise the error goes to the artist, and nothing is paid a second time.
        """
        gone = isinstance(error, GenerationNotFound) or error.status is not None
        delivered = claim.record.collected_at is not None
        return gone and claim.how is not How.NEW and (delivered or not self._terms.reuse)

    def _send(self, index: int, key: str, edit: Edit) -> _Claim[Picture]:
        """Write the record, then send the request, once."""
        self._progress.at(index, Stage.SENDING)
        if index in self.uncounted:
            self._guard.check(1, edit.parameters.model)
            self.uncounted.discard(index)
        price = self._guard.price(edit.parameters.model)
        input_image = edit.input_image()
        limit = self._settings.usd_per_day
        blocking = self._terms.wait is WaitMode.BLOCKING and not self._terms.submit_only
        record = self._ledger.open(key, edit.parameters, input_image, price, limit, blocking=blocking)
        if record is None:
            raise SpendLimitReached(
                f"One more picture would pass the limit of ${limit} for 24 hours (usd_per_day). It was not sent."
            )
        try:
            if blocking:
                return self._edit_at_once(record, edit.parameters, input_image)
            record = self._ledger.sent(record, generation_id=self._client.enqueue(edit.parameters, input_image))
            self._submitted.append(record)
            return _Claim(record, How.NEW)
        except (OutcomeUnknown, Upstream, UnexpectedReply) as error:
            return _Claim(self._look_up(record, error), How.FOUND)
        except OxenError as error:
            billed = isinstance(error, GenerationError) and (error.status or 0) >= 500
            self._ledger.ended(record, State.FAILED if billed else State.REFUSED, error.message)
            raise

    def _edit_at_once(self, record: Record, parameters: EditParameters, input_image: str) -> _Claim[Picture]:
        """One blocking request; its answer is the picture, or the address of it."""
        image = self._client.edit(parameters, input_image, seconds=max(self._terms.seconds, _BLOCKING_SECONDS))[0]
        if image.data is None:
            return _Claim(self._ledger.sent(record, result_url=image.url), How.NEW)
        try:
            picture = self._results.decode(image.data)
        except ValueError as error:
            raise UnexpectedReply(f"The picture in the service's answer cannot be read: {error}") from None
        return _Claim(self._keep(record, image.data), How.NEW, picture)

    def _look_up(self, record: Record, error: OxenError) -> Record:
        """The record with the id of the job that it became although its answer was lost; raises where it is none."""
        for pause in _LOOKUP_PAUSES:
            self._client.control.sleep(pause)
            try:
                row = find_lost(self._client, self._ledger, record)
            except Interrupted:
                raise
            except OxenError as failed:
                logger.info("The look-up of a lost answer failed: %s", failed)
                continue
            if row is not None:
                logger.info("Generation %s was found again after its answer was lost.", row.generation_id)
                return self._ledger.sent(record, generation_id=row.generation_id)
        if record.blocking and error.definite:
            self._ledger.ended(record, State.FAILED, error.message)
            raise error
        raise error.reworded(f"{error.message} {_MAYBE_BILLED if record.blocking else _NOT_LISTED}") from error

    def _finish(self, index: int, record: Record) -> tuple[Record, Picture]:
        """Wait for a sent job, download its picture and keep it."""
        try:
            url = record.result_url
            if record.generation_id is not None:
                row = wait_for_row(
                    self._client,
                    record.generation_id,
                    Deadline(self._terms.seconds),
                    stream=self._stream,
                    on_row=lambda row: self._progress.at_status(index, row.status),
                    first_look_now=time.time() - record.created_at > 1.0,
                )
                url = row.result_url
            self._progress.at(index, Stage.DOWNLOADING)
            record, data, picture = self._download(record, url)
        except GenerationCancelled as error:
            self._ledger.ended(record, State.CANCELLED, error.message)
            raise
        except GenerationFailed as error:
            self._ledger.ended(record, State.FAILED, error.message)
            raise
        except Interrupted:
            if self._client.control.cancel_remotely:
                self._cancel(record)
            raise
        return self._note_cost(self._keep(record, data)), picture

    def _download(self, record: Record, url: str | None) -> tuple[Record, bytes, Picture]:
        """The picture behind a result's address; where a blocking request's has expired, by way of the history."""
        try:
            return record, *self._results.download(url, record.generation_id)
        except ResultUnavailable:
            row = find_lost(self._client, self._ledger, record) if record.generation_id is None else None
            if row is None:
                raise
            record = self._ledger.sent(record, generation_id=row.generation_id)
            return record, *self._results.download(row.result_url, row.generation_id)

    def _keep(self, record: Record, data: bytes) -> Record:
        """The record with its picture on disk; where the disk takes none, the picture is handed over all the same."""
        suffix = str(record.parameters.get("output_format", "image"))
        try:
            return self._ledger.done(record, data, suffix)
        except OSError as error:
            logger.warning("The picture of edit %d could not be kept on this machine: %s", record.id, error)
        if record.generation_id is None and record.result_url is None:
            return self._ledger.ended(record, State.GONE, "It was handed over and could not be kept.")
        return record

    def _note_cost(self, record: Record) -> Record:
        """Ask the history what the job cost; the only place that tells, and not worth failing for."""
        if record.generation_id is None:
            return record
        try:
            cost = self._client.past(record.generation_id, patient=False).cost
        except OxenError as error:
            logger.debug("No cost for generation %s: %s", record.generation_id, error)
            return record
        return record if cost is None else self._ledger.note_cost(record, cost)

    def cancel_submitted(self) -> None:
        """Cancel at the service what this run has put into the queue."""
        for record in self._submitted:
            self._cancel(record)

    def _cancel(self, record: Record) -> None:
        """Cancel a job at the service; where that comes too late, keep the picture that was paid for."""
        if record.generation_id is None:
            return
        client = self._client.for_cleanup()
        try:
            client.cancel(record.generation_id)
            row = client.row(record.generation_id)
            if row.status is JobStatus.CANCELLED:
                self._ledger.ended(record, State.CANCELLED, "Cancelled.")
            elif row.status is JobStatus.FAILED:
                self._ledger.ended(record, State.FAILED, row.error_message or "Failed.")
            elif row.status is JobStatus.SUCCEEDED:
                data, _ = self._results.under(client).download(row.result_url, row.generation_id)
                self._keep(record, data)
        except OxenError as error:
            logger.warning("Generation %s could not be cancelled: %s", record.generation_id, error)


def _with_way_out(error: GenerationError) -> GenerationError:
    if not isinstance(error, GenerationNotFound):
        return error
    return error.reworded(f"{error.message} To have it made and paid anew, set result to always new.")


@dataclass(frozen=True)
class _Claim(Generic[Picture]):
    """A record that answers an edit, and its picture where it is at hand."""

    record: Record
    how: How
    picture: Picture | None = None
