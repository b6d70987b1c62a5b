"""What is gone, and what cannot be had, is paid again by nobody but the artist, who is always told how."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.choices import WaitMode
from kontext_bridge.oxen.errors import GenerationNotFound, OxenError, ResultUnavailable, TimedOut
from kontext_bridge.oxen.jobs import doubt as doubt_module
from kontext_bridge.oxen.jobs.batch import Batch
from kontext_bridge.oxen.jobs.editor import Editor
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.oxen.jobs.order import How, Terms
from kontext_bridge.oxen.jobs.record import State
from kontext_bridge.standin import Fault
from kontext_bridge.standin.records import Status
from outcomes import hows
from patience import timed

QUICKLY = Terms(seconds=0.6)
NEW = Terms(seconds=0.6, reuse=False)
SUBMIT = Terms(seconds=0.6, submit_only=True)
BLOCKING = Terms(wait=WaitMode.BLOCKING)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch, doubt_ends_soon: None, nothing_comes_late: None) -> None:
    monkeypatch.setattr(doubt_module, "SETTLE_SECONDS", 0.3)
    monkeypatch.setattr(doubt_module, "CERTAIN_SECONDS", 0.2)


def prune(remote: Any) -> None:
    with remote.session() as session:
        assert session.ledger.prune(max_bytes=0, keep_seconds=1e9) == 1


GONE = {
    "storage 404": {"result_missing": True},
    "storage 403": {"result_expired": True},
    "storage 410": {"result_error": 410},
    "storage 401": {"result_needs_bearer": 401},
    "no address": {"no_result_url": True},
}


@pytest.mark.parametrize("gone", GONE)
def test_a_picture_that_was_handed_over_and_pruned_and_is_gone_is_not_made_anew_by_itself(
    remote: Any, gone: str
) -> None:
    (first,) = remote.run(remote.edits())
    prune(remote)
    which = first.record.generation_id
    remote.server.set(**{name: Fault(value, match=which) for name, value in GONE[gone].items()})
    for _ in range(2):
        (outcome,) = remote.run(remote.edits())
        if gone == "storage 401":  # which the key opens
            assert outcome.picture is not None
            return
        assert isinstance(outcome.error, ResultUnavailable)
        assert len(remote.server.billed) == 1
    if gone != "no address":
        assert "always new" in str(outcome.error)
    if gone in ("storage 404", "storage 410"):
        assert "gone" in str(outcome.error)
    assert hows(remote.run(remote.edits(), Terms(reuse=False))) == [How.NEW]
    assert len(remote.server.billed) == 2


@pytest.mark.parametrize("whose", ["the service's", "a gateway's"])
def test_a_job_that_is_unknown_after_its_picture_was_pruned_is_not_made_anew_by_itself(
    remote: Any, monkeypatch: Any, whose: str
) -> None:
    (first,) = remote.run(remote.edits())
    prune(remote)
    real = Client._about

    def about(self: Client, generation_id: str, *more: Any, **named: Any) -> Any:
        if generation_id != first.record.generation_id:
            return real(self, generation_id, *more, **named)
        error = GenerationNotFound("Oxen.ai knows no such generation.", status=404, generation_id=generation_id)
        error.definite = whose == "the service's"
        raise error

    monkeypatch.setattr(Client, "_about", about)
    for _ in range(2):
        (outcome,) = remote.run(remote.edits())
        assert isinstance(outcome.error, GenerationNotFound) and "always new" in str(outcome.error)
    assert len(remote.server.billed) == 1
    assert hows(remote.run(remote.edits(), Terms(reuse=False))) == [How.NEW]


def test_a_blocking_edit_whose_file_was_pruned_and_that_no_list_has_is_not_made_anew_by_itself(serve: Any) -> None:
    remote = serve(history_without_sync=True)
    remote.run(remote.edits(), BLOCKING)
    prune(remote)
    for _ in range(2):
        (outcome,) = remote.run(remote.edits(), BLOCKING)
        assert isinstance(outcome.error, ResultUnavailable) and "gone" in str(outcome.error)
        assert "always new" in str(outcome.error) and len(remote.server.billed) == 1
    assert hows(remote.run(remote.edits(), replace(BLOCKING, reuse=False))) == [How.NEW]
    assert len(remote.server.billed) == 2


UNSEEN = {
    "500": {"poll_error": True},
    "a page": {"poll_html": True},
    "reset": {"poll_reset": True},
    "refused": {"poll_unauthorized": True},
    "busy": {"poll_rate_limited": 1},
    "another's": {"row_other_id": True},
    "odd status": {"poll_odd_status": True},
}


@pytest.mark.parametrize("unseen", UNSEEN)
def test_a_job_whose_row_can_never_be_read_has_a_way_out_within_the_deadline(remote: Any, unseen: str) -> None:
    remote.server.hold()
    (sent,) = remote.run(remote.edits(), SUBMIT)
    which = sent.record.generation_id
    remote.server.set(**{name: Fault(value, match=which) for name, value in UNSEEN[unseen].items()})
    with timed() as took:
        (outcome,) = remote.run(remote.edits(), QUICKLY)
    assert outcome.error is not None and "always new" in str(outcome.error) and took.own < 5
    assert len(remote.server.billed) == 1
    remote.server.release()
    with timed() as took:
        assert hows(remote.run(remote.edits(), replace(NEW, seconds=5.0))) == [How.NEW]
    assert took.own < 15 and len(remote.server.billed) == 2
    assert hows(remote.run(remote.edits(), QUICKLY)) == [How.REUSED]


def test_a_job_that_never_ends_is_waited_for_first_and_then_cancelled_and_made_anew(remote: Any) -> None:
    remote.server.set(stuck=Fault(times=1))
    (outcome,) = remote.run(remote.edits(), QUICKLY)
    assert isinstance(outcome.error, TimedOut) and "always new" in str(outcome.error)
    assert isinstance(remote.run(remote.edits(), QUICKLY)[0].error, TimedOut) and len(remote.server.billed) == 1
    assert hows(remote.run(remote.edits(), NEW)) == [How.NEW]
    assert [job.status for job in remote.server.jobs.values()] == [Status.CANCELLED, Status.SUCCEEDED]


def test_a_job_that_ends_late_is_handed_over_where_a_new_one_is_asked_for(remote: Any) -> None:
    remote.server.hold()
    assert isinstance(remote.run(remote.edits(), QUICKLY)[0].error, TimedOut)
    remote.server.release()
    assert hows(remote.run(remote.edits(), replace(NEW, seconds=30.0))) == [How.RESUMED]
    assert len(remote.server.billed) == 1


def test_submit_pays_for_no_other_job_while_the_first_is_alive(remote: Any) -> None:
    remote.server.hold()
    (sent,) = remote.run(remote.edits(), SUBMIT)
    with remote.session() as session:
        (collected,) = Batch(session, len, QUICKLY).collect([sent.record])
    assert isinstance(collected.error, TimedOut)
    assert hows(remote.run(remote.edits(), replace(SUBMIT, reuse=False))) == [How.RESUMED]
    assert len(remote.server.billed) == 1
    remote.server.set(poll_error=Fault(match=sent.record.generation_id))
    assert hows(remote.run(remote.edits(), replace(SUBMIT, reuse=False))) == [How.NEW]


@pytest.mark.parametrize("fault", ["unauthorized", "server_error"])
def test_what_was_given_up_stays_where_the_new_one_is_not_taken(remote: Any, fault: str) -> None:
    remote.server.hold()
    (sent,) = remote.run(remote.edits(), SUBMIT)
    remote.server.set(poll_error=True)
    assert remote.run(remote.edits(), QUICKLY)[0].error is not None
    remote.server.set(**{fault: Fault(times=1)})
    assert isinstance(remote.run(remote.edits(), NEW)[0].error, OxenError)
    with remote.session() as session:
        assert session.ledger.by_id(sent.record.id).state is State.SENT
    remote.server.set(poll_error=False)
    remote.server.release()
    assert hows(remote.run(remote.edits())) == [How.RESUMED]
    assert len(remote.server.billed) == 1


@pytest.mark.parametrize("killed", ["before its answer", "after its answer"])
def test_what_a_killed_run_sent_in_place_of_a_job_that_was_given_up_is_not_paid_once_more(
    remote: Any, monkeypatch: Any, killed: str
) -> None:
    remote.server.hold()
    (sent,) = remote.run(remote.edits(), SUBMIT)
    remote.server.set(poll_error=Fault(match=sent.record.generation_id))
    assert "always new" in str(remote.run(remote.edits(), QUICKLY)[0].error)
    remote.server.release()
    kills: tuple[type, str] = (Editor, "_close_given_up")
    if killed == "before its answer":
        kills = Ledger, "sent"

    def kill(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(*kills, kill)
        remote.run(remote.edits(), NEW)
    assert len(remote.server.billed) == 2
    found = How.FOUND if killed == "before its answer" else How.RESUMED
    assert hows(remote.run(remote.edits(), replace(NEW, seconds=5.0))) == [found]
    assert hows(remote.run(remote.edits())) == [How.REUSED] and len(remote.server.billed) == 2


@pytest.mark.parametrize("fault", ["result_error", "result_truncated", "result_html"])
def test_a_picture_that_can_never_be_downloaded_has_a_way_out_once_it_is_no_passing_fault(
    remote: Any, monkeypatch: Any, fault: str
) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.jobs.results._TRIES", 1)
    remote.server.set(**{fault: True})
    (outcome,) = remote.run(remote.edits(), QUICKLY)
    assert isinstance(outcome.error, ResultUnavailable)
    # what came and cannot be read is kept, and told at once; what does not come may come yet
    assert ("always new" in str(outcome.error)) is (fault != "result_error")
    with remote.session() as session:
        hour_ago = time.time() - 3600
        session.ledger._update(session.ledger.recent(1)[0], created_at=hour_ago, left_at=hour_ago)
    (outcome,) = remote.run(remote.edits(), QUICKLY)
    assert isinstance(outcome.error, ResultUnavailable) and "always new" in str(outcome.error)
    remote.server.set(**{fault: Fault(match=outcome.error.generation_id)})
    assert hows(remote.run(remote.edits(), QUICKLY)) == [None]
    assert hows(remote.run(remote.edits(), NEW)) == [How.NEW]


def test_a_picture_of_which_the_lists_cannot_tell_is_not_said_to_be_gone(serve: Any) -> None:
    remote = serve(history_without_sync=True)
    (first,) = remote.run(remote.edits(), BLOCKING)
    prune(remote)
    remote.server.set(list_null=True)
    with remote.session() as session:
        (outcome,) = Batch(session, len, QUICKLY).collect([session.ledger.by_id(first.record.id)])
    assert isinstance(outcome.error, ResultUnavailable)
    assert "Oxen.ai cannot tell, as its" in str(outcome.error) and "again" in str(outcome.error)
