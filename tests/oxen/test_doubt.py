"""Requests whose outcome is unknown: nothing is paid a second time unless it is certain that the first was none."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.choices import WaitMode
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.errors import (
    GenerationNotFound,
    InvalidParameters,
    LocalTrouble,
    OutcomeUnknown,
    OxenError,
    Unauthenticated,
    UnexpectedReply,
)
from kontext_bridge.oxen.http import transport as transport_module
from kontext_bridge.oxen.jobs import doubt as doubt_module
from kontext_bridge.oxen.jobs import finishing as finishing_module
from kontext_bridge.oxen.jobs import ledger as ledger_module
from kontext_bridge.oxen.jobs import sending as sending_module
from kontext_bridge.oxen.jobs.order import How, Terms
from kontext_bridge.oxen.jobs.record import State, request_key
from kontext_bridge.standin import Fault, Timing
from outcomes import errors, hows

pytestmark = pytest.mark.usefixtures("doubt_ends_soon")
QUICKLY = Terms(seconds=0.6)
NEW = Terms(reuse=False)
BLOCKING = Terms(wait=WaitMode.BLOCKING)


def cut_off(
    remote: Any,
    edit: Any,
    *,
    departed: bool,
    clock_offset: float | None = 0.0,
    uploading: float = 0.0,
    sent_by: str | None = None,
) -> int:
    """Leave the record of a run that was killed while it sent this edit."""
    key = request_key(remote.account.base_url, edit.parameters, edit.pixels)
    with remote.session() as session:
        record = session.ledger.open(
            key, edit.parameters, edit.input_image(), None, clock_offset=clock_offset, sent_by=sent_by
        )
        if departed:
            session.ledger.leaving(record)
        record_id = int(record.id)
    with closing(sqlite3.connect(remote.home / "ledger.sqlite3")) as database, database:
        database.execute("UPDATE jobs SET created_at = created_at - ? WHERE id = ?", (uploading, record_id))
    return record_id


def test_a_run_that_was_killed_before_the_last_block_was_out_is_simply_sent_again(remote: Any) -> None:
    (edit,) = remote.edits()
    cut_off(remote, edit, departed=False)
    assert hows(remote.run([edit])) == [How.NEW]
    assert remote.count("history") == 0 and len(remote.server.billed) == 1


def test_a_request_is_in_doubt_only_from_its_last_block_on(remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    (edit,) = remote.edits()
    with remote.session() as session:
        ledger = session.ledger
        leaving = ledger.leaving

        def noted(record: Any) -> None:
            seen.append(ledger.by_id(record.id).departed or bool(remote.server.requests[-1].route == "enqueue"))
            leaving(record)

        monkeypatch.setattr(type(ledger), "leaving", lambda self, record: noted(record))
        session.client.transport.control.check()
        remote.run([edit])
    assert seen == [False]


def test_a_request_that_is_not_listed_yet_is_an_error_and_sent_again_only_when_that_is_certain(
    remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (edit,) = remote.edits()
    cut_off(remote, edit, departed=True)
    (outcome,) = remote.run([edit], QUICKLY)
    assert isinstance(outcome.error, OutcomeUnknown) and "60 s after" in str(outcome.error)
    assert "always new" in str(outcome.error) and not remote.server.billed
    monkeypatch.setattr(doubt_module, "CERTAIN_SECONDS", 0.4)
    assert hows(remote.run([edit], QUICKLY)) == [How.NEW]
    assert len(remote.server.billed) == 1


def test_a_job_that_is_listed_late_is_found_in_the_same_run(serve: Any) -> None:
    remote = serve(answer_dropped=Fault(times=1), list_lags=600)
    assert errors(remote.run(remote.edits())) == [OutcomeUnknown]
    looks = remote.count("history")
    running = remote.in_thread(lambda: remote.run(remote.edits()))
    remote.server.wait_for(lambda s: remote.count("history") > looks + 1)
    remote.server.set(list_lags=False)
    assert hows(running.result()) == [How.FOUND]
    assert len(remote.server.billed) == 1


def test_a_large_request_over_a_slow_line_is_as_old_as_its_last_block(serve: Any) -> None:
    """It was opened minutes before the service had it, and that service lists it a while after."""
    remote = serve(list_lags=600)
    (edit,) = remote.edits()
    cut_off(remote, edit, departed=True, uploading=300.0)
    client = Client(remote.account)
    client.enqueue(edit.parameters, edit.input_image())
    client.close()
    (outcome,) = remote.run([edit], QUICKLY)
    assert isinstance(outcome.error, OutcomeUnknown) and "360 s after it was sent" in str(outcome.error)
    assert len(remote.server.billed) == 1
    remote.server.set(list_lags=False)
    assert hows(remote.run([edit])) == [How.FOUND]


@pytest.mark.parametrize("end", ["answer given up", "killed"])
def test_a_request_that_a_line_held_up_is_as_old_as_the_end_of_its_run(serve: Any, monkeypatch: Any, end: str) -> None:
    """Its last block went into a line that was down; when that was up again the service had it, and lists it late."""
    monkeypatch.setattr(doubt_module, "_HELD_SECONDS", 120.0)
    remote = serve(list_lags=600)
    enqueue = Client.enqueue

    def held_up(self: Client, *asked: Any, before_last: Any) -> str:
        before_last()
        with closing(sqlite3.connect(remote.home / "ledger.sqlite3")) as database, database:
            database.execute("UPDATE jobs SET created_at = created_at - 70, left_at = left_at - 70")
        enqueue(self, *asked)
        if end == "killed":
            raise KeyboardInterrupt
        raise OutcomeUnknown("The connection broke after the request was sent.")

    monkeypatch.setattr(Client, "enqueue", held_up)
    if end == "killed":
        with pytest.raises(KeyboardInterrupt):
            remote.run(remote.edits())
    else:
        assert errors(remote.run(remote.edits())) == [OutcomeUnknown]
    monkeypatch.setattr(Client, "enqueue", enqueue)
    (outcome,) = remote.run(remote.edits(), QUICKLY)
    assert isinstance(outcome.error, OutcomeUnknown) and len(remote.server.billed) == 1
    assert f"{180 if end == 'killed' else 130} s after it was sent" in str(outcome.error)
    remote.server.set(list_lags=False)
    assert hows(remote.run(remote.edits())) == [How.FOUND]


def test_what_another_keys_lists_do_not_show_may_be_in_the_lists_of_the_key_that_it_was_sent_with(
    remote: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(doubt_module, "CERTAIN_SECONDS", 0.0)
    (edit,) = remote.edits()
    record_id = cut_off(remote, edit, departed=True, sent_by=Account(remote.account.base_url, "another").mark)
    for _ in range(2):
        (outcome,) = remote.run([edit], QUICKLY)
        assert isinstance(outcome.error, OutcomeUnknown) and "another API key" in str(outcome.error)
        assert "always new" in str(outcome.error) and not remote.server.billed
    with closing(sqlite3.connect(remote.home / "ledger.sqlite3")) as database, database:
        database.execute("UPDATE jobs SET sent_by = ? WHERE id = ?", (remote.account.mark, record_id))
    assert hows(remote.run([edit])) == [How.NEW]
    with remote.session() as session:
        assert session.ledger.recent(1)[0].sent_by == remote.account.mark != remote.account.key


def test_a_job_that_another_key_does_not_know_is_not_given_up_before_the_artist_is_told(
    remote: Any, nothing_comes_late: None
) -> None:
    (edit,) = remote.edits()
    record_id = cut_off(remote, edit, departed=True, sent_by=Account(remote.account.base_url, "another").mark)
    with remote.session() as session:
        session.ledger.sent(session.ledger.by_id(record_id), generation_id="a-job-of-the-other-account")
    (outcome,) = remote.run([edit], NEW)
    assert isinstance(outcome.error, GenerationNotFound) and "always new" in str(outcome.error)
    assert not remote.server.billed
    assert hows(remote.run([edit], NEW)) == [How.NEW] and len(remote.server.billed) == 1


@pytest.mark.parametrize("departs", [False, True], ids=["before its last block", "after it"])
def test_where_the_locks_of_a_run_under_way_are_removed_one_of_two_runs_sends_nothing(
    serve: Any, monkeypatch: Any, departs: bool
) -> None:
    remote = serve(list_lags=600)
    monkeypatch.setattr(doubt_module, "CERTAIN_SECONDS", 0.0)
    enqueue, others = Client.enqueue, []

    def slow(self: Client, *asked: Any, before_last: Any) -> str:
        monkeypatch.setattr(Client, "enqueue", enqueue)

        def another_run_begins() -> None:
            shutil.rmtree(remote.home / "locks")
            others.extend(remote.run(remote.edits(), QUICKLY))

        def last() -> None:
            if not departs:
                another_run_begins()
            before_last()

        taken = enqueue(self, *asked, before_last=last)
        if departs:
            with remote.session() as session:
                session.ledger.sent(session.ledger.recent(1)[0], generation_id=taken)
            another_run_begins()
        return taken

    monkeypatch.setattr(Client, "enqueue", slow)
    outcomes = remote.run(remote.edits())
    assert len(remote.server.billed) == 1
    if departs:
        assert hows(outcomes) == [How.NEW] and others[0].how in (How.RESUMED, How.REUSED)
    else:
        assert errors(outcomes) == [LocalTrouble] and hows(others) == [How.NEW]
        assert "nothing was paid for it" in str(outcomes[0].error)
    assert len(hows(remote.run(remote.edits()))) == len(remote.server.billed) == 1


@pytest.mark.parametrize("corrected", [7200.0, 400.0, -7200.0, 1e8])
@pytest.mark.parametrize("known", [True, False], ids=["service's time known", "not known"])
def test_a_clock_that_was_corrected_between_two_runs_makes_nothing_certain(
    serve: Any, monkeypatch: pytest.MonkeyPatch, corrected: float, known: bool
) -> None:
    remote = serve(list_lags=2.0)
    (edit,) = remote.edits()
    cut_off(remote, edit, departed=True, clock_offset=0.0 if known else None)
    client = Client(remote.account)
    client.enqueue(edit.parameters, edit.input_image())
    client.close()
    wrong = SimpleNamespace(
        time=lambda: time.time() + corrected,
        monotonic=time.monotonic,
        localtime=time.localtime,
        strftime=time.strftime,
    )
    for module in (finishing_module, doubt_module, ledger_module, transport_module):
        monkeypatch.setattr(module, "time", wrong)
    assert hows(remote.run([edit], Terms(seconds=8.0))) == [How.FOUND]
    assert len(remote.server.billed) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 408, 409, 413, 425, 429, 499])
def test_what_a_gateway_says_of_a_paid_request_is_looked_up_first(serve: Any, status: int) -> None:
    remote = serve(answer_error=Fault(status, times=1))
    assert hows(remote.run(remote.edits())) == [How.FOUND]
    assert len(remote.server.billed) == 1


def test_a_gateway_that_turned_a_request_away_for_the_moment_is_tried_again(serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sending_module, "_BUSY_PAUSE", 0.05)
    remote = serve(server_error=Fault(429, times=2))
    assert hows(remote.run(remote.edits())) == [How.NEW]
    assert len(remote.server.billed) == 1 and remote.count("enqueue") == 3


def test_a_request_that_a_gateway_turned_away_is_looked_up_once_more_before_it_is_sent_again(
    serve: Any, monkeypatch: Any
) -> None:
    """A gateway may say so of a request that it passed on, and the service list it some seconds later."""
    monkeypatch.setattr(sending_module, "_BUSY_PAUSE", 0.6)
    remote = serve(answer_error=Fault(429, times=1), list_lags=0.5)
    assert hows(remote.run(remote.edits())) == [How.FOUND]
    assert len(remote.server.billed) == 1


@pytest.mark.parametrize(("status", "again"), [(413, How.NEW), (400, None), (409, None), (499, None)])
def test_after_a_gateways_refusal_the_next_run_sends_only_what_certainly_was_turned_away(
    serve: Any, status: int, again: How | None
) -> None:
    remote = serve(server_error=Fault(status, times=1))
    (outcome,) = remote.run(remote.edits())
    assert isinstance(outcome.error, OxenError) and outcome.error.status == status
    assert hows(remote.run(remote.edits(), QUICKLY if again is None else Terms())) == [again]


def test_a_gateway_that_forbids_may_have_passed_the_request_on_and_kept_the_answer(serve: Any) -> None:
    remote = serve(answer_error=Fault(403, times=1), list_lags=600)
    (outcome,) = remote.run(remote.edits())
    assert isinstance(outcome.error, Unauthenticated) and "lists no job" in str(outcome.error)
    assert errors(remote.run(remote.edits(), QUICKLY)) == [OutcomeUnknown] and len(remote.server.billed) == 1
    remote.server.set(list_lags=False)
    assert hows(remote.run(remote.edits())) == [How.FOUND]


def test_a_look_up_that_does_not_get_through_is_not_said_to_have_found_nothing(serve: Any) -> None:
    remote = serve(answer_dropped=Fault(times=1), list_error=True)
    for _ in range(2):
        (outcome,) = remote.run(remote.edits(), QUICKLY)
        assert "could not be asked" in str(outcome.error) and "lists no job" not in str(outcome.error)
    assert len(remote.server.billed) == 1


def test_always_new_is_a_way_out_also_where_the_lists_cannot_be_read(serve: Any) -> None:
    remote = serve(answer_dropped=Fault(times=1), list_error=True)
    assert errors(remote.run(remote.edits(), QUICKLY)) == [OutcomeUnknown]
    assert hows(remote.run(remote.edits(), NEW)) == [How.NEW]
    assert len(remote.server.billed) == 2


def test_always_new_pays_for_no_doubt_that_the_artist_was_never_told_of(serve: Any) -> None:
    remote = serve(history_without_sync=True)
    (edit,) = remote.edits()
    key = request_key(remote.account.base_url, edit.parameters, edit.pixels)
    with remote.session() as session:
        record = session.ledger.open(key, edit.parameters, edit.input_image(), None, blocking=True)
        session.ledger.leaving(record)
    assert errors(remote.run([edit], Terms(reuse=False, wait=WaitMode.BLOCKING))) == [OutcomeUnknown]
    assert hows(remote.run([edit], Terms(reuse=False, wait=WaitMode.BLOCKING))) == [How.NEW]
    assert len(remote.server.billed) == 1


def test_a_doubtful_job_is_named_and_collected_without_paying(serve: Any, monkeypatch: Any) -> None:
    remote = serve(answer_dropped=Fault(times=1))
    real = Client.history
    shown = {"input_image": "https://hub.oxen.ai/stored.png"}

    def altered(rows: Any) -> Any:
        return tuple(replace(row, parameters={**row.parameters, **shown}) for row in rows)

    monkeypatch.setattr(Client, "history", lambda self, **k: replace(h := real(self, **k), rows=altered(h.rows)))
    active = Client.active
    monkeypatch.setattr(Client, "active", lambda self, **k: replace(q := active(self, **k), rows=altered(q.rows)))
    (outcome,) = remote.run(remote.edits())
    (job,) = remote.server.jobs
    assert isinstance(outcome.error, OutcomeUnknown) and job in str(outcome.error)
    assert errors(remote.run(remote.edits(), QUICKLY)) == [OutcomeUnknown]
    assert len(remote.server.billed) == 1


def test_a_generation_that_is_another_edits_already_is_not_believed(remote: Any, monkeypatch: Any) -> None:
    (first,) = remote.run(remote.edits())
    other = remote.edits(prompt="another")
    monkeypatch.setattr(Client, "enqueue", lambda *_, **__: first.record.generation_id)
    (outcome,) = remote.run(other)
    assert isinstance(outcome.error, UnexpectedReply) and "another edit" in str(outcome.error)
    assert outcome.picture is None


def test_a_row_of_another_generation_is_never_believed(remote: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.jobs.waiting._OUTAGE_SECONDS", 0.2)
    (first,) = remote.run(remote.edits())
    about = Client._about

    def astray(self: Client, generation_id: str, method: str, path: str, *more: Any) -> Any:
        return about(self, first.record.generation_id if method == "GET" else generation_id, method, path, *more)

    monkeypatch.setattr(Client, "_about", astray)
    (outcome,) = remote.run(remote.edits(prompt="another"), Terms(wait=WaitMode.POLLING))
    assert isinstance(outcome.error, UnexpectedReply) and "answered with another" in str(outcome.error)


@pytest.mark.parametrize("status", ["Succeeded", "SUCCEEDED "])
def test_a_status_in_another_case_is_that_status(remote: Any, monkeypatch: Any, status: str) -> None:
    monkeypatch.setattr("kontext_bridge.standin.records.Status.SUCCEEDED._value_", status)
    assert hows(remote.run(remote.edits())) == [How.NEW]


def test_a_status_that_no_document_lists_is_waited_for_until_the_deadline(serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.jobs.waiting._OUTAGE_SECONDS", 0.1)
    remote = serve(timing=Timing(queued_s=0.0, processing_s=1.2), poll_odd_status=Fault("starting", times=4))
    assert hows(remote.run(remote.edits(), Terms(wait=WaitMode.POLLING))) == [How.NEW]


@pytest.mark.parametrize("fault", ["result_missing", "result_expired"])
def test_a_picture_that_is_there_some_seconds_late_is_waited_for(serve: Any, fault: str) -> None:
    remote = serve(**{fault: Fault(times=4)})
    assert hows(remote.run(remote.edits())) == [How.NEW]
    assert remote.server.shown[fault] == 4


def test_a_row_that_is_unknown_for_some_seconds_is_waited_for(serve: Any) -> None:
    remote = serve(poll_missing=Fault(times=12))
    assert hows(remote.run(remote.edits(), Terms(wait=WaitMode.POLLING))) == [How.NEW]
    assert len(remote.server.billed) == 1


def test_a_row_of_a_request_that_a_line_held_up_is_waited_for_by_the_next_run_as_well(serve: Any) -> None:
    """Or the job would be given up as unknown there, and another paid in its place."""
    remote = serve(row_late=3.0)
    remote.run(remote.edits(), Terms(submit_only=True))
    with closing(sqlite3.connect(remote.home / "ledger.sqlite3")) as database, database:
        database.execute("UPDATE jobs SET created_at = created_at - 70, left_at = left_at - 70")
    assert hows(remote.run(remote.edits(), NEW)) == [How.RESUMED]
    assert len(remote.server.billed) == 1


def test_a_definite_refusal_is_not_in_doubt(serve: Any) -> None:
    remote = serve(error_text=Fault(times=1))
    assert errors(remote.run(remote.edits())) == [InvalidParameters]
    with remote.session() as session:
        assert [record.state for record in session.ledger.recent(9)] == [State.REFUSED]
    assert hows(remote.run(remote.edits())) == [How.NEW]
