"""Chromium for tests, by its own debugging protocol: a page is opened, asked in JavaScript, clicked, typed at, drawn.

CHROMIUM names the program where it is not `chromium`. The browser reaches this machine and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from programs import stop

START_S, WAIT_S = 60.0, 60.0
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--window-size=1600,1000",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


def chromium() -> str:
    """The program. Skips the test where there is none."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        pytest.skip("needs Chromium: apt-get install chromium, or name it in CHROMIUM")
    return program


class Tab:
    """The one tab of a browser. `said` is what its pages wrote to the console, `asked` the addresses they asked for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, line: aiohttp.ClientWebSocketResponse) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self._traced: list[dict[str, Any]] = []
        self._loop, self._line, self._number = loop, line, 0

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol, and what came back."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), WAIT_S))

    async def _call(self, method: str, parameters: dict[str, Any]) -> Any:
        self._number += 1
        number = self._number
        await self._line.send_json({"id": number, "method": method, "params": parameters})
        while True:
            told = json.loads((await self._line.receive()).data)
            if told.get("id") == number:
                assert "error" not in told, told["error"]
                return told["result"]
            if told.get("method") == "Network.requestWillBeSent":
                self.asked.append(told["params"]["request"]["url"])
            elif told.get("method") == "Tracing.dataCollected":
                self._traced += told["params"]["value"]
            elif told.get("method") == "Tracing.tracingComplete":
                self._traced.append({"name": "complete", "ph": "M"})
            elif told.get("method") in {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}:
                self.said.append(json.dumps(told["params"]))

    def value(self, script: str) -> Any:
        """What an expression in JavaScript gives, a promise's outcome included."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def traced(self, script: str, categories: Sequence[str]) -> tuple[Any, list[dict[str, Any]]]:
        """What an expression gives, and the events of these categories in the browser's trace meanwhile."""
        self._traced.clear()
        self.call("Tracing.start", traceConfig={"includedCategories": list(categories)})
        value = self.value(script)
        self.call("Tracing.end")
        end = time.monotonic() + WAIT_S
        while not self._traced or self._traced[-1]["name"] != "complete":
            assert time.monotonic() < end, f"the trace did not come to its end in {WAIT_S} s"
            self.value("0")  # events are read while an answer is waited for
        return value, self._traced[:-1]

    def wait(self, script: str, seconds: float = WAIT_S) -> None:
        """Return once an expression is true; what raises is not true yet."""
        end = time.monotonic() + seconds
        while not self.value(f"(() => {{ try {{ return !!({script}) }} catch {{ return false }} }})()"):
            assert time.monotonic() < end, f"{script} was not true in {seconds} s: {self.said[-3:]}"
            time.sleep(0.2)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def type(self, text: str) -> None:
        """Text into what has the focus, as a paste or a keyboard brings it."""
        self.call("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def a_tab(folder: Path) -> Iterator[Tab]:
    """A browser of its own with an empty tab; `folder` keeps its profile."""
    process = subprocess.Popen(
        [chromium(), *OPTIONS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
    )
    loop = asyncio.new_event_loop()
    try:
        port = _port(folder / "DevToolsActivePort", process)
        session = loop.run_until_complete(_session())
        try:
            line = loop.run_until_complete(_connect(session, port))
            tab = Tab(loop, line)
            for domain in ("Page", "Runtime", "Network", "Log"):
                tab.call(f"{domain}.enable")
            yield tab
        finally:
            loop.run_until_complete(session.close())
    finally:
        stop(process)
        loop.close()


def _port(told: Path, process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process.poll() is None, "Chromium ended at its start"
        if told.exists() and (lines := told.read_text().split()):
            return int(lines[0])
        time.sleep(0.1)
    raise AssertionError(f"Chromium did not start in {START_S} s")


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


async def _connect(session: aiohttp.ClientSession, port: int) -> aiohttp.ClientWebSocketResponse:
    async with session.get(f"http://127.0.0.1:{port}/json/list") as reply:
        tabs = await reply.json()
    url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
    return await session.ws_connect(url, max_msg_size=0)
