"""Odd services and odd states: every error names a way out that works, and what is paid for is handed over."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from kontext_bridge.oxen.api import client as client_module
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.api.replies import read_edit
from kontext_bridge.oxen.choices import WaitMode
from kontext_bridge.oxen.errors import GenerationFailed, GenerationNotFound, ModerationBlocked, ResultUnavailable
from kontext_bridge.oxen.http.envelope import parse_json
from kontext_bridge.oxen.http.transport import Reply
from kontext_bridge.oxen.jobs import finishing as finishing_module
from kontext_bridge.oxen.jobs.batch import Batch
from kontext_bridge.oxen.jobs.order import How, Terms
from kontext_bridge.oxen.jobs.record import State, request_key
from kontext_bridge.standin import Fault
from outcomes import errors, hows

pytestmark = pytest.mark.usefixtures("doubt_ends_soon", "nothing_comes_late")
QUICKLY = Terms(seconds=0.6)
NEW = Terms(reuse=False, seconds=2.0)
BLOCKING = Terms(wait=WaitMode.BLOCKING)


def killed_while_sending(remote: Any, edit: Any, *, blocking: bool = False) -> None:
    key = request_key(remote.account.base_url, edit.parameters, edit.pixels)
    with remote.session() as session:
        record = session.ledger.open(
            key, edit.parameters, edit.input_image(), None, clock_offset=0.0, blocking=blocking
        )
        session.ledger.leaving(record)


@pytest.mark.parametrize("blocking", [False, True])
def test_always_new_is_a_way_out_after_a_kill_where_the_lists_can_never_be_read(serve: Any, blocking: bool) -> None:
    remote = serve(list_error=True)
    (edit,) = remote.edits()
    killed_while_sending(remote, edit, blocking=blocking)
    (outcome,) = remote.run([edit], QUICKLY)
    assert "always new" in str(outcome.error) and not remote.server.billed
    assert hows(remote.run([edit], NEW)) == [How.NEW]
    assert len(remote.server.billed) == 1


def test_always_new_is_a_way_out_for_a_picture_that_could_not_be_kept_where_the_lists_cannot_be_read(
    serve: Any,
) -> None:
    remote = serve(list_error=True)
    (edit,) = remote.edits()
    killed_while_sending(remote, edit, blocking=True)
    with remote.session() as session:
        session.ledger.came(session.ledger.recent(1)[0])
    (outcome,) = remote.run([edit], QUICKLY)
    assert "always new" in str(outcome.error) and not remote.server.billed
    assert hows(remote.run([edit], NEW)) == [How.NEW]


def test_an_expired_address_of_a_blocking_edit_says_that_it_is_paid_where_the_lists_cannot_be_read(
    serve: Any,
) -> None:
    remote = serve(url_though_b64=True, result_expired=True, list_error=True)
    (outcome,) = remote.run(remote.edits(), BLOCKING)
    assert isinstance(outcome.error, ResultUnavailable) and "paid for" in str(outcome.error)
    assert "always new" in str(outcome.error)
    remote.server.set(url_though_b64=None)
    assert hows(remote.run(remote.edits(), replace(NEW, wait=WaitMode.BLOCKING))) == [How.NEW]
    assert len(remote.server.billed) == 2


def test_a_gateways_429_that_speaks_of_safety_is_no_python_error(remote: Any, monkeypatch: Any) -> None:
    def flagged(*_: Any, before_last: Any = None, **__: Any) -> Any:
        before_last()
        raise ModerationBlocked("Your address was flagged.", status=429)

    monkeypatch.setattr(Client, "enqueue", flagged)
    assert errors(remote.run(remote.edits())) == [ModerationBlocked]


@pytest.mark.parametrize("half", [rb"\\ud83d", b"\xed\xa0\xbd"], ids=["escaped", "bytes"])
def test_half_a_character_in_what_the_service_says_is_no_python_error(
    remote: Any, monkeypatch: Any, half: bytes
) -> None:
    def about(self: Client, generation_id: str, *_: Any) -> Any:
        body = b'{"generation_id": "%s", "status": "failed", "error_message": "cut %s"}' % (
            generation_id.encode(),
            half,
        )
        return Reply(200, {}, body)

    monkeypatch.setattr(Client, "_about", about)
    assert errors(remote.run(remote.edits())) == [GenerationFailed]
    with remote.session() as session:
        assert [one.state for one in session.ledger.recent(9)] == [State.FAILED]


def test_half_a_character_leaves_whole_ones_as_they_are() -> None:
    body = json.dumps({"prompt": "an ox \U0001f402", "\ud83d": ["\ud83d", {"a": "\U0001f402 \udc02"}]}).encode()
    assert parse_json(body) == {"prompt": "an ox \U0001f402", "?": ["?", {"a": "\U0001f402 ?"}]}


def test_a_picture_that_is_refused_for_ever_is_made_anew_only_where_that_is_asked_for(serve: Any) -> None:
    remote = serve(result_expired=True)
    (outcome,) = remote.run(remote.edits())
    assert isinstance(outcome.error, ResultUnavailable) and "always new" in str(outcome.error)
    remote.server.set(result_expired=Fault(match=outcome.error.generation_id))
    assert errors(remote.run(remote.edits())) == [ResultUnavailable]
    assert hows(remote.run(remote.edits(), NEW)) == [How.NEW]
    assert len(remote.server.billed) == 2


def test_a_pruned_picture_that_is_refused_is_not_paid_again_by_itself(serve: Any) -> None:
    remote = serve()
    (first,) = remote.run(remote.edits())
    with remote.session() as session:
        assert session.ledger.prune(max_bytes=0, keep_seconds=1e9) == 1
    remote.server.set(result_expired=Fault(match=first.record.generation_id))
    assert errors(remote.run(remote.edits())) == [ResultUnavailable]
    assert len(remote.server.billed) == 1


@pytest.mark.parametrize("gone", ["result_missing", "result_expired", "row"])
def test_submit_with_always_new_makes_anew_what_collect_said_is_gone(serve: Any, monkeypatch: Any, gone: str) -> None:
    remote = serve()
    submit = Terms(submit_only=True)
    (sent,) = remote.run(remote.edits(), submit)
    if gone == "row":
        monkeypatch.setattr(finishing_module, "wait_for_row", not_found)
    else:
        remote.server.set(**{gone: True})
    with remote.session() as session:
        (outcome,) = Batch(session, len).collect([sent.record])
    assert outcome.error is not None
    assert hows(remote.run(remote.edits(), submit)) == [How.RESUMED], "only where it is asked for"
    (again,) = remote.run(remote.edits(), replace(submit, reuse=False))
    assert again.how is How.NEW and again.record.generation_id != sent.record.generation_id


def not_found(*_: Any, **__: Any) -> Any:
    raise GenerationNotFound("Oxen.ai knows no such generation.", status=404)


@pytest.mark.parametrize("mode", [Terms(), BLOCKING], ids=["queue", "blocking"])
def test_a_result_whose_address_is_a_data_uri_is_that_picture(serve: Any, monkeypatch: Any, mode: Terms) -> None:
    remote = serve(url_though_b64=True)
    uri = remote.edits()[0].input_image()
    if mode is BLOCKING:
        monkeypatch.setattr(client_module, "read_edit", lambda _: read_edit({"images": [{"url": uri}]}))
    real = Client._shown

    def shown(self: Client, row: Any) -> Any:
        row = real(self, row)
        return replace(row, result_url=uri) if row.result_url else row

    monkeypatch.setattr(Client, "_shown", shown)
    (outcome,) = remote.run(remote.edits(), mode)
    assert outcome.how is How.NEW and outcome.picture == (48, 32)
