"""Corners in which an edit could be paid twice, or be paid for and lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from kontext_bridge.oxen.api.replies import History, JobStatus, Listed, Row
from kontext_bridge.oxen.choices import WaitMode
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.errors import (
    GenerationNotFound,
    Interrupted,
    OutcomeUnknown,
    ResultUnavailable,
    SpendLimitReached,
    TimedOut,
    UnexpectedReply,
    Upstream,
)
from kontext_bridge.oxen.http import transport as transport_module
from kontext_bridge.oxen.jobs import doubt as doubt_module
from kontext_bridge.oxen.jobs import finishing as finishing_module
from kontext_bridge.oxen.jobs import ledger as ledger_module
from kontext_bridge.oxen.jobs import store as store_module
from kontext_bridge.oxen.jobs.batch import Batch
from kontext_bridge.oxen.jobs.lookup import Found, look_up
from kontext_bridge.oxen.jobs.order import How, Terms
from kontext_bridge.oxen.jobs.record import State, request_key
from kontext_bridge.standin import Fault, Timing
from kontext_bridge.standin.records import Status
from outcomes import errors, hows, without_files
from patience import timed

BLOCKING = Terms(wait=WaitMode.BLOCKING)
BLOCKING_NEW = Terms(wait=WaitMode.BLOCKING, reuse=False)
NEW = Terms(reuse=False)
SUBMIT = Terms(submit_only=True)


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubt_module, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(doubt_module, "CERTAIN_SECONDS", 0.0)


@pytest.mark.parametrize(("fault", "error"), [("upstream_error", Upstream), ("error_in_ok", UnexpectedReply)])
def test_a_blocking_request_that_the_service_itself_says_failed_is_sent_by_the_next_run(
    serve: Any, fault: str, error: type
) -> None:
    remote = serve(**{fault: Fault(times=1)})
    assert errors(remote.run(remote.edits(), BLOCKING)) == [error]
    assert hows(remote.run(remote.edits(), BLOCKING)) == [How.NEW]
    assert len(remote.server.billed) == 1


def test_always_new_on_account_of_one_lost_edit_pays_for_that_one_alone(serve: Any) -> None:
    remote = serve(answer_dropped=Fault(match="number 1"), history_without_sync=True)
    edits = [remote.edits(prompt=f"number {n}")[0] for n in range(3)]
    assert errors(remote.run(edits, BLOCKING)) == [None, OutcomeUnknown, None]  # what came was handed over
    remote.server.set(answer_dropped=None)
    assert hows(remote.run(edits, BLOCKING_NEW)) == [How.REUSED, How.NEW, How.REUSED]
    assert hows(remote.run(edits, BLOCKING_NEW)) == [How.NEW] * 3
    assert len(remote.server.billed) == 3 + 1 + 3


def test_a_blocking_edit_outlasts_a_short_timeout(serve: Any) -> None:
    remote = serve(timing=Timing(queued_s=0.1, processing_s=1.0))
    assert hows(remote.run(remote.edits(), replace(BLOCKING, seconds=0.4))) == [How.NEW]


@pytest.mark.parametrize("terms", [BLOCKING, Terms()], ids=["blocking", "queue"])
def test_a_picture_that_the_disk_does_not_take_is_handed_over_all_the_same(
    remote: Any, monkeypatch: pytest.MonkeyPatch, terms: Terms
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store_module, "write_durably", full)
        (outcome,) = remote.run(remote.edits(), terms)
    assert outcome.picture is not None and outcome.how is How.NEW
    again = remote.run(remote.edits(), Terms())[0]
    assert again.picture == outcome.picture
    assert len(remote.server.billed) == 1


@pytest.mark.parametrize("ahead", [7200.0, -7200.0], ids=["ahead", "behind"])
def test_a_lost_answer_is_found_by_a_machine_whose_clock_is_wrong(
    serve: Any, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    wrong = SimpleNamespace(time=lambda: time.time() + ahead, monotonic=time.monotonic, sleep=time.sleep)
    for module in (finishing_module, ledger_module, transport_module):
        monkeypatch.setattr(module, "time", wrong)
    remote = serve(answer_dropped=Fault(times=1))
    assert hows(remote.run(remote.edits())) == [How.FOUND]
    assert len(remote.server.billed) == 1


def test_a_lost_job_that_was_collected_by_its_id_meanwhile_is_the_edits_own(serve: Any) -> None:
    remote = serve(answer_dropped=Fault(times=1), list_error=True)
    (outcome,) = remote.run(remote.edits())
    assert isinstance(outcome.error, OutcomeUnknown)
    remote.server.set(list_error=False)
    (job,) = remote.server.jobs
    with remote.session() as session:
        batch = Batch(session, len)
        collected = batch.collect([session.ledger.adopt(job)])
        batch.handed_over(collected)
    (again,) = remote.run(remote.edits(), decode=len)
    assert again.how is How.FOUND and again.picture == collected[0].picture
    with remote.session() as session:
        (record,) = session.ledger.recent(9)
        assert record.generation_id == job and record.prompt and session.ledger.picture(record)
    assert len(remote.server.billed) == 1


@pytest.mark.usefixtures("nothing_comes_late")
@pytest.mark.parametrize("terms", [BLOCKING, Terms()], ids=["blocking", "queue"])
def test_a_picture_not_handed_over_yet_whose_file_is_gone_is_not_paid_for_again_unasked(
    serve: Any, terms: Terms
) -> None:
    remote = serve(history_without_sync=True)
    (first,) = remote.run(remote.edits(), terms, handed_over=False)
    without_files(remote)
    if terms is not BLOCKING:
        remote.server.set(result_missing=Fault(match=first.record.generation_id))
    (again,) = remote.run(remote.edits(), terms)
    assert isinstance(again.error, ResultUnavailable) and "always new" in str(again.error)
    assert len(remote.server.billed) == 1
    assert hows(remote.run(remote.edits(), replace(terms, reuse=False))) == [How.NEW]


def test_a_pruned_picture_of_a_blocking_request_comes_from_the_service_that_lists_it(remote: Any) -> None:
    (first,) = remote.run(remote.edits(), BLOCKING)
    without_files(remote)
    with remote.session() as session:
        (collected,) = Batch(session, len).collect([session.ledger.by_id(first.record.id)])
        assert collected.picture
    (second,) = remote.run(remote.edits(2)[1:], BLOCKING)
    without_files(remote)
    (again,) = remote.run(remote.edits(2)[1:], BLOCKING)
    assert again.picture == second.picture and again.how is How.REUSED
    assert len(remote.server.billed) == 2


def test_an_edit_that_is_sent_in_place_of_a_lost_one_is_held_against_the_limit_of_the_run(remote: Any) -> None:
    edits = remote.edits(2)
    with remote.session() as session:
        for edit in edits:
            key = request_key(remote.account.base_url, edit.parameters, edit.pixels)
            assert session.ledger.open(key, edit.parameters, edit.input_image(), None) is not None
    outcomes = remote.run(edits, usd_per_run=Decimal("0.05"))
    assert sorted(map(str, errors(outcomes))) == sorted([str(SpendLimitReached), "None"])
    assert len(remote.server.billed) == 1


def test_a_lost_blocking_request_hides_no_picture_that_is_there(serve: Any) -> None:
    remote = serve(history_without_sync=True)
    remote.run(remote.edits(), BLOCKING)
    remote.server.set(answer_dropped=Fault(times=1))
    assert errors(remote.run(remote.edits(), BLOCKING_NEW)) == [OutcomeUnknown]
    assert hows(remote.run(remote.edits(), BLOCKING)) == [How.REUSED]
    assert hows(remote.run(remote.edits(), BLOCKING_NEW)) == [How.NEW], "asked for anew, it is made anew"


class Lists:
    """A client of which `look_up` sees the lists alone."""

    def __init__(self, rows: list[Row], active: UnexpectedReply | None = None) -> None:
        self._rows = rows
        self._active = active
        self.transport = SimpleNamespace(clock_offset=0.0)

    def active(self, **_: Any) -> Listed:
        if self._active is not None:
            raise self._active
        return Listed(())

    def history(self, *, page: int, page_size: int, **_: Any) -> History:
        rows = tuple(self._rows[(page - 1) * page_size : page * page_size])
        return History(rows, page, -(-len(self._rows) // page_size), len(self._rows), None)


@pytest.fixture
def lost(remote: Any) -> Iterator[tuple[Any, Any, Row]]:
    """A ledger, a record whose answer was lost, and the row that it became."""
    (edit,) = remote.edits()
    with remote.session() as session:
        record = session.ledger.open("key", edit.parameters, edit.input_image(), None)
        sent = {**record.parameters, "input_image": edit.input_image()}
        row = Row("lost", JobStatus.SUCCEEDED, enqueued_at=int(record.created_at), parameters=sent)
        yield session.ledger, record, row


def older(count: int, now: int) -> list[Row]:
    return [Row(f"old-{n}", JobStatus.SUCCEEDED, enqueued_at=now - 1000 * (n + 1)) for n in range(count)]


def test_a_lost_job_is_found_in_lists_of_any_order(lost: Any) -> None:
    ledger, record, row = lost
    rows = [row, *older(40, row.enqueued_at)]
    assert look_up(Lists(rows), ledger, record) == Found(row)
    assert look_up(Lists(rows[::-1]), ledger, record) == Found(row)


def test_a_lost_job_is_found_in_the_history_where_the_queue_is_too_large_to_be_read(lost: Any) -> None:
    ledger, record, row = lost
    assert look_up(Lists([row], UnexpectedReply("more than 192 MB")), ledger, record) == Found(row)


def test_cancel_during_submit_leaves_no_job_running(remote: Any) -> None:
    remote.server.hold()
    control = Control()

    def cancelled_now() -> str:
        control.interrupt()
        return str(third.input_image())

    first, second, third = remote.edits(3)
    edits = [first, second, replace(third, input_image=cancelled_now)]
    with pytest.raises(Interrupted):
        remote.run(edits, SUBMIT, control=control, max_in_flight=1)
    assert [job.status for job in remote.server.jobs.values()] == [Status.CANCELLED] * 2


@pytest.mark.usefixtures("nothing_comes_late")
def test_a_job_that_the_service_has_forgotten_says_how_to_have_it_made_anew(serve: Any) -> None:
    remote = serve(poll_missing=True, list_error=Fault(404))
    remote.run(remote.edits(), SUBMIT)
    (outcome,) = remote.run(remote.edits())
    assert isinstance(outcome.error, GenerationNotFound) and "set result to always new" in str(outcome.error)


def test_waiting_for_another_run_with_the_same_edit_ends_with_the_timeout(remote: Any) -> None:
    remote.server.hold()
    first = remote.in_thread(lambda: remote.run(remote.edits()))
    remote.server.wait_for(lambda s: len(s.jobs) == 1)
    with timed() as took:
        (outcome,) = remote.run(remote.edits(), Terms(seconds=0.5))
    assert isinstance(outcome.error, TimedOut) and took.own < 5
    remote.server.release()
    assert hows(first.result()) == [How.NEW]


def test_the_state_of_a_record_that_takes_over_an_adopted_one_is_that_ones(remote: Any) -> None:
    (edit,) = remote.edits()
    with remote.session() as session:
        ledger = session.ledger
        record = ledger.open("key", edit.parameters, edit.input_image(), None)
        adopted = ledger.collected(ledger.done(ledger.adopt("an-id"), b"picture", "png"))
        taken = ledger.sent(record, generation_id="an-id")
        assert (taken.id, taken.state, taken.prompt) == (record.id, State.DONE, record.prompt)
        assert ledger.picture(taken) == b"picture" and taken.collected_at == adopted.collected_at
        assert ledger.current(adopted) == taken
        assert [one.id for one in ledger.recent(9)] == [record.id]
