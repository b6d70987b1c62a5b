"""Many edits side by side: in order out, and nothing lost when some fail."""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from ..api.events import EventStream
from ..choices import WaitMode
from ..errors import (
    ClientRefused,
    Interrupted,
    LocalTrouble,
    Misconfigured,
    ModelAsleep,
    ModelNotFound,
    OutOfCredits,
    OxenError,
    SpendLimitReached,
    Unauthenticated,
)
from .editor import Editor
from .ends import End, Fate
from .given_up import Decision
from .handover import Handed, hand_over
from .order import Edit, Outcome, Terms
from .parallel import for_each
from .progress import Progress, Stage
from .record import Record, State
from .session import Session
from .spend import SpendGuard
from .trouble import in_words

Picture = TypeVar("Picture")

# What no other edit, of the batch or of the list that it belongs to, can escape: none of those not yet sent is sent.
HOPELESS = (
    ClientRefused,
    LocalTrouble,
    Misconfigured,
    ModelAsleep,
    ModelNotFound,
    OutOfCredits,
    SpendLimitReached,
    Unauthenticated,
)
_SUBSCRIBE_SECONDS = 3.0


class Batch(Generic[Picture]):
    """The edits of one run.

    decode: file bytes to picture; raises ValueError for damaged ones. run_id: names the run of the whole graph, for
    the spend limit. hopeless: an error found that no other edit can escape, which batches that belong together share.
    for_lost: of batches that belong together, some edit may have been paid for, and `terms` ask for it anew.
    decision: which batches that belong together share as well. before_new: is called once, where there is something new
    to be sent, after all limits were held against it.
    """

    def __init__(
        self,
        session: Session,
        decode: Callable[[bytes], Picture],
        terms: Terms | None = None,
        run_id: str | None = None,
        hopeless: list[OxenError] | None = None,
        *,
        for_lost: bool = False,
        decision: Decision | None = None,
        before_new: Callable[[], None] = lambda: None,
    ) -> None:
        self._session = session
        self._before_new = before_new
        self._hopeless = hopeless
        self._for_lost = for_lost
        self._decision = decision
        self._decode = decode
        self._terms = terms or Terms()
        self._guard = SpendGuard(session.client, session.ledger, session.settings, run_id or uuid.uuid4().hex)

    def edit(
        self,
        edits: Sequence[Edit],
        progress: Progress | None = None,
        came: Callable[[int, Picture], Picture] = lambda _, picture: picture,
    ) -> tuple[Outcome[Picture], ...]:
        """The outcomes of all edits, in their order; one that failed carries its error.

        came: is given each picture, with its place, as soon as it is there, on whichever thread that is; what it gives
        is what the outcome holds, so that many large pictures need not wait for each other.

        At most `max_in_flight` of the settings are under way at once. The spend limits are held against all that
        are new before the first is sent. Raises SpendLimitReached, Misconfigured, LocalTrouble, Interrupted.
        """
        progress = progress or Progress(len(edits))
        with in_words("The run"), contextlib.ExitStack() as stack:
            decision = self._decision or Decision(self._session.ledger.undecided_keys())
            editor = self._editor(progress, decision)
            found = [editor.record_to_go_on_from(editor.key(edit)) for edit in edits]
            if not self._terms.reuse and (self._for_lost or any(editor.key(edit) in decision.told for edit in edits)):
                # asked for anew on account of what may have been paid for: the others are not paid again
                editor = self._editor(progress, decision, pays_for_lost=True)
                found = [editor.record_to_go_on_from(editor.key(edit)) for edit in edits]
            editor.uncounted.update(index for index, record in enumerate(found) if record is not None)
            new = [edit for edit, record in zip(edits, found, strict=True) if record is None]
            if len(new) == len(edits) and self._hopeless:
                raise self._hopeless[0]
            if new:
                self._session.client.account.require_key()
            for asked, count in Counter(edit.parameters.priced for edit in new).items():
                self._guard.check(count, asked)
            if new:
                self._before_new()
            self._subscribe(stack, found)
            try:
                return self._side_by_side(found, lambda i: editor.edit(i, edits[i]), progress, came)
            except Interrupted:
                if self._terms.submit_only and self._session.control.cancel_remotely:
                    editor.cancel_submitted()
                raise

    def collect(
        self,
        records: Sequence[Record],
        progress: Progress | None = None,
        came: Callable[[int, Picture], Picture] = lambda _, picture: picture,
    ) -> tuple[Outcome[Picture], ...]:
        """The outcomes of jobs submitted earlier, in their order; pays nothing. Raises LocalTrouble, Interrupted.

        came: as in `edit`.
        """
        progress = progress or Progress(len(records))
        with in_words("The run"), contextlib.ExitStack() as stack:
            editor = self._editor(progress)
            self._subscribe(stack, records)
            return self._side_by_side(records, lambda i: editor.collect(i, records[i]), progress, came)

    def handed_over(self, outcomes: Sequence[Outcome[Picture]]) -> None:
        """Note that these pictures reached a graph.

        Until then they are owed: never pruned, and handed over before anything new is paid for.
        """
        ledger = self._session.ledger
        hand_over(
            ledger.collected,
            [
                Handed(one.record, one.how, ledger.folder)
                for one in outcomes
                if one.record is not None and one.picture is not None
            ],
        )

    @property
    def _listens(self) -> bool:
        return self._terms.wait is WaitMode.EVENTS and not self._terms.submit_only

    def _editor(
        self, progress: Progress, decision: Decision | None = None, *, pays_for_lost: bool = False
    ) -> Editor[Picture]:
        # where events are not wanted, those that another run hears are not used either
        stream = self._session.stream if self._listens else EventStream(self._session.client.transport)
        terms = replace(self._terms, reuse=True) if pays_for_lost else self._terms
        return Editor(
            self._session,
            self._guard,
            self._decode,
            terms,
            stream,
            progress,
            decision=decision,
            pays_for_lost=pays_for_lost,
        )

    def _subscribe(self, stack: contextlib.ExitStack, records: Sequence[Record | None]) -> None:
        """Listen before anything is sent, where there is something to wait for."""
        waits = any(record is None or record.state is not State.DONE for record in records)
        if waits and self._listens:
            stack.enter_context(self._session.listening())
            self._session.control.wait_for(lambda: self._session.stream.settled, _SUBSCRIBE_SECONDS)

    def _side_by_side(
        self,
        found: Sequence[Record | None],
        one: Callable[[int], Outcome[Picture]],
        progress: Progress,
        came: Callable[[int, Picture], Picture],
    ) -> tuple[Outcome[Picture], ...]:
        """found: each edit's record, where it has one; a finished one is fetched even where no new one can succeed."""
        outcomes: list[Outcome[Picture]] = [Outcome()] * len(found)
        done = {index for index, record in enumerate(found) if record is not None and record.state is State.DONE}
        hopeless = [] if self._hopeless is None else self._hopeless

        def work(index: int) -> None:
            try:
                if hopeless and index not in done:
                    raise hopeless[0]
                with in_words(f"Edit {index + 1}" if len(found) > 1 else "The edit"):
                    outcome = one(index)
                    if outcome.picture is not None:
                        outcome = replace(outcome, picture=came(index, outcome.picture))
                    outcomes[index] = outcome
            except Interrupted:
                if not progress.has_end(index):
                    progress.ended(index, _left(found[index]))
                raise
            except OxenError as error:
                if isinstance(error, HOPELESS):
                    hopeless.append(error)
                outcomes[index] = Outcome(error=error)
                progress.ended(index, End.of_error(error))
                progress.at(index, Stage.FAILED)

        for_each(len(found), self._session.settings.max_in_flight, work)
        return tuple(outcomes)


def _left(record: Record | None) -> End:
    """What became of an edit whose run was stopped before it had sent or cancelled anything; record: an earlier one."""
    if record is None:
        return End(Fate.NOT_SENT)
    if record.state is State.DONE:
        return End(Fate.FINISHED_BEFORE)
    return End(Fate.RUNS_ON if record.state is State.SENT else Fate.UNKNOWN)
