"""Waiting for a job: its row at the service tells how it stands; an event only says when to look."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..api.client import Client
from ..api.events import EventStream
from ..api.replies import JobEvent, JobStatus, Row
from ..control import Deadline
from ..errors import (
    ConnectionFailed,
    GenerationCancelled,
    GenerationFailed,
    GenerationNotFound,
    JobOutOfCredits,
    ModerationBlocked,
    OxenError,
    RateLimited,
    TimedOut,
    UnexpectedReply,
    UnknownStatus,
    Upstream,
)
from ..http.transport import is_moderation

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.25
PAUSE_GROWTH = 1.3
LONGEST_PAUSE = 2.0
# Of a job that has ended without a picture; no document says more.
NOT_TOLD = "Oxen.ai does not say whether that was billed."
ONCE_MORE = "Run again to try once more, which is paid for."
_OUTAGE_SECONDS = 30.0
_LOOK_SECONDS = 30.0
_SHORTEST_LOOK = 1.0
_NOT_FOUND_TRIES = 4
_EVENT_TRIES = 4


def wait_for_row(
    client: Client,
    generation_id: str,
    deadline: Deadline,
    *,
    stream: EventStream | None = None,
    on_row: Callable[[Row], None] | None = None,
    first_look_now: bool = False,
    unknown_for: float = 0.0,
    outage: float | None = None,
) -> Row:
    """The row of a job once it is succeeded.

    Looks after 0.25 s, then at intervals growing by 1.3 up to 2 s, and at once when `stream` brings the job's
    event; after a 429 no sooner than the service asks, but for that event. Every row seen goes to `on_row`. A job
    that was found in the ledger is looked at first (`first_look_now`); one that was just sent may be unknown to the
    service for `unknown_for` seconds. outage: seconds of failed looks that are borne, instead of 30.
    Raises GenerationFailed (ModerationBlocked, JobOutOfCredits), GenerationCancelled, GenerationNotFound,
    TimedOut at the deadline, Interrupted, Unauthenticated, and after 30 s of failed looks the last failure.
    """
    looks = _Looks(client, generation_id, deadline, Deadline(min(unknown_for, deadline.left)), outage)
    pause = FIRST_PAUSE
    due = time.monotonic() if first_look_now else time.monotonic() + pause

    def event_is_here() -> bool:
        return stream is not None and not looks.event_used and stream.get(generation_id) is not None

    while True:
        client.control.wait_for(event_is_here, min(due - time.monotonic(), deadline.left))
        row = looks.look(stream.get(generation_id) if stream is not None else None)
        if row is not None:
            if on_row is not None:
                on_row(row)
            if row.status.terminal:
                return succeeded(row)
        if deadline.passed:
            raise looks.timed_out()
        if looks.hurry:
            due = time.monotonic() + FIRST_PAUSE
            continue
        pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE)
        # counted from the last due time, not from the answer, so that slow answers do not stretch the ramp
        due = max(due + pause, looks.not_before, time.monotonic())


class _Looks:
    """Looks at one row, with a memory of what went wrong on the way."""

    def __init__(
        self, client: Client, generation_id: str, deadline: Deadline, known_by: Deadline, outage: float | None
    ) -> None:
        self._client = client
        self._id = generation_id
        self._deadline = deadline
        self._known_by = known_by
        self._outage = _OUTAGE_SECONDS if outage is None else outage
        self._failing_since: float | None = None
        self._failed: OxenError | None = None
        self._not_found = 0
        self._after_event = 0
        self.event_used = False
        self.not_before = 0.0

    @property
    def hurry(self) -> bool:
        """True while an event says that the job has ended and the row does not say so yet."""
        return 0 < self._after_event < _EVENT_TRIES

    def look(self, event: JobEvent | None) -> Row | None:
        if event is not None:
            self.event_used = True
            self._after_event += 1
        try:
            row = self._client.row(self._id, within=min(_LOOK_SECONDS, max(_SHORTEST_LOOK, self._deadline.left)))
        except GenerationNotFound as error:
            self._not_found += 1
            self._failed = error
            if self._not_found < _NOT_FOUND_TRIES or not self._known_by.passed:
                return None
            raise
        except UnknownStatus as error:
            # the service is there, and its own word for a job that has not ended may be a new one
            logger.info("%s It is waited for.", error)
            self._failed = error
            self._failing_since = None
            return None
        except (ConnectionFailed, Upstream, UnexpectedReply, RateLimited) as error:
            if event is not None and self._after_event >= _EVENT_TRIES:
                return _row_of(event)
            self._tolerate(error)
            return None
        self._failing_since = self._failed = None
        self._not_found = 0
        return row

    def timed_out(self) -> TimedOut:
        """The deadline's error, with the reason why the last look failed."""
        seconds = f"{self._deadline.seconds:g} s"
        remembered = "is remembered: run again to go on waiting for it, it is not paid a second time."
        told = f"The edit was not finished after {seconds}. It goes on at Oxen.ai and {remembered}"
        if self._failed is not None:
            told = f"The edit was not seen to be finished within {seconds}: {self._failed.message} It {remembered}"
        error = TimedOut(told, generation_id=self._id)
        error.alive = self._failed is None or isinstance(self._failed, UnknownStatus)
        return error

    def _tolerate(self, error: OxenError) -> None:
        now = time.monotonic()
        self._failed = error
        if isinstance(error, RateLimited):  # the service is there and says when; that is no outage
            self.not_before = now + (error.retry_after or 0.0)
            logger.debug("Generation %s: %s", self._id, error)
            return
        self._failing_since = self._failing_since or now
        if now - self._failing_since > self._outage:
            raise error
        logger.debug("Generation %s: %s", self._id, error)


def may_be_billed(error: BaseException) -> bool:
    """Whether an edit that ended so may have been billed without a picture; to try again is for the artist to ask for.

    So with a job that failed, and where the service failed before it named one.
    """
    if isinstance(error, GenerationFailed | GenerationCancelled):
        return True
    return isinstance(error, OxenError) and NOT_TOLD in error.message


def _row_of(event: JobEvent) -> Row:
    """What an event says in the form of a row, for when the row itself cannot be read."""
    return Row(event.generation_id, event.status, result_url=event.url, error_message=event.error)


def succeeded(row: Row) -> Row:
    """The row if it succeeded; raises the error that a failed or cancelled one means."""
    if row.status is JobStatus.CANCELLED:
        raise GenerationCancelled(
            f"The edit was cancelled at Oxen.ai and has no picture. {NOT_TOLD} Running it again starts, and pays for, "
            "a new one.",
            generation_id=row.generation_id,
        )
    if row.status is JobStatus.FAILED:
        said = row.error_message or "no reason given"
        if is_moderation(said):
            raise ModerationBlocked(
                f'The edit was stopped by the safety check: "{said}". {NOT_TOLD} Change the prompt or the picture.',
                generation_id=row.generation_id,
            )
        if "insufficient credits" in said.lower():
            raise JobOutOfCredits(
                f'The edit failed at Oxen.ai: "{said}". {NOT_TOLD} Add credits on Oxen.ai\'s billing page, then run '
                "again.",
                generation_id=row.generation_id,
            )
        raise GenerationFailed(
            f'The edit failed at Oxen.ai: "{said}". {NOT_TOLD} {ONCE_MORE}', generation_id=row.generation_id
        )
    return row
