"""A request whose outcome is unknown: what became of it, and what to do where that cannot be told.

The rule: nothing is paid a second time unless the first request was certainly not taken. That is certain in two cases:
the request never left this machine, or the queue's lists are complete and do not show it long afterwards. All else is
doubt: the artist is told, and alone decides to pay again.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from http import HTTPStatus

from ..api.client import ENQUEUED_WITHIN, Client
from ..control import Deadline
from ..errors import Interrupted, OutcomeUnknown, OxenError, RateLimited
from .ledger import Ledger
from .lookup import Answer, Found, Nothing, Perhaps, look_up
from .record import Record, State
from .waiting import NOT_TOLD, ONCE_MORE

logger = logging.getLogger(__name__)

# How long ago the service got a request before "not listed" is believed: it may list a job some time after it took it.
CERTAIN_SECONDS = 60.0
# How long after its last block a run that was killed may have held on to a line that was down.
_HELD_SECONDS = ENQUEUED_WITHIN
# How long a job is looked for that may never be listed.
SETTLE_SECONDS = 10.0
_PAUSES = (0.0, 0.5, 1.5)
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 5.0
# What an answer with one of these, from whomever, says of a request that no list shows: it was turned away unread.
# Not so 403, by which a gateway also keeps an answer back that it does not like.
_TURNED_AWAY = frozenset(
    [
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.LENGTH_REQUIRED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UPGRADE_REQUIRED,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ]
)
PAID_ANEW = "To have it made and paid anew, set result to always new."


class Doubts:
    """Resolves doubts for one editor. patience: seconds that a run gives an edit."""

    def __init__(self, client: Client, ledger: Ledger, patience: float) -> None:
        self._client = client
        self._ledger = ledger
        self._patience = patience

    @property
    def settling(self) -> float:
        """Seconds for which what the artist gave up is looked for once more."""
        return SETTLE_SECONDS

    def after_a_lost_answer(self, record: Record, error: OxenError) -> Record | None:
        """The record with the id of the job that it became although its answer was lost.

        None where a gateway turned the request away for the moment (429) and no list shows it: it may be sent again.
        Raises `error`, reworded, where the job is not found; what is to be told then is noted in the record.
        """
        with contextlib.suppress(sqlite3.Error):  # a full disk: it then counts as one whose run was killed
            record = self._ledger.given_up(record)
        answer: Answer | None = None
        failed: OxenError | None = None
        for pause in _PAUSES:
            self._client.control.sleep(pause)
            try:
                answer = look_up(self._client, self._ledger, record)
            except Interrupted:
                raise
            except OxenError as why:
                logger.info("The look-up of a lost answer failed: %s", why)
                failed = why
                continue
            if isinstance(answer, Found):
                logger.info("Generation %s was found again after its answer was lost.", answer.row.generation_id)
                return self._ledger.sent(record, generation_id=answer.row.generation_id)
        if error.definite:
            self._ledger.ended(record, State.FAILED, error.message)
            raise error.reworded(f"{error.message} {NOT_TOLD} {ONCE_MORE}")
        if isinstance(answer, Nothing) and error.status in _TURNED_AWAY:
            self._ledger.ended(record, State.REFUSED, error.message)
            if isinstance(error, RateLimited):
                return None
            raise error
        raise self._told(record, error, _in_words(record, answer, failed))

    def of_a_stopped_run(self, record: Record, *, decided: bool) -> Record | None:
        """The record of a request whose run was stopped before its answer, with the id of the job that it became.

        None where it is certain that it became none, or the artist has `decided` to pay anew after being told of the
        doubt: the record is closed then. Raises OutcomeUnknown otherwise, and what the requests raise.
        """
        if not record.departed:
            return self._closed(record, State.REFUSED, "Its run was stopped before it was sent.")
        decided = decided and record.told
        watched = Deadline(SETTLE_SECONDS)
        since, patience, pause = time.monotonic(), Deadline(self._patience), _FIRST_PAUSE
        while True:
            try:
                answer = look_up(self._client, self._ledger, record)
            except Interrupted:
                raise
            except OxenError as failed:
                if not decided:
                    self._ledger.told(record)
                    raise failed.reworded(f"{self._cut_off(record)} {_in_words(record, None, failed)}") from failed
                answer = Perhaps("could not be asked")
            if isinstance(answer, Found):
                return self._ledger.sent(record, generation_id=answer.row.generation_id)
            if isinstance(answer, Nothing) and self.is_anothers(record):
                answer = Perhaps("lists no job for it, but was asked with another API key than it was sent with")
            certain = isinstance(answer, Nothing) and not record.blocking
            if certain and self._age(record, since) >= CERTAIN_SECONDS + _uploading(record):
                logger.warning("%s Oxen.ai lists no job for it: it is sent again.", self._cut_off(record))
                return self._closed(record, State.REFUSED, "The service knows no such job.")
            if decided and watched.passed:
                return self._closed(record, State.GONE, "Its answer was lost, and the artist had it made anew.")
            if patience.passed or (watched.passed and not certain):
                raise self._unknown(record, answer)
            self._client.control.sleep(min(pause, max(0.05, patience.left)))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _closed(self, record: Record, state: State, why: str) -> Record | None:
        """None with the record closed; as it stands now where its run lives and has got an answer meanwhile."""
        if self._ledger.closed(record, state, why):
            return None
        now = self._ledger.current(record)
        if now.state in (State.SENT, State.DONE):
            return now
        raise self._unknown(now, Perhaps("may have it, as another run is sending it"))

    def is_anothers(self, record: Record) -> bool:
        """Whether a request was sent by another account than the one whose lists are read, as far as keys tell."""
        return record.sent_by not in (None, self._client.account.mark)

    def _unknown(self, record: Record, answer: Answer) -> OxenError:
        return self._told(record, OutcomeUnknown(self._cut_off(record)), _in_words(record, answer, None))

    def _told(self, record: Record, error: OxenError, words: str) -> OxenError:
        self._ledger.told(record)
        return error.reworded(f"{error.message} {words}")

    def _age(self, record: Record, since: float) -> float:
        """Seconds that have certainly passed since a request was under way for the last time.

        since: when this run began to look, by the one clock that nobody sets; the request's own run has ended before.
        The others count only together.
        """
        here = time.monotonic() - since
        offset = self._client.transport.clock_offset
        if record.clock_offset is None or offset is None or record.left_at is None:
            return here
        by_this_machine = time.time() - record.left_at - _held(record)
        by_the_service = by_this_machine + offset - record.clock_offset
        return max(here, min(by_this_machine, by_the_service))

    @staticmethod
    def _cut_off(record: Record) -> str:
        kind = "blocking request" if record.blocking else "request"
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created_at))
        return f"A {kind} of {when} was cut off before its answer, so that it is not known whether it was taken."


def _uploading(record: Record) -> float:
    """Seconds that a request took to leave; what stands between here and the service takes less to pass it on."""
    return 0.0 if record.left_at is None else max(0.0, record.left_at - record.created_at)


def _held(record: Record) -> float:
    """Seconds after its last block for which its own run may have kept a request on a line that was down."""
    if record.left_at is None:
        return 0.0
    return _HELD_SECONDS if record.given_up_at is None else max(0.0, record.given_up_at - record.left_at)


def _in_words(record: Record, answer: Answer | None, failed: OxenError | None) -> str:
    """What the lists say of a request that was not found in them, and the ways on."""
    looks = "It was not sent again; the next run looks it up once more before anything is sent."
    if answer is None:
        return f"Oxen.ai could not be asked whether it was: {failed} {looks} {PAID_ANEW}"
    if isinstance(answer, Perhaps):
        collect = ""
        if answer.ids:
            named = ", ".join(answer.ids[:3]) + (" and others" if len(answer.ids) > 3 else "")
            collect = f" Kontext Collect brings it without paying, by its id: {named}."
        return f"Oxen.ai {answer.why}, so that it may be on your bill.{collect} {looks} {PAID_ANEW}"
    if record.blocking:
        return (
            "Oxen.ai lists no job for it, but may not list blocking edits at all, so that it may be on your bill. "
            f"{looks} {PAID_ANEW}"
        )
    old_enough = CERTAIN_SECONDS + _uploading(record) + _held(record)
    return (
        f"Oxen.ai lists no job for it. It was not sent again; a run that looks it up {old_enough:.0f} s after it was "
        f"sent, or later, and finds none sends it again by itself. {PAID_ANEW}"
    )
