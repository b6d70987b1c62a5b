"""The last line that a real ComfyUI tells its front end of a node is the truth of its end."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from comfy_server import ComfyServer
from kontext_bridge.standin import Fault, StandIn
from pack import TWINS, read
from patience import PATIENCE

pytestmark = pytest.mark.comfyui


class FrontEnd:
    """A front end of its own, which hears what ComfyUI tells it of the node that edits."""

    def __init__(self, server: ComfyServer) -> None:
        self._server = server
        self._client = uuid.uuid4().hex
        self._ready, self._stop = threading.Event(), False
        self.lines: list[str] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    async def _listen(self) -> None:
        url = f"{self._server.url}/ws?clientId={self._client}"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            self._ready.set()
            while not self._stop:
                try:
                    message = await socket.receive(timeout=0.2)
                except asyncio.TimeoutError:
                    continue
                if message.type == aiohttp.WSMsgType.TEXT:
                    self._hear(json.loads(message.data))

    def _hear(self, message: dict[str, Any]) -> None:
        if message["type"] == "kontext_bridge.says":
            assert set(message["data"]) == {"node", "text", "prompt_id"}
            self.lines.append(message["data"]["text"])

    def run(self, workflow: dict[str, Any]) -> str:
        status, reply = self._server.post("/prompt", {"prompt": workflow, "client_id": self._client})
        assert status == 200, reply
        return str(reply["prompt_id"])

    def says(self, pattern: str) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.lines and re.fullmatch(pattern, self.lines[-1]):
                return
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} is not what was said last: {self.lines}")

    def close(self) -> None:
        self._stop = True
        self._thread.join(PATIENCE)


@pytest.fixture
def front_end(server: ComfyServer) -> Iterator[FrontEnd]:
    listening = FrontEnd(server)
    yield listening
    listening.close()


def workflow(seed: int, **more: Any) -> dict[str, Any]:
    edited: dict[str, Any] = read(TWINS / "remote_edit.json")
    for node in edited.values():
        if node["class_type"] == "KontextEdit":
            node["inputs"].update(seed=seed, **more)
    return edited


def test_what_was_made_and_what_was_brought_back_are_told_apart(server: ComfyServer, front_end: FrontEnd) -> None:
    server.wait_for(front_end.run(workflow(901)))
    front_end.says(r"done · \d+ s · \$0\.04")
    server.wait_for(front_end.run(workflow(901, timeout=299)))
    front_end.says("brought back, not paid again")
    server.wait_for(front_end.run(workflow(901, variations=3)))
    front_end.says(r"2 new, 1 brought back · \d+ s · \$0\.08")


def test_a_failed_edit_says_why(server: ComfyServer, comfy_service: StandIn, front_end: FrontEnd) -> None:
    comfy_service.set(run_fails=Fault("the worker died", times=1))
    done = server.wait_for(front_end.run(workflow(911)))
    front_end.says(r'The edit failed at Oxen\.ai: ".*the worker died.*"')
    error = next(told for kind, told in done["status"]["messages"] if kind == "execution_error")
    assert re.search(r"billed\. .* Generation \S+\.\s*$", error["exception_message"])


@pytest.mark.parametrize(("variations", "told"), [(1, "at Oxen.ai too"), (4, "all 4 at Oxen.ai too")])
def test_cancel_says_what_is_known_of_the_service_also_after_the_run(
    server: ComfyServer, comfy_service: StandIn, front_end: FrontEnd, variations: int, told: str
) -> None:
    before = len(comfy_service.jobs)
    comfy_service.hold()
    try:
        prompt_id = front_end.run(workflow(920 + 10 * variations, variations=variations))
        comfy_service.wait_for(lambda s: len(s.jobs) == before + variations)
        server.post("/interrupt", {})
        server.wait_for(prompt_id)
        front_end.says(f"cancelled, {told}")
    finally:
        comfy_service.release()


def test_a_job_that_takes_longer_says_that_it_goes_on(
    server: ComfyServer, comfy_service: StandIn, front_end: FrontEnd
) -> None:
    comfy_service.hold()
    try:
        server.wait_for(front_end.run(workflow(971, timeout=5)))
        front_end.says("still running there; run again to go on waiting")
    finally:
        comfy_service.release()
    server.wait_for(front_end.run(workflow(971)))
    front_end.says("brought back, not paid again")
