"""Sending a request: once, its record written before it, and whatever comes back kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from ..api.replies import EditImage
from ..choices import WaitMode
from ..errors import (
    GenerationError,
    Interrupted,
    OutcomeUnknown,
    OxenError,
    RateLimited,
    ResultUnreadable,
    SpendLimitReached,
    UnexpectedReply,
    Upstream,
)
from . import unread
from .doubt import Doubts
from .given_up import Decision
from .lookup import Found, asked
from .order import Claim, Edit, How, Terms
from .progress import Progress, Stage
from .record import Record, State
from .results import unreadable
from .session import Session
from .shelf import Shelf
from .spend import SpendGuard

Picture = TypeVar("Picture")

# After these a paid request may have been taken all the same.
_OPEN = (OutcomeUnknown, Upstream, UnexpectedReply)
# A blocking request that is cut off sooner may be paid and lost.
_BLOCKING_SECONDS = 300.0
_TRIES_WHEN_BUSY = 6
_BUSY_PAUSE = 2.0


class Sender(Generic[Picture]):
    """Sends what is not there yet.

    submitted: what it put into the queue, each with its index. uncounted: the indices of edits that the spend limits
    have not been held against.
    """

    def __init__(
        self,
        session: Session,
        guard: SpendGuard,
        terms: Terms,
        shelf: Shelf[Picture],
        doubts: Doubts,
        decision: Decision,
        progress: Progress,
    ) -> None:
        self._client = session.client
        self._ledger = session.ledger
        self._settings = session.settings
        self._guard = guard
        self._terms = terms
        self._shelf = shelf
        self._doubts = doubts
        self._decision = decision
        self._progress = progress
        self.submitted: list[tuple[int, Record]] = []
        self.uncounted: set[int] = set()

    def send(self, index: int, key: str, edit: Edit) -> Claim[Picture]:
        """Send the request; again after a while where a gateway turned it away for the moment and nothing was taken."""
        for attempt in range(_TRIES_WHEN_BUSY):
            try:
                return self._once(index, key, edit)
            except _TurnedAway as busy:
                if attempt == _TRIES_WHEN_BUSY - 1:
                    raise busy.error from None
                pause = busy.error.retry_after
                self._client.control.sleep(_BUSY_PAUSE * (attempt + 1) if pause is None else pause)
                answer = asked(self._client, self._ledger, busy.record)  # it may have been listed meanwhile
                if isinstance(answer, Found):
                    return self._submitted(index, busy.record, answer.row.generation_id, How.FOUND)
        raise AssertionError("the last attempt returns or raises")

    def _once(self, index: int, key: str, edit: Edit) -> Claim[Picture]:
        """Write the record, then send the request, once."""
        self._progress.at(index, Stage.SENDING)
        if index in self.uncounted:
            self._guard.check(1, edit.parameters.priced)
            self.uncounted.discard(index)
        price = self._guard.price(edit.parameters.priced)
        input_image, beside = edit.input_image(), edit.beside()
        limit = self._settings.usd_per_day
        blocking = self._terms.wait is WaitMode.BLOCKING and not self._terms.submit_only
        record = self._ledger.open(
            key,
            edit.parameters,
            input_image,
            price,
            limit,
            beside=beside.all,
            blocking=blocking,
            clock_offset=self._client.transport.clock_offset,
            sent_by=self._client.account.mark,
        )
        if record is None:
            raise SpendLimitReached(
                f"One more picture would pass the limit of ${limit} for 24 hours (usd_per_day). It was not sent. "
                "Raise the limit, or wait."
            )
        self._decision.sent.add(key)
        leaving = partial(self._ledger.leaving, record)
        try:
            if blocking:
                send = partial(self._client.edit, edit.parameters, input_image, beside, before_last=leaving)
                return self._at_once(record, send)
            generation_id = self._client.enqueue(edit.parameters, input_image, beside, before_last=leaving)
            return self._submitted(index, record, generation_id, How.NEW)
        except ResultUnreadable as came:
            return self._in_place_of(came, record)
        except Interrupted:  # of a request that is out the outcome is unknown, and that is another error
            self._shelf.ended(record, State.REFUSED, "Its run was stopped before it was sent.")
            raise
        except OxenError as error:
            # without the service's own envelope it is a gateway's word, which knows nothing of the service
            if isinstance(error, _OPEN) or (error.status is not None and not error.definite):
                return self._looked_up(record, error)
            billed = isinstance(error, GenerationError) and (error.status or 0) >= 500
            self._shelf.ended(record, State.FAILED if billed else State.REFUSED, error.message)
            raise

    def _looked_up(self, record: Record, error: OxenError) -> Claim[Picture]:
        taken = self._doubts.after_a_lost_answer(self._ledger.current(record), error)
        if taken is None:
            assert isinstance(error, RateLimited)
            raise _TurnedAway(error, self._ledger.current(record))
        return Claim(taken, How.FOUND)

    def _submitted(self, index: int, record: Record, generation_id: str, how: How) -> Claim[Picture]:
        record = self._shelf.noted(record, generation_id=generation_id)
        self.submitted.append((index, record))
        return Claim(record, how)

    def _at_once(self, record: Record, send: Callable[..., tuple[EditImage, ...]]) -> Claim[Picture]:
        """One blocking request; its answer is the picture, or the address of it."""
        try:
            image = send(seconds=max(self._terms.seconds, _BLOCKING_SECONDS))[0]
        except UnexpectedReply as error:
            if error.picture is None:
                raise
            raise unreadable(error.message, error.picture) from None
        if image.data is None:
            return Claim(self._shelf.noted(record, result_url=image.url), How.NEW)
        try:
            picture = self._shelf.decode(image.data)
        except ValueError as error:
            raise unreadable(str(error), image.data) from None
        return Claim(self._shelf.keep(record, image.data), How.NEW, picture)

    def _in_place_of(self, came: ResultUnreadable, record: Record) -> Claim[Picture]:
        """Keep the bytes that a blocking request gave and that are no picture; the history may have a better copy."""
        error = unread.keep(self._ledger, record, came)
        record = self._ledger.current(record)
        answer = asked(self._client, self._ledger, record)
        if not isinstance(answer, Found):
            raise error
        return Claim(self._shelf.noted(record, generation_id=answer.row.generation_id), How.NEW)


class _TurnedAway(Exception):
    """A gateway refused a request for the moment, and the service's lists show that it was not taken."""

    def __init__(self, error: RateLimited, record: Record) -> None:
        super().__init__(error.message)
        self.error = error
        self.record = record
