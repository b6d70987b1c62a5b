"""The price on a node is the one that the service publishes, asked for seldom; without an answer there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kontext_bridge.routes import price_routes
from kontext_bridge.standin import Faults, StandIn
from served import Page


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    price_routes._known.clear()
    yield
    price_routes._known.clear()


def usd(page: Page) -> Any:
    """The prices of the moment."""
    status, told = page.ask("GET", "/kontext-bridge/prices")
    assert status == 200
    return told["usd"]


def test_the_published_price_is_told_without_a_key_and_asked_for_once(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StandIn() as service:
        monkeypatch.setenv("OXEN_BASE_URL", service.url)
        for _ in range(3):
            assert usd(page) == {"flux-kontext-dev": "0.04"}
        assert [request.route for request in service.requests] == ["model"]
        assert all("Authorization" not in request.headers for request in service.requests)


def test_a_price_that_is_not_published_is_not_guessed(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    with StandIn(Faults(price_missing=True)) as service:
        monkeypatch.setenv("OXEN_BASE_URL", service.url)
        assert usd(page) == {}


def test_a_service_that_cannot_be_reached_leaves_the_node_without_a_price(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(price_routes, "_WITHIN_SECONDS", 0.5)
    monkeypatch.setenv("OXEN_BASE_URL", "http://127.0.0.1:9")
    assert usd(page) == {}


def test_the_models_that_can_be_chosen_have_the_prices_that_they_came_with(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(price_routes, "_WITHIN_SECONDS", 0.5)
    monkeypatch.setenv("OXEN_BASE_URL", "http://127.0.0.1:9")
    _, told = page.ask("GET", "/kontext-bridge/prices")
    assert told["listed"]["gpt-image-2"]["grid"]["low"] == {"1K": "0.004", "2K": "0.009", "4K": "0.035"}
    assert told["listed"]["flux-2-flex"] == {"flat": "0.12"}
    assert not {"flux-kontext-dev", "topazlabs-bloom-2-image"} & set(told["listed"]), "not known, and not guessed"
