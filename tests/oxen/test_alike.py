"""Edits that are alike and asked for anew in one run are one request, whatever becomes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from kontext_bridge.oxen.choices import WaitMode
from kontext_bridge.oxen.jobs import doubt as doubt_module
from kontext_bridge.oxen.jobs.order import Terms
from kontext_bridge.standin import Fault

QUEUE = Terms(seconds=0.6)
# an event would tell of a job whose row cannot be read
POLLING = Terms(seconds=0.6, wait=WaitMode.POLLING)
BLOCKING = Terms(seconds=0.6, wait=WaitMode.BLOCKING)
SUBMIT = Terms(seconds=0.6, submit_only=True)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch, nothing_comes_late: None) -> None:
    monkeypatch.setattr(doubt_module, "_PAUSES", (0.0,))
    monkeypatch.setattr(doubt_module, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(doubt_module, "SETTLE_SECONDS", 0.3)


def refuse(data: bytes) -> Any:
    raise ValueError("This is AVIF; PNG, JPEG, WebP and GIF are accepted.")


FATES: dict[str, tuple[Terms, dict[str, Any], bool]] = {
    "well": (QUEUE, {}, True),
    "lost": (QUEUE, {"answer_dropped": True, "list_input_image": "absent", "list_enqueued_at": "null"}, True),
    "unlisted": (BLOCKING, {"answer_dropped": True, "history_without_sync": True}, True),
    "unread": (QUEUE, {}, False),
    "unread at once": (BLOCKING, {"history_without_sync": True}, False),
    "gone": (QUEUE, {"result_missing": True}, True),
    "stuck": (QUEUE, {"stuck": True}, True),
    "unseen": (POLLING, {"poll_error": True}, True),
}


@pytest.mark.parametrize("told", [False, True], ids=["at first", "of one that was told"])
@pytest.mark.parametrize("fate", FATES)
def test_alike_edits_that_are_asked_for_anew_are_paid_once(serve: Any, fate: str, told: bool) -> None:
    terms, faults, readable = FATES[fate]
    remote = serve()
    if told:
        remote.server.set(answer_dropped=Fault(times=1), history_without_sync=True)
        remote.run(remote.edits(), replace(BLOCKING))
        remote.server.set(answer_dropped=False)
    remote.server.set(**faults)
    before = len(remote.server.billed)
    more = {} if readable else {"decode": refuse}
    remote.run(remote.edits() * 3, replace(terms, reuse=False), **more)
    assert len(remote.server.billed) == before + 1


@pytest.mark.parametrize("fate", ["unread", "gone", "unseen"])
@pytest.mark.parametrize("then", FATES)
def test_alike_edits_in_place_of_a_job_that_was_told_of_are_paid_once(serve: Any, fate: str, then: str) -> None:
    remote = serve()
    terms, faults, readable = FATES[fate]
    remote.server.set(**{name: Fault(value) for name, value in faults.items()})
    (outcome,) = remote.run(remote.edits(), terms, decode=refuse if not readable else len)
    assert "always new" in str(outcome.error)
    old = outcome.error.generation_id
    remote.server.set(**{name: Fault(value, match=old or "") for name, value in faults.items()})
    terms, faults, _ = FATES[then]
    remote.server.set(**faults)
    more = {"decode": refuse} if fate == "unread" or then.startswith("unread") else {}
    remote.run(remote.edits() * 3, replace(terms, reuse=False), **more)
    assert len(remote.server.billed) == 2


def test_what_was_told_in_this_very_run_is_not_decided_by_it(remote: Any) -> None:
    remote.server.hold()
    remote.run(remote.edits(), SUBMIT)
    remote.run(remote.edits() * 3, replace(QUEUE, reuse=False))
    assert len(remote.server.billed) == 1
