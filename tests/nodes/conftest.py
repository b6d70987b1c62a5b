"""Workflows of the pack's own nodes against a stand-in, with pictures and values that no file could hold."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_server import ComfyServer, account_at, comfy_server_with, comfyui
from kontext_bridge import host
from kontext_bridge.headless import ensure_comfy_api
from kontext_bridge.headless.folders import RunFolders
from kontext_bridge.headless.outputs import RunResult
from kontext_bridge.headless.run import NodeFailed, run_workflow
from kontext_bridge.standin import Faults, StandIn, Timing
from pack import REPOSITORY

ensure_comfy_api()

from comfy_api.latest import io  # noqa: E402
from kontext_bridge import comfy_entrypoint  # noqa: E402
from stubs import Given, Heard, Taken  # noqa: E402

KEY = "SFMyNTY.a-key-of-the-usual-length.0123456789"
QUICK = Timing(queued_s=0.01, processing_s=0.03)


async def _classes() -> list[type[io.ComfyNode]]:
    return await (await comfy_entrypoint()).get_node_list()


def pack_classes() -> dict[str, type[io.ComfyNode]]:
    return {one.GET_SCHEMA().node_id: one for one in asyncio.run(_classes())}


class Bench:
    """Runs one node of the pack at a time, as a workflow, and gives its outputs."""

    def __init__(self, server: StandIn, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.heard = Heard()
        self.classes = pack_classes()

    def run(self, class_type: str, **inputs: Any) -> list[Any]:
        """The outputs of one node, its other inputs at their defaults; raises the node's own error.

        A tensor, or a value wrapped in a list, comes over a link.
        """
        try:
            return [column[0] for column in self.result(class_type, **inputs).nodes["node"].outputs]
        except NodeFailed as failed:
            raise failed.error from None

    def defaults(self, class_type: str) -> dict[str, Any]:
        inputs = self.classes[class_type].GET_SCHEMA().inputs
        return {one.id: one.default for one in inputs if getattr(one, "default", None) is not None}

    def result(self, class_type: str, **inputs: Any) -> RunResult:
        workflow: dict[str, Any] = {"node": {"class_type": class_type, "inputs": self.defaults(class_type)}}
        Given.values = {}
        for name, value in inputs.items():
            if not isinstance(value, torch.Tensor | list):
                workflow["node"]["inputs"][name] = value
                continue
            Given.values[name] = value[0] if isinstance(value, list) else value
            workflow[name] = {"class_type": "Given", "inputs": {"name": name}}
            workflow["node"]["inputs"][name] = [name, 0]
        workflow["out"] = {"class_type": "Taken", "inputs": {"value": ["node", 0]}}
        self.heard = Heard()
        host.set_local(self.heard)
        folders = RunFolders(source=self.folder, output=self.folder / "output")
        nodes = [*self.classes.values(), Given, Taken]
        return run_workflow(workflow, nodes, folders, self.heard, host.interrupted)

    def edit(self, image: torch.Tensor, **inputs: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        """IMAGE and info of Kontext Edit; jpg, which the stand-in draws fastest."""
        pictures, info, _ = self.run(
            "KontextEdit", **{"image": image, "prompt": "a hat", "output_format": "jpg", **inputs}
        )
        return pictures, json.loads(info)

    def submit(self, image: torch.Tensor, **inputs: Any) -> tuple[Any, list[str]]:
        """The job and the generation ids of Kontext Submit."""
        given = {"image": image, "prompt": "a hat", "output_format": "jpg", **inputs}
        job, ids = self.run("KontextSubmit", **given)
        return job, ids.splitlines()

    @property
    def paid(self) -> list[str]:
        return [request.route for request in self.server.requests if request.route in {"edit", "enqueue"}]


def picture(count: int = 1, height: int = 24, width: int = 32, channels: int = 3) -> torch.Tensor:
    """An IMAGE of `count` different pictures."""
    values = torch.linspace(0, 1, count * height * width * channels)
    return values.reshape(count, height, width, channels).mul(255).round().div(255)


@pytest.fixture
def images() -> Callable[..., torch.Tensor]:
    return picture


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pack's user folder of this test; nothing of the machine's own configuration is seen."""
    for name in [name for name in os.environ if name.startswith(("KONTEXT_BRIDGE_", "OXEN_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KONTEXT_BRIDGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OXEN_CONFIG_DIR", str(tmp_path / "oxen-config"))
    return tmp_path / "home"


@pytest.fixture
def serve(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    """Start a stand-in: serve(faults by name ..., timing=..., behaviour=...)."""
    with ExitStack() as stack:

        def start(timing: Timing = QUICK, behaviour: Any = None, **faults: Any) -> Bench:
            server = stack.enter_context(StandIn(Faults(**faults), timing, KEY, behaviour=behaviour))
            monkeypatch.setenv("OXEN_BASE_URL", server.url)
            monkeypatch.setenv("OXEN_API_KEY", KEY)
            return Bench(server, tmp_path)

        yield start
    host.set_local(None)


@pytest.fixture
def bench(serve: Callable[..., Bench]) -> Bench:
    """A stand-in without faults, and the nodes."""
    return serve()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, service: StandIn) -> Iterator[ComfyServer]:
    """The real ComfyUI, with an account at the `service` of the module that asks."""
    comfyui()
    base = tmp_path_factory.mktemp("comfyui") / "base"
    with comfy_server_with({"kontext-bridge": REPOSITORY}, base, account_at(service)) as running:
        yield running
