from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import pytest
from kontext_bridge.oxen.api import client as client_module
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.api.events import EventStream
from kontext_bridge.oxen.api.replies import JobStatus
from kontext_bridge.oxen.choices import WaitMode
from kontext_bridge.oxen.control import Control, Deadline
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.errors import (
    GenerationCancelled,
    GenerationFailed,
    GenerationNotFound,
    Interrupted,
    JobOutOfCredits,
    ModerationBlocked,
    OxenError,
    RateLimited,
    TimedOut,
    Unauthenticated,
)
from kontext_bridge.oxen.jobs import waiting
from kontext_bridge.oxen.jobs.order import How, Terms
from kontext_bridge.oxen.jobs.waiting import wait_for_row
from kontext_bridge.standin import Fault, Timing
from patience import PATIENCE, timed

POLLING = Terms(wait=WaitMode.POLLING)


@pytest.fixture
def client(remote: Any) -> Any:
    client = Client(remote.account)
    yield client
    client.close()


def submit(remote: Any, client: Client) -> str:
    edit = remote.edits()[0]
    return client.enqueue(edit.parameters, edit.input_image())


def test_an_event_that_comes_before_the_enqueues_answer_is_not_missed(serve: Any) -> None:
    remote = serve(event_before_answer=True)
    control = Control()
    client = Client(remote.account, control)
    with EventStream(client.transport) as stream:
        assert control.wait_for(lambda: stream.connected, PATIENCE)
        job = submit(remote, client)
        assert control.wait_for(lambda: stream.get(job) is not None, PATIENCE)
        before = remote.count("row")
        assert wait_for_row(client, job, Deadline(PATIENCE), stream=stream).status is JobStatus.SUCCEEDED
    assert (before, remote.count("row")) == (0, 1), "the event says that it is time to look, so one look is enough"
    client.close()


@pytest.mark.parametrize(
    "fault",
    [
        "events_unauthorized",
        "events_error",
        "events_html",
        "events_silent",
        "events_cut",
        "events_closed",
        "events_lost",
        "events_never_answers",
    ],
)
def test_without_usable_events_polling_still_ends_the_wait(serve: Any, monkeypatch: Any, fault: str) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.jobs.batch._SUBSCRIBE_SECONDS", 0.2)
    remote = serve(**{fault: True})
    outcome = remote.run(remote.edits())[0]
    assert outcome.how is How.NEW and outcome.picture is not None
    assert len(remote.server.billed) == 1


@pytest.mark.parametrize(
    "faults",
    [
        {"events_foreign": True},
        {"events_someone_else": True},
        {"events_twice": True},
        {"events_crlf": True},
        {"events_bytewise": True},
        {"events_foreign": True, "events_someone_else": True, "events_crlf": True, "events_bytewise": True},
    ],
    ids=lambda faults: " ".join(faults),
)
def test_an_event_among_others_and_in_any_dress_makes_one_look_enough(
    serve: Any, monkeypatch: Any, faults: dict[str, Any]
) -> None:
    # no look is due before the test gives up, so that only the event can have made one
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 2 * PATIENCE)
    monkeypatch.setattr("kontext_bridge.oxen.jobs.batch._SUBSCRIBE_SECONDS", PATIENCE)
    remote = serve(timing=Timing(queued_s=0.0, processing_s=0.02), event_before_answer=True, **faults)
    with timed() as took:
        assert remote.run(remote.edits())[0].picture is not None
    assert took.seconds < PATIENCE and remote.count("row") == 1


def test_an_event_that_is_ahead_of_the_row_is_not_believed_until_the_row_agrees(serve: Any) -> None:
    remote = serve(events_early=True)
    remote.server.hold()
    running = remote.in_thread(lambda: remote.run(remote.edits()))
    remote.server.wait_for(lambda s: remote.count("row"))
    remote.server.release()
    assert running.result()[0].picture is not None
    seen = [r.arrived for r in remote.server.requests if r.route == "row"]
    job = next(iter(remote.server.jobs.values()))
    assert seen[0] < job.completed_at < seen[-1]


def test_a_refused_subscription_is_not_repeated_at_every_poll(serve: Any) -> None:
    remote = serve(events_unauthorized=True)
    remote.server.hold()
    running = remote.in_thread(lambda: remote.run(remote.edits()))
    remote.server.wait_for(lambda s: remote.count("row") >= 4)
    remote.server.release()
    assert running.result()[0].picture is not None
    assert remote.count("events") == 1


def test_a_stream_that_says_nothing_is_dropped_and_opened_anew(serve: Any) -> None:
    remote = serve(events_silent=Fault(times=1))
    transport = remote.transport()
    with EventStream(transport, silent_seconds=0.15):
        remote.server.wait_for(lambda s: remote.count("events") >= 2)


def test_closing_a_stream_ends_its_connection(remote: Any) -> None:
    transport = remote.transport()
    with EventStream(transport) as stream:
        assert transport.control.wait_for(lambda: stream.connected, PATIENCE)
        remote.server.wait_for(lambda s: s.streams == 1)
    remote.server.wait_for(lambda s: s.streams == 0)


def test_a_job_is_looked_at_no_more_often_than_the_ramp_allows_and_on_one_connection(serve: Any) -> None:
    remote = serve()
    remote.server.hold()
    running = remote.in_thread(lambda: remote.run(remote.edits(), POLLING))
    remote.server.wait_for(lambda s: remote.count("row") >= 4)
    remote.server.release()
    assert running.result()[0].picture is not None
    requests = remote.server.requests
    sent = next(request.arrived for request in requests if request.route == "enqueue")
    looks = [request.arrived - sent for request in requests if request.route == "row"]
    pauses = [min(0.25 * 1.3**n, 2.0) for n in range(len(looks))]
    assert len(looks) >= 4
    for look, due in zip(looks, accumulate(pauses), strict=True):
        assert look >= due - 0.02
    assert remote.server.connections == 1
    assert {request.connection for request in requests} == {1}


def test_every_row_on_the_way_is_told(remote: Any, client: Client) -> None:
    remote.server.hold("processing")
    rows = []
    job = submit(remote, client)

    def on_row(row: Any) -> None:
        rows.append(row.status)
        remote.server.release()

    wait_for_row(client, job, Deadline(PATIENCE), on_row=on_row)
    assert rows[0] in {JobStatus.QUEUED, JobStatus.PROCESSING} and rows[-1] is JobStatus.SUCCEEDED


@pytest.mark.parametrize("fault", ["poll_error", "poll_html", "poll_reset", "poll_odd_status", "poll_deep_json"])
def test_looks_that_fail_now_and_then_do_not_end_the_wait(serve: Any, fault: str) -> None:
    remote = serve(**{fault: Fault(times=2)})
    assert remote.run(remote.edits(), POLLING)[0].picture is not None
    assert remote.server.shown[fault] == 2


def test_looks_that_fail_for_longer_than_an_outage_end_the_wait_with_the_job_alive(
    serve: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(waiting, "_OUTAGE_SECONDS", 0.3)
    remote = serve(poll_error=True)
    outcome = remote.run(remote.edits(), POLLING)[0]
    assert outcome.error is not None and outcome.error.status == 500
    remote.server.set(poll_error=None)
    assert remote.run(remote.edits(), POLLING)[0].how is How.RESUMED
    assert len(remote.server.billed) == 1


def test_a_404_for_a_live_id_is_looked_up_in_the_history_and_tolerated(serve: Any) -> None:
    remote = serve(poll_missing=Fault(times=2))
    assert remote.run(remote.edits(), POLLING)[0].picture is not None


def test_an_id_that_neither_queue_nor_history_knows_is_tolerated_for_a_while_and_then_named(
    remote: Any, client: Client
) -> None:
    with pytest.raises(
        GenerationNotFound, match=r"knows no such generation\. Check the id.*Generation no-such-id\.$"
    ) as raised:
        wait_for_row(client, "no-such-id", Deadline(PATIENCE))
    assert raised.value.generation_id == "no-such-id"
    assert remote.count("row") == 4


def test_a_key_that_is_refused_on_the_way_ends_the_wait_at_once(serve: Any) -> None:
    remote = serve(poll_unauthorized=Fault(after=1))
    remote.server.hold()
    outcome = remote.run(remote.edits(), POLLING)[0]
    assert isinstance(outcome.error, Unauthenticated)
    assert remote.count("row") == 2


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ({"run_fails": "the worker died"}, GenerationFailed, "the worker died"),
        ({"run_moderated": True}, ModerationBlocked, "Change the prompt or the picture"),
        ({"run_out_of_credits": True}, JobOutOfCredits, "Add credits"),
    ],
)
def test_a_job_that_failed_says_why_with_its_id(serve: Any, fault: dict[str, Any], kind: type, words: str) -> None:
    remote = serve(**fault)
    outcome = remote.run(remote.edits())[0]
    assert type(outcome.error) is kind
    assert words in str(outcome.error)
    assert next(iter(remote.server.jobs)) in str(outcome.error)


def test_a_job_cancelled_elsewhere_ends_the_wait_and_the_next_run_starts_it_anew(serve: Any) -> None:
    remote = serve(stuck=Fault(times=1))
    running = remote.in_thread(lambda: remote.run(remote.edits()))
    remote.server.wait_for(lambda s: s.shown["stuck"])
    other = Client(remote.account)
    other.cancel(next(iter(remote.server.jobs)))
    other.close()
    assert isinstance(running.result()[0].error, GenerationCancelled)
    assert remote.run(remote.edits())[0].how is How.NEW


def test_the_deadline_leaves_the_job_alive_and_the_next_run_goes_on_with_it(serve: Any) -> None:
    remote = serve()
    remote.server.hold()
    outcome = remote.run(remote.edits(), Terms(seconds=0.3))[0]
    assert isinstance(outcome.error, TimedOut)
    job = next(iter(remote.server.jobs.values()))
    assert job.id in str(outcome.error) and "not paid a second time" in str(outcome.error)
    assert job.status.value == "processing"
    remote.server.release()
    again = remote.run(remote.edits())[0]
    assert (again.how, again.record.generation_id) == (How.RESUMED, job.id)
    assert len(remote.server.billed) == 1 and remote.count("cancel") == 0


@pytest.mark.parametrize("mode", [WaitMode.EVENTS, WaitMode.POLLING])
def test_cancelling_a_run_cancels_every_job_of_it_at_the_service(serve: Any, mode: WaitMode) -> None:
    remote = serve()
    remote.server.hold()
    control = Control()
    running = remote.in_thread(lambda: remote.run(remote.edits(3), Terms(wait=mode), control=control))
    remote.server.wait_for(lambda s: len(s.jobs) == 3)
    control.interrupt()
    with pytest.raises(Interrupted):
        running.result()
    assert {job.status.value for job in remote.server.jobs.values()} == {"cancelled"}
    remote.server.release()
    assert [o.how for o in remote.run(remote.edits(3))] == [How.NEW] * 3


def test_a_run_that_is_only_dropped_leaves_its_job_alive(serve: Any) -> None:
    remote = serve()
    remote.server.hold()
    control = Control()
    running = remote.in_thread(lambda: remote.run(remote.edits(), control=control))
    remote.server.wait_for(lambda s: remote.count("row"))
    control.detach()
    with pytest.raises(Interrupted):
        running.result()
    assert [job.status.value for job in remote.server.jobs.values()] == ["processing"]
    remote.server.release()
    assert remote.run(remote.edits())[0].how is How.RESUMED
    assert len(remote.server.billed) == 1


def test_a_cancel_that_comes_too_late_keeps_the_picture_that_was_paid_for(serve: Any) -> None:
    remote = serve(cancel_loses=True)
    remote.server.hold()
    control = Control()
    running = remote.in_thread(lambda: remote.run(remote.edits(), control=control))
    remote.server.wait_for(lambda s: remote.count("row"))
    control.interrupt()
    with pytest.raises(Interrupted):
        running.result()
    before = len(remote.server.requests)
    outcome = remote.run(remote.edits())[0]
    assert outcome.picture is not None and len(remote.server.requests) == before
    assert len(remote.server.billed) == 1


def test_a_job_that_ends_while_its_looks_may_not_be_made_is_noticed_by_its_event(serve: Any) -> None:
    remote = serve(poll_rate_limited=Fault(2 * PATIENCE, times=1))
    remote.server.hold()
    with timed() as took:
        running = remote.in_thread(lambda: remote.run(remote.edits()))
        remote.server.wait_for(lambda s: s.shown["poll_rate_limited"])
        remote.server.release()
        assert running.result()[0].picture is not None
    assert took.own < 5
    assert remote.server.shown["poll_rate_limited"] == 1


@pytest.mark.parametrize("fault", [{"poll_rate_limited": 30}, {"poll_never_answers": True}], ids=["429", "hangs"])
def test_the_deadline_is_kept_where_the_service_does_not_say_how_a_job_stands(serve: Any, fault: Any) -> None:
    remote = serve(**fault)
    with timed() as took:
        outcome = remote.run(remote.edits(), Terms(wait=WaitMode.POLLING, seconds=1.5))[0]
    assert isinstance(outcome.error, TimedOut)
    assert took.own < 5


def test_no_look_is_made_sooner_than_the_service_asks(serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(waiting, "_OUTAGE_SECONDS", 0.1)  # which a busy service is not
    remote = serve(poll_rate_limited=Fault(0.7, times=2))
    assert remote.run(remote.edits(), POLLING)[0].picture is not None
    looks = [request.arrived for request in remote.server.requests if request.route == "row"]
    assert len(looks) == 3 and all(later - earlier >= 0.69 for earlier, later in pairwise(looks))


def test_a_service_that_answers_429_for_ever_has_the_events_believed(serve: Any) -> None:
    remote = serve(timing=Timing(queued_s=0.0, processing_s=0.5), poll_rate_limited=30)
    with timed() as took:
        assert remote.run(remote.edits())[0].picture is not None
    assert took.own < 5


def test_an_impatient_question_about_the_past_is_asked_once(scripted: Any) -> None:
    server = scripted(b"HTTP/1.1 429 Busy\r\nRetry-After: 30\r\nContent-Length: 2\r\n\r\n{}")
    client = Client(Account(server.url, "k"))
    with pytest.raises(RateLimited):
        client.past("an-id", patient=False)
    client.close()
    assert len(server.received) == 1


def test_an_impatient_question_does_not_wait_for_a_service_that_says_nothing(serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(client_module, "_IMPATIENT_SECONDS", 0.2)
    remote = serve(poll_never_answers=Fault(route="generation"))
    client = Client(remote.account)
    with timed() as took, pytest.raises(OxenError):
        client.past("an-id", patient=False)
    client.close()
    assert took.own < 2
