"""Edits that are paid once and never lost.

One edit goes through these steps, alone with its key: look into the ledger; hand back what is there, go on waiting
for what is under way, look up at the service what was lost; only then write a record, send, note the id, wait,
download, keep. Whatever stops the run between two steps, the next run goes on from the record.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from ..api.events import EventStream
from ..control import Deadline
from ..errors import (
    GenerationFailed,
    GenerationNotFound,
    OxenError,
    ResultUnavailable,
    TimedOut,
)
from . import unread
from .doubt import Doubts
from .ends import End
from .finishing import Finisher
from .given_up import NO_PICTURE, Consent, Decision, with_way_out
from .lookup import Answer, Found, Perhaps, asked, look_up
from .order import Claim, Edit, How, Outcome, Terms
from .progress import Progress, Stage
from .record import Record, State, request_key
from .results import ANEW, Results
from .sending import Sender
from .session import Session
from .shelf import Shelf
from .slots import slot
from .spend import SpendGuard

Picture = TypeVar("Picture")

_NEVER_KEPT = (
    "It was paid for, and its picture came, but could not be kept on this machine, and Oxen.ai does not list it."
)


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
        self._terms = terms
        self._progress = progress
        decision = decision or Decision(session.ledger.undecided_keys())
        self._consent = Consent(decision, terms.reuse, pays_for_lost)
        self._shelf = Shelf(session.ledger, decode)
        self._doubts = Doubts(session.client, session.ledger, terms.seconds)
        self._sender = Sender(session, guard, terms, self._shelf, self._doubts, decision, progress)
        results = Results(session.client, session.fetcher, decode)
        self._finisher = Finisher(session, results, terms, self._shelf, stream, progress)
        self._anew: dict[str, Record] = {}

    @property
    def uncounted(self) -> set[int]:
        """The indices of edits that the spend limits have not been held against."""
        return self._sender.uncounted

    def key(self, edit: Edit) -> str:
        return request_key(self._client.account.base_url, edit.parameters, edit.pixels)

    def record_to_go_on_from(self, key: str) -> Record | None:
        """The record that answers a request under these terms, so that nothing new is paid."""
        return self._ledger.to_go_on_from(key, reuse=self._consent.reuse, pays_for_lost=self._consent.pays_for_lost)

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
            if claim.picture is None or self._terms.submit_only:
                self._progress.ended(index, End.of_submission(claim.how))
            else:
                self._progress.ended(index, End.of_picture(claim.how, claim.record.cost))
            self._progress.at(index, Stage.SUBMITTED if self._terms.submit_only else Stage.DONE)
        return Outcome(claim.record, claim.how, claim.picture, seconds=time.monotonic() - since)

    def collect(self, index: int, record: Record) -> Outcome[Picture]:
        """Wait for a job that was submitted earlier and get its picture; raises OxenError."""
        since = time.monotonic()
        with self._ledger.hold(record.key, self._client.control, Deadline(self._terms.seconds)):
            record = self._ledger.recovered(self._ledger.current(record))
            picture = self._shelf.kept(record)
            if picture is None and record.generation_id is None and record.result_url is None:
                record = self._found_again(record)
            how = self._how(record, picture)
            if picture is None:
                try:
                    record, picture = self._finisher.finish(index, record)
                except NO_PICTURE as error:
                    told = with_way_out(self._ledger, record, error)
                    if isinstance(error, GenerationNotFound):
                        self._ledger.forget(record)
                        raise  # the caller's own words for an id that nobody knows
                    raise told from error
        self._progress.ended(index, End.of_picture(how, record.cost, collects=True))
        self._progress.at(index, Stage.DONE)
        return Outcome(record, how, picture, seconds=time.monotonic() - since)

    def _attempt(self, index: int, key: str, edit: Edit) -> Claim[Picture] | None:
        """One way through an edit; None where a record led nowhere and was closed, so that another is due."""
        claim = self._sent_in_its_place(index, key) if key in self._anew else self._take_up(index, key)
        # one that was submitted is looked after only where a new one is asked for in its place
        leaves_it = self._terms.submit_only and (claim is None or not self._consent.gives_up(claim.record))
        if claim is not None and (claim.picture is not None or leaves_it):
            return claim
        with slot(self._settings.max_in_flight, self._client.control):
            if claim is None:
                claim = self._sender.send(index, key, edit)
                self._close_given_up(key)
            if claim.picture is not None or leaves_it:
                return claim
            try:
                settling = self._doubts.settling if self._consent.gives_up(claim.record) else None
                is_new = claim.how is How.NEW
                record, picture = self._finisher.finish(index, claim.record, is_new=is_new, settling=settling)
            except NO_PICTURE as error:
                if self._terms.submit_only and isinstance(error, TimedOut) and error.alive:
                    return claim
                # one account does not know the jobs of another
                error.definite = error.definite and not self._doubts.is_anothers(claim.record)
                if not self._consent.pays_after(claim.record, error):
                    raise with_way_out(self._ledger, claim.record, error) from error
                return self._give_up(key, claim, error)
        return Claim(record, claim.how, picture)

    def _give_up(self, key: str, claim: Claim[Picture], error: OxenError) -> Claim[Picture] | None:
        """Have an edit sent anew in place of a record that leads nowhere; the picture where it came after all."""
        record = claim.record
        if not self._consent.is_asked_for(record):
            self._ledger.ended(record, State.GONE, error.message)
            return None
        if isinstance(error, TimedOut) and error.alive:
            self._finisher.cancel(record)
            record = self._ledger.current(record)
            if (picture := self._shelf.kept(record)) is not None:
                return Claim(record, claim.how, picture)
        self._anew[key] = record  # an older picture of the same request is not what was asked for
        return None

    def _sent_in_its_place(self, index: int, key: str) -> Claim[Picture] | None:
        """What a run that was stopped had sent in place of the record that is given up; None where that is nothing.

        The artist decided to pay for one, and it may be paid for.
        """
        while (found := self._ledger.owed_since_then(self._anew[key])) is not None:
            found = self._ledger.recovered(found)
            if found.state is State.SENDING:
                claim = self._of_a_stopped_run(index, found)
            else:
                claim = Claim(found, How.RESUMED, self._shelf.kept(found))
            if claim is not None:
                self._close_given_up(key)
                return claim
        return None

    def _of_a_stopped_run(self, index: int, record: Record) -> Claim[Picture] | None:
        """The job that a request became whose run was stopped between its record and its answer, for nobody else holds
        the key; None where it became none, and the record was closed."""
        self._progress.at(index, Stage.LOOKING)
        taken = self._doubts.of_a_stopped_run(record, decided=self._consent.is_decided(record))
        return None if taken is None else Claim(taken, How.FOUND, self._shelf.kept(taken))

    def _close_given_up(self, key: str) -> None:
        """Close the record that was given up, now that another takes its place."""
        record = self._anew.get(key)
        if record is not None and self._ledger.current(record).state in (State.SENT, State.DONE):
            self._shelf.ended(record, State.GONE, "It could not be had, and the artist had it made anew.")

    def _take_up(self, index: int, key: str) -> Claim[Picture] | None:
        """What is there already for a key: a picture, or a job to wait for; None where the edit is to be sent."""
        while (found := self.record_to_go_on_from(key)) is not None:
            found = self._ledger.recovered(found)
            asked_for = self._consent.is_asked_for(found)
            decided = self._consent.is_decided(found)
            if found.state is State.SENDING:
                claim = self._of_a_stopped_run(index, found)
                if claim is not None or asked_for:
                    return claim
                continue
            picture = self._shelf.kept(found)
            if picture is None and found.state is State.DONE and self._has_no_address(found):
                answer = asked(self._client, self._ledger, found)
                if isinstance(answer, Found):
                    found = self._ledger.sent(found, generation_id=answer.row.generation_id)
                else:
                    self._close_what_is_gone(found, answer, decided=decided)
                    if asked_for:
                        return None
                    continue
            return Claim(found, self._how(found, picture), picture)
        return None

    def _close_what_is_gone(self, record: Record, answer: Answer | OxenError, *, decided: bool) -> None:
        """Close the record of a blocking edit whose picture is neither here nor listed, so that it is made anew.

        So where the artist was told of it and decided to pay again; raises ResultUnavailable otherwise, and why the
        lists could not be asked.
        """
        if decided and record.told:
            self._ledger.ended(record, State.GONE, "Its file is gone from this machine.")
            return
        self._ledger.told(record)
        if (came := self._shelf.unread(record)) is not None:
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
                "again to ask once more, without paying."
            )
        if not isinstance(answer, Found):
            if (came := self._shelf.unread(record)) is not None:
                raise unread.error_of(self._ledger, record, came)
            why = record.error or "Oxen.ai does not list it."
            if record.state is State.DONE and record.bytes is None:
                why = _NEVER_KEPT
            raise GenerationFailed(
                f"Edit {record.id} of the history has no picture to collect: {why} Collecting costs nothing."
            )
        return self._ledger.sent(record, generation_id=answer.row.generation_id)

    @staticmethod
    def _how(record: Record, picture: Picture | None) -> How:
        return How.RESUMED if picture is None and record.collected_at is None else How.REUSED

    @staticmethod
    def _has_no_address(record: Record) -> bool:
        """Whether its picture can be downloaded only with an address from the service's lists."""
        return record.generation_id is None and (record.result_url is None or record.collected_at is not None)

    def cancel_submitted(self) -> None:
        """Cancel at the service what this run has put into the queue."""
        for index, record in self._sender.submitted:
            self._progress.ended(index, self._finisher.cancel(record))
