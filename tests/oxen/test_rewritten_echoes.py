"""Services that tell of a job otherwise than it was sent, so that nothing they show makes it certainly another's."""

from __future__ import annotations

from typing import Any

import pytest
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.errors import OutcomeUnknown
from kontext_bridge.oxen.jobs import doubt as doubt_module
from kontext_bridge.oxen.jobs.order import How, Terms
from kontext_bridge.standin import Fault

QUICKLY = Terms(seconds=0.6)
NEW = Terms(reuse=False)
ODD = {
    "prompt rewritten": {"list_prompt": "rewritten"},
    "prompt rewritten, picture stored": {"list_prompt": "rewritten", "list_input_image": "url"},
    "prompt rewritten, picture not shown": {"list_prompt": "rewritten", "list_input_image": "null"},
    "prompt rewritten, picture as another file": {"list_prompt": "rewritten", "list_input_image": "reencoded"},
    "prompt rewritten, time not shown": {"list_prompt": "rewritten", "list_enqueued_at": "null"},
    "prompt rewritten, model by another name": {"list_prompt": "rewritten", "list_model": "FLUX.1-Kontext [dev]"},
    "seed of its own": {"list_numbers": "seed_own"},
    "seed of its own, picture stored": {"list_numbers": "seed_own", "list_input_image": "url"},
    "model with its maker": {"list_model": True},
    "model with its maker, picture stored": {"list_model": True, "list_input_image": "url"},
    "model by a name of its own": {"list_model": "4c8e1e5a-3b0c-4a5e-9d2f-6f8f6f0f3a11", "list_input_image": "url"},
}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch, doubt_ends_soon: None) -> None:
    monkeypatch.setattr(doubt_module, "CERTAIN_SECONDS", 0.2)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("before", [False, True], ids=["first edit", "after others"])
def test_a_lost_job_that_is_listed_in_other_words_is_never_paid_again_by_itself(
    serve: Any, odd: str, before: bool
) -> None:
    remote = serve(**ODD[odd])
    if before:
        remote.run(remote.edits(2, prompt="an earlier edit", seed=100))
    billed = len(remote.server.billed)
    remote.server.set(answer_dropped=Fault(times=1))
    for _ in range(3):
        (outcome,) = remote.run(remote.edits(), QUICKLY)
        assert outcome.how in (How.FOUND, How.REUSED) or (
            isinstance(outcome.error, OutcomeUnknown) and "always new" in str(outcome.error)
        )
        assert len(remote.server.billed) == billed + 1
    if outcome.error is not None:
        assert remote.run(remote.edits(), NEW)[0].how is How.NEW


@pytest.mark.parametrize("mine", ["shown as sent", "none"])
def test_other_jobs_of_the_account_do_not_stop_a_request_that_was_never_taken(serve: Any, mine: str) -> None:
    remote = serve()
    if mine == "shown as sent":
        remote.run(remote.edits(2, prompt="an earlier edit", seed=100))
    client = Client(remote.account)
    try:
        for edit in remote.edits(5, prompt="somebody else's words", seed=500):
            client.enqueue(edit.parameters, edit.input_image())
    finally:
        client.close()
    billed = len(remote.server.billed)
    remote.server.set(server_error=Fault(504, times=1))
    assert remote.run(remote.edits(), QUICKLY)[0].error is not None
    assert remote.run(remote.edits(), Terms(seconds=5.0))[0].how is How.NEW
    assert len(remote.server.billed) == billed + 1


def test_variations_of_this_machine_that_were_taken_do_not_stop_the_one_that_was_not(serve: Any) -> None:
    remote = serve(server_error=Fault(504, times=1))
    edits = remote.edits(4)
    outcomes = remote.run(edits, Terms(seconds=5.0), max_in_flight=1)
    assert [outcome.error is None for outcome in outcomes] == [False, True, True, True]
    assert remote.run(edits, Terms(seconds=5.0))[0].how is How.NEW
    assert len(remote.server.billed) == 4


def test_lost_variations_of_this_machine_do_not_stop_the_one_that_was_not_taken(serve: Any) -> None:
    remote = serve(server_error=Fault(504, times=1), answer_dropped=True, list_error=Fault(times=8))
    edits = remote.edits(3)
    outcomes = remote.run(edits, Terms(seconds=5.0), max_in_flight=1)
    assert all(isinstance(outcome.error, OutcomeUnknown) or outcome.error.status == 504 for outcome in outcomes)
    remote.server.set(answer_dropped=False, list_error=False)
    assert [one.how for one in remote.run(edits, Terms(seconds=5.0))] == [How.NEW, How.FOUND, How.FOUND]
    assert len(remote.server.billed) == 3


def test_a_small_history_that_ignores_the_page_and_gives_no_total_is_doubt(serve: Any) -> None:
    remote = serve(list_newer=15, list_small_pages=5, list_page_ignored=True, list_entries="null", list_error=True)
    remote.server.set(answer_dropped=Fault(times=1))
    assert remote.run(remote.edits(), QUICKLY)[0].error is not None
    remote.server.wait_for(lambda s: all(job.status.terminal for job in s.jobs.values()))
    remote.server.set(list_error=False)
    for _ in range(2):
        (outcome,) = remote.run(remote.edits(), QUICKLY)
        assert isinstance(outcome.error, OutcomeUnknown) and "always new" in str(outcome.error)
    assert len(remote.server.billed) == 1
