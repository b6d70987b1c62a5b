"""A list of pictures in the real ComfyUI: one Kontext Edit for each, with few file handles to be had."""

from __future__ import annotations

import asyncio
import re
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from comfy_server import ComfyServer, account_at, comfy_server_with, comfyui
from kontext_bridge.standin import Fault, StandIn
from pack import REPOSITORY
from PIL import Image

pytestmark = pytest.mark.comfyui
HANDLES = 256
GO_ON = "go on with what succeeded"


@pytest.fixture(scope="module")
def service(comfy_service: StandIn) -> Iterator[StandIn]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kontext_bridge.standin.picture.SIZES", ((256, 192),))  # quickly drawn
        yield comfy_service


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, service: StandIn) -> Iterator[ComfyServer]:
    comfyui()
    base = tmp_path_factory.mktemp("comfyui") / "base"
    with comfy_server_with({"kontext-bridge": REPOSITORY}, base, account_at(service), handles=HANDLES) as running:
        yield running


def put(server: ComfyServer, folder: str, count: int) -> None:
    """`count` different pictures in a folder of ComfyUI's input."""
    (server.base / "input" / folder).mkdir(parents=True)
    for number in range(count):
        colour = (number % 256, number // 256, sum(folder.encode()) % 256)
        Image.new("RGB", (32, 24), colour).save(server.base / "input" / folder / f"{number:03}.png")


def workflow(server: ComfyServer, folder: str, **inputs: Any) -> dict[str, Any]:
    info = server.get("/object_info/KontextEdit")["KontextEdit"]["input"]["optional"]
    values = {name: spec[1]["default"] for name, spec in info.items() if len(spec) > 1 and "default" in spec[1]}
    edit = {**values, "image": ["1", 0], "prompt": "a hat", "output_format": "jpg", **inputs}
    return {
        "1": {"class_type": "LoadImageDataSetFromFolder", "inputs": {"folder": folder}},
        "2": {"class_type": "KontextEdit", "inputs": edit},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": folder}},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["2", 1]}},
    }


def saved(done: dict[str, Any]) -> int:
    return len(done["outputs"].get("3", {}).get("images", []))


class Gauge:
    """The most handles that a process had open at once."""

    def __init__(self, process: int) -> None:
        self._folder = Path(f"/proc/{process}/fd")
        self.most = 0

    def now(self) -> int:
        return sum(1 for _ in self._folder.iterdir())

    @contextmanager
    def watching(self) -> Iterator[None]:
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.005):
                self.most = max(self.most, self.now())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def test_three_hundred_pictures_under_256_handles_are_made_and_billed_once_each(
    server: ComfyServer, service: StandIn
) -> None:
    put(server, "many", 300)
    limit = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    assert limit == (HANDLES, HANDLES)
    gauge = Gauge(server.process.pid)
    before = gauge.now()
    with gauge.watching():
        done = server.run(workflow(server, "many"))
    assert done["status"]["status_str"] == "success", done["status"]["messages"]
    assert saved(done) == len(service.billed) == 300
    assert gauge.most - before <= 60, f"{gauge.most - before} handles"
    assert len([one for one in service.requests if one.route == "events"]) == 1
    assert service.leaks == []


def heard(server: ComfyServer, graph: dict[str, Any]) -> list[dict[str, Any]]:
    """What a browser that runs a graph is told of errors, until the run is over."""

    async def listen() -> list[dict[str, Any]]:
        errors = []
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws?clientId=test") as socket:
            await session.post(f"{server.url}/prompt", json={"prompt": graph, "client_id": "test"})
            async for message in socket:
                told = message.json() if message.type is aiohttp.WSMsgType.TEXT else {"type": ""}
                if told["type"] == "execution_error":
                    errors.append(told["data"])
                if told["type"] in {"execution_success", "execution_interrupted"} or (
                    told["type"] == "execution_error" and told["data"]["exception_type"] != "ExecutionBlocked"
                ):
                    break
        return errors

    return asyncio.run(asyncio.wait_for(listen(), 60))


def test_a_failed_item_stops_the_list_or_is_left_out_as_the_node_says(server: ComfyServer, service: StandIn) -> None:
    put(server, "some", 12)
    billed = len(service.billed)
    service.set(run_fails=Fault("the worker died", times=2))
    (error,) = heard(server, workflow(server, "some"))
    assert (error["node_id"], error["exception_type"]) == ("2", "kontext_bridge.SomeFailed")
    said = error["exception_message"]
    assert said.startswith("2 of 12 items of the list failed. Items ") and said.count("the worker died") == 1
    assert len(re.findall(r"Generations \S+, \S+\. The other", said)) == 1, "one reason, said once"
    assert '(32x24, seed 0, "a hat")' in said and "The other 10 are kept" in said
    service.set(run_fails=Fault("the worker died", times=1))
    (blocked,) = heard(server, workflow(server, "some", if_some_fail=GO_ON))
    assert (blocked["node_id"], blocked["exception_type"]) == ("3", "ExecutionBlocked")
    assert "1 of 12 items of the list failed. Item " in blocked["exception_message"]
    service.set(run_fails=None)
    assert len(service.billed) - billed == 12 + 2, "the second run paid for the two alone that had failed"
    assert len(list((server.base / "output").glob("some_*"))) == 11


def test_cancel_stops_a_whole_list_and_comfyui_runs_the_next(server: ComfyServer, service: StandIn) -> None:
    put(server, "held", 60)
    put(server, "next", 3)
    paid = sum(one.route == "enqueue" for one in service.requests)
    service.hold()
    running = server.submit(workflow(server, "held"))
    service.wait_for(lambda s: sum(one.route == "enqueue" for one in s.requests) == paid + 8)
    after = server.submit(workflow(server, "next"))
    pressed = time.monotonic()
    server.post("/interrupt", {})
    while not (stopped := server.get(f"/history/{running}")):
        time.sleep(0.02)
    assert time.monotonic() - pressed < 1.0
    assert stopped[running]["status"]["messages"][-1][0] == "execution_interrupted"
    service.release()
    assert saved(server.wait_for(after)) == 3
    assert sum(one.route == "enqueue" for one in service.requests) == paid + 8 + 3, "those that waited were not sent"
