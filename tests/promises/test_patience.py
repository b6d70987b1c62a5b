"""Bounds on an answer's time do not cut off a service that is slow and honest."""

from __future__ import annotations

import base64
import threading

import pytest
from fault_worker import png
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.http import transport
from kontext_bridge.standin import StandIn, Timing
from patience import PATIENCE


def test_a_blocking_edit_may_take_longer_than_a_connection_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 1.5)
    source = "data:image/png;base64," + base64.b64encode(png(8, 8)).decode()
    with StandIn(timing=Timing(queued_s=0.1, processing_s=3.0)) as service:
        client = Client(Account(service.url, service.key))
        (image,) = client.edit(EditParameters(prompt="make it blue", seed=1), source, seconds=PATIENCE)
        client.close()
    assert image.data is not None and image.data.startswith(b"\x89PNG")


def test_one_connection_serves_all_requests_that_follow_each_other() -> None:
    with StandIn() as service:
        client = Client(Account(service.url, service.key))
        for _ in range(5):
            client.active()
            client.history()
        client.close()
        assert service.connections == 1


def test_a_closed_client_leaves_no_timer_running() -> None:
    with StandIn() as service:
        client = Client(Account(service.url, service.key))
        client.active()
        client.close()
        timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
        for timer in timers:
            timer.join(20)  # far below the 30 s that it would have waited
        assert not any(timer.is_alive() for timer in timers)
