"""Cancel and Collect in the panel, against the stand-in: nothing is paid, and what was owed is handed over once."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from edits_made import done, local, name_of, opened, png
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.oxen.jobs.record import Record, State, request_key
from kontext_bridge.standin import StandIn, Timing
from served import Page

EDITS = "/kontext-bridge/edits"


@pytest.fixture
def service() -> Iterator[StandIn]:
    with StandIn(timing=Timing(queued_s=0.01, processing_s=0.05)) as running:
        yield running


@pytest.fixture
def environment(environment: Path, service: StandIn, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OXEN_BASE_URL", service.url)
    monkeypatch.setenv("OXEN_API_KEY", service.key)
    return environment


@pytest.fixture
def ledger(page: Page) -> Iterator[Ledger]:
    page.home.mkdir(mode=0o700, exist_ok=True)
    made = Ledger(page.home)
    yield made
    made.close()


def submitted(ledger: Ledger, service: StandIn, number: int) -> Record:
    """An edit that a run put into the queue before ComfyUI was closed."""
    parameters = EditParameters(prompt=f"edit {number}", seed=number)
    picture = "data:image/png;base64," + base64.b64encode(png()).decode()
    record = ledger.open(request_key(service.url, parameters, str(number)), parameters, picture, None)
    assert record is not None
    client = Client(Account(service.url, service.key))
    try:
        id = client.enqueue(parameters, picture, before_last=lambda: ledger.leaving(record))
    finally:
        client.close()
    return ledger.sent(record, generation_id=id)


def owed(page: Page) -> list[str]:
    status, now = page.ask("GET", EDITS + "/now")
    assert status == 200
    return [one["id"] for one in now["owed"]]


def test_what_is_owed_is_collected_once_and_then_in_the_grid(page: Page, ledger: Ledger, service: StandIn) -> None:
    record = submitted(ledger, service, 1)
    assert owed(page) == [name_of(record)]
    status, answer = page.ask("POST", f"{EDITS}/{name_of(record)}/collect", {})
    assert (status, answer) == (200, {"text": "collected"})
    assert owed(page) == [] and len(service.billed) == 1
    assert page.ask("GET", EDITS)[1]["ids"] == [name_of(record)]
    now = ledger.by_id(record.id)
    assert now is not None and now.state is State.DONE and now.collected_at is not None
    assert page.ask("POST", f"{EDITS}/{name_of(record)}/collect", {})[0] == 200, "again does no harm"
    assert len(service.billed) == 1


def test_what_came_and_was_handed_to_nobody_is_collected_without_the_service(page: Page, ledger: Ledger) -> None:
    record = done(ledger, 3, handed_over=False)
    now = ledger.by_id(record.id)
    assert now is not None and now.collected_at is None
    assert page.ask("POST", f"{EDITS}/{name_of(record)}/collect", {})[0] == 200
    now = ledger.by_id(record.id)
    assert owed(page) == [] and now is not None and now.collected_at is not None


def test_what_is_still_being_made_stays_owed_and_is_said_so(
    page: Page, ledger: Ledger, service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kontext_bridge.routes.job_routes._COLLECT_SECONDS", 0.5)
    service.hold()
    record = submitted(ledger, service, 1)
    status, answer = page.ask("POST", f"{EDITS}/{name_of(record)}/collect", {})
    assert status == 409 and "still being made" in answer["error"] and "costs nothing" in answer["error"]
    assert owed(page) == [name_of(record)]
    service.release()


def test_a_job_is_cancelled_there_and_leaves_the_list(page: Page, ledger: Ledger, service: StandIn) -> None:
    service.hold()
    record = submitted(ledger, service, 1)
    status, answer = page.ask("POST", f"{EDITS}/{name_of(record)}/cancel", {})
    assert (status, answer) == (200, {"cancelled": True, "text": "cancelled"})
    assert owed(page) == [] and next(iter(service.jobs.values())).status.value == "cancelled"
    service.release()


def test_what_cannot_be_cancelled_or_collected_is_said_in_words(page: Page, ledger: Ledger, service: StandIn) -> None:
    came, cut = done(ledger, 1), opened(ledger, 2)
    local(page.home, 1)
    (made_here,) = (id for id in page.ask("GET", EDITS)[1]["ids"] if id.startswith("l"))
    for id, what in (
        (name_of(came), "cancel"),
        (name_of(cut), "cancel"),
        (made_here, "cancel"),
        (made_here, "collect"),
    ):
        status, answer = page.ask("POST", f"{EDITS}/{id}/{what}", {})
        assert status == 409 and answer["error"], (id, what)
    status, answer = page.ask("POST", f"{EDITS}/{name_of(cut)}/collect", {})
    assert status == 400 and "no picture to collect" in answer["error"]
    assert page.ask("POST", f"{EDITS}/r99-abcdef/collect", {})[0] == 404
    assert service.billed == []


def test_a_service_that_hangs_is_not_waited_for(
    page: Page, ledger: Ledger, service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kontext_bridge.routes.job_routes._CANCEL_SECONDS", 0.5)
    record = submitted(ledger, service, 1)
    service.refuse_connections()
    try:
        status, answer = page.ask("POST", f"{EDITS}/{name_of(record)}/cancel", {})
    finally:
        service.accept_connections()
    assert (status == 504 and "Nothing was paid" in answer["error"]) or answer["cancelled"] is False
    now = ledger.by_id(record.id)
    assert now is not None and now.state is State.SENT
