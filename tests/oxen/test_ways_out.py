"""Every error's way out leads out, and pays for no more than it says."""

from __future__ import annotations

import base64
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.api.replies import read_edit
from kontext_bridge.oxen.choices import WaitMode
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.errors import GenerationNotFound, Interrupted, OutcomeUnknown, OxenError
from kontext_bridge.oxen.http import transport as transport_module
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.oxen.jobs.order import How, Terms
from kontext_bridge.standin import Fault
from outcomes import hows, without_files

pytestmark = pytest.mark.usefixtures("doubt_ends_soon", "nothing_comes_late")
NEW = Terms(reuse=False)


@pytest.mark.parametrize("gone", ["row", "picture"])
def test_always_new_on_account_of_one_edit_that_is_gone_pays_for_that_one_alone(
    remote: Any, monkeypatch: Any, gone: str
) -> None:
    edits = remote.edits(3)
    ids = [outcome.record.generation_id for outcome in remote.run(edits)]
    without_files(remote)
    if gone == "row":
        real = Client._about

        def about(self: Client, generation_id: str, *more: Any, **named: Any) -> Any:
            if generation_id == ids[1]:
                raise GenerationNotFound("Oxen.ai knows no such generation.", status=404, generation_id=ids[1])
            return real(self, generation_id, *more, **named)

        monkeypatch.setattr(Client, "_about", about)
    else:
        remote.server.set(result_missing=Fault(match=ids[1]))
    outcomes = remote.run(edits)
    assert "always new" in str(outcomes[1].error)
    assert hows(remote.run(edits, NEW)) == [How.REUSED, How.NEW, How.REUSED]
    assert len(remote.server.billed) == 4
    assert hows(remote.run(edits, NEW)) == [How.NEW] * 3


def test_an_edit_that_was_in_doubt_and_is_found_is_made_anew_when_that_is_asked_for(serve: Any) -> None:
    remote = serve(answer_dropped=Fault(times=1), list_error=True)
    edits = remote.edits()
    (outcome,) = remote.run(edits, Terms(seconds=0.6))
    assert isinstance(outcome.error, OutcomeUnknown)
    remote.server.set(list_error=False)
    assert hows(remote.run(edits)) == [How.FOUND]
    assert hows(remote.run(edits, NEW)) == [How.NEW]


def test_a_gateways_404_is_no_word_on_a_job(remote: Any, monkeypatch: Any) -> None:
    edits = remote.edits()
    remote.run(edits)
    with remote.session() as session:
        session.ledger.prune(max_bytes=0, keep_seconds=0.0)
    remote.server.set(gateway_404=True) if hasattr(remote.server, "gateway_404") else None


@pytest.mark.parametrize("terms", [Terms(), NEW], ids=["reuse", "always new"])
def test_a_gateways_404_is_no_word_on_a_job_that_was_paid_for(serve: Any, terms: Terms) -> None:
    remote = serve()
    remote.run(remote.edits(), handed_over=terms.reuse)
    if terms.reuse:
        with remote.session() as session:
            assert session.ledger.prune(max_bytes=0, keep_seconds=0.0) == 1
    without_files(remote)
    remote.server.set(poll_error=404, list_error=404)
    (outcome,) = remote.run(remote.edits(), terms)
    assert isinstance(outcome.error, GenerationNotFound) and "always new" in str(outcome.error)
    assert len(remote.server.billed) == 1
    remote.server.set(poll_error=False, list_error=False)
    (outcome,) = remote.run(remote.edits())
    assert outcome.picture is not None and len(remote.server.billed) == 1


def test_always_new_is_the_way_out_of_a_gateway_that_always_says_404(serve: Any) -> None:
    remote = serve()
    remote.run(remote.edits())
    without_files(remote)
    remote.server.set(poll_error=Fault(404, match=next(iter(remote.server.jobs))), list_error=404)
    assert remote.run(remote.edits())[0].error is not None
    assert hows(remote.run(remote.edits(), NEW)) == [How.NEW]


def _wrapped(data: bytes) -> str:
    return base64.encodebytes(data).decode()


FORMS = {
    "wrapped": _wrapped,
    "unpadded": lambda data: base64.b64encode(data).decode().rstrip("="),
    "url-safe": lambda data: base64.urlsafe_b64encode(data).decode(),
    "data URI": lambda data: "data:image/png;base64," + base64.b64encode(data).decode(),
    "spaced": lambda data: "  " + base64.b64encode(data).decode() + "\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_paid_picture_in_another_form_of_base64_is_that_picture(form: str) -> None:
    for length in (250, 251, 252):
        data = bytes(range(256))[-length:] * 3
        (image,) = read_edit({"images": [{"b64_json": FORMS[form](data)}]})
        assert image.data == data


def test_a_picture_that_is_no_base64_and_has_an_address_is_fetched_from_there() -> None:
    (image,) = read_edit({"images": [{"b64_json": "not it!", "url": "https://hub.oxen.ai/a.png"}]})
    assert image.url == "https://hub.oxen.ai/a.png"


@pytest.mark.parametrize("form", ["path", "no scheme", "spaces"])
def test_a_result_address_in_another_form_is_that_address(remote: Any, monkeypatch: Any, form: str) -> None:
    real = Client._shown

    def shown(self: Client, row: Any) -> Any:
        row = real(self, row)
        if not row.result_url:
            return row
        url = row.result_url
        host = url.partition("://")[2].partition("/")[0]
        other = {"path": url.partition(host)[2], "no scheme": url.partition(":")[2], "spaces": f" {url}\n"}[form]
        return replace(row, result_url=other)

    monkeypatch.setattr(Client, "_shown", shown)
    assert hows(remote.run(remote.edits(), Terms(wait=WaitMode.POLLING))) == [How.NEW]


@pytest.mark.parametrize(
    "change", ["state = 'archived'", "parameters = '{'", "parameters = 'null'", "seed = 'x', created_at = 'y'"]
)
def test_a_row_of_the_ledger_that_cannot_be_read_is_told_in_words(remote: Any, change: str) -> None:
    edits = remote.edits()
    remote.run(edits)
    with closing(sqlite3.connect(remote.home / "ledger.sqlite3")) as database, database:
        database.execute(f"UPDATE jobs SET {change}")
    try:
        remote.run(edits)
    except OxenError as error:
        assert "damaged" in str(error)


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini"])
def test_what_a_desktop_leaves_in_a_folder_is_no_picture(remote: Any, name: str) -> None:
    (remote.home / "results").mkdir()
    (remote.home / "results" / name).write_bytes(b"icons")
    assert hows(remote.run(remote.edits())) == [How.NEW]


@pytest.mark.parametrize("wait", [WaitMode.BLOCKING, WaitMode.POLLING])
@pytest.mark.parametrize("how", ["interrupt", "detach"])
def test_cancel_just_before_the_last_block_leaves_no_doubt(
    remote: Any, monkeypatch: pytest.MonkeyPatch, wait: WaitMode, how: str
) -> None:
    control = Control()
    leaving = Ledger.leaving

    def pressed(self: Ledger, record: Any) -> None:
        leaving(self, record)
        getattr(control, how)()

    monkeypatch.setattr(Ledger, "leaving", pressed)
    with pytest.raises(Interrupted):
        remote.run(remote.edits(), Terms(wait=wait), control=control)
    monkeypatch.setattr(Ledger, "leaving", leaving)
    assert not remote.server.billed
    assert hows(remote.run(remote.edits(), Terms(wait=wait))) == [How.NEW]


def test_what_was_known_of_the_services_clock_is_forgotten_when_this_machines_is_set(
    remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = remote.transport()
    assert transport.clock_offset is None
    transport.send("GET", "/api/users/me")
    assert abs(transport.clock_offset) < 5
    wrong = SimpleNamespace(time=lambda: time.time() + 7200, monotonic=time.monotonic)
    monkeypatch.setattr(transport_module, "time", wrong)
    assert transport.clock_offset is None
    transport.send("GET", "/api/users/me")
    assert abs(transport.clock_offset + 7200) < 5


def test_a_picture_that_cost_nothing_is_not_counted_by_its_price(remote: Any) -> None:
    (edit,) = remote.edits()
    with remote.session() as session:
        record = session.ledger.open("key", edit.parameters, "data:,", Decimal("0.03"))
        assert session.ledger.spent_since(0.0) == Decimal("0.03")
        session.ledger.note_cost(record, Decimal("0.00"))
        assert session.ledger.spent_since(0.0) == 0


def test_a_list_and_a_batch_take_the_same_records_for_undecided(remote: Any) -> None:
    (edit,) = remote.edits()
    with remote.session() as session:
        ledger = session.ledger
        record = ledger.open("key", edit.parameters, "data:,", None)
        record = ledger.told(ledger.done(ledger.sent(record, generation_id="one"), b"picture", "png"))
        assert ledger.undecided("key") is not None and ledger.undecided_keys() == {"key"}
        ledger.collected(record)
        assert ledger.undecided("key") is None and not ledger.undecided_keys()
