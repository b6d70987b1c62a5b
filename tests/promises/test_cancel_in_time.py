"""Cancel ends a node within a second, whatever the node is at."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from kontext_bridge import host
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.errors import Interrupted

SECONDS = 1.0
PARAMETERS = EditParameters(prompt="a hat", seed=1)


def seconds_to_cancel(work: Callable[[], Any], control: Control) -> float:
    async def run() -> float:
        task = asyncio.ensure_future(host.run_off_loop(work, control))
        await asyncio.sleep(0.2)
        since = time.monotonic()
        host.request_interrupt()
        with pytest.raises(host.LocalInterruption):
            await task
        return time.monotonic() - since

    host.set_local(None)
    try:
        return asyncio.run(run())
    finally:
        host.set_local(None)


@pytest.mark.parametrize("ask", ["row", "enqueue", "edit"])
def test_a_service_that_hangs_does_not_hold_cancel_up(ask: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        control = Control()
        client = Client(Account(f"http://127.0.0.1:{listener.getsockname()[1]}", "k"), control)
        calls: dict[str, Callable[[], Any]] = {
            "row": lambda: client.row("x-1"),
            "enqueue": lambda: client.enqueue(PARAMETERS, "x"),
            "edit": lambda: client.edit(PARAMETERS, "x", seconds=5.0),
        }
        assert seconds_to_cancel(calls[ask], control) < SECONDS
        client.close()


def test_work_that_heeds_nothing_does_not_hold_cancel_up() -> None:
    over = threading.Event()
    assert seconds_to_cancel(lambda: over.wait(5), Control()) < SECONDS
    over.set()


def test_the_end_of_the_work_is_not_waited_for_longer_than_it_takes() -> None:
    control = Control()

    def work() -> None:
        with pytest.raises(Interrupted):
            control.sleep(5)

    assert seconds_to_cancel(work, control) < host.aside._GRACE
