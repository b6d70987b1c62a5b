"""A real ComfyUI for tests: COMFYUI_PATH names its folder, COMFYUI_PYTHON the Python that can run it."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.standin import StandIn, Timing
from programs import stop

REPOSITORY = Path(__file__).resolve().parent.parent
START_LIMIT_S = 600
RUN_LIMIT_S = 300.0


def comfyui() -> tuple[Path, str]:
    """ComfyUI's folder and Python. Skips the test where there is none."""
    tree = os.environ.get("COMFYUI_PATH")
    if not tree:
        pytest.skip("needs the real ComfyUI: set COMFYUI_PATH to its folder")
    return Path(tree), os.environ.get("COMFYUI_PYTHON", sys.executable)


class ComfyServer:
    """A running server. `base` holds its input, output, temp, user, models and custom_nodes folders."""

    def __init__(self, port: int, base: Path, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.base = base
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Any:
        with self._opener.open(f"{self.url}{path}", timeout=30) as reply:
            return json.load(reply)

    def post(self, path: str, body: object) -> tuple[int, Any]:
        """Status and JSON of the reply, refusals included."""
        request = urllib.request.Request(
            f"{self.url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with self._opener.open(request, timeout=30) as reply:
                return reply.status, json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    def submit(self, workflow: Mapping[str, Any]) -> str:
        """Queues an API-format workflow; gives its prompt id."""
        status, reply = self.post("/prompt", {"prompt": workflow})
        assert status == 200, reply
        return str(reply["prompt_id"])

    def run(self, workflow: Mapping[str, Any]) -> dict[str, Any]:
        """Runs an API-format workflow; gives its entry in /history, failed or not."""
        return self.wait_for(self.submit(workflow))

    def wait_for(self, prompt_id: str) -> dict[str, Any]:
        """The entry in /history of what was submitted, once it is over."""
        end = time.monotonic() + RUN_LIMIT_S
        while time.monotonic() < end:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return dict(history[prompt_id])
            time.sleep(0.1)
        raise AssertionError(f"ComfyUI did not finish {prompt_id} in {RUN_LIMIT_S} s")

    def wait(self, log: Path) -> None:
        end = time.monotonic() + START_LIMIT_S
        while time.monotonic() < end:
            assert self.process.poll() is None, f"ComfyUI ended at start:\n{log.read_text()[-4000:]}"
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.3)
        raise AssertionError(f"ComfyUI did not answer in {START_LIMIT_S} s:\n{log.read_text()[-4000:]}")


@contextmanager
def comfy_server_with(
    packs: Mapping[str, Path],
    base: Path,
    environment: Mapping[str, str] | None = None,
    handles: int | None = None,
    arguments: Sequence[str] = (),
    port: int | None = None,
) -> Iterator[ComfyServer]:
    """A server on the CPU with these packs (folder name to folder) in its custom_nodes and nothing else.

    handles: how many files it may have open. arguments: what else its command line says. port: of one that was
    stopped, so that a page goes on with this one.
    """
    tree, python = comfyui()
    for folder in ("custom_nodes", "input", "models"):
        (base / folder).mkdir(parents=True)
    for name, folder in packs.items():
        (base / "custom_nodes" / name).symlink_to(folder, target_is_directory=True)
    if port is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    log = base / "log.txt"
    command = [python, "main.py", "--cpu", "--base-directory", base, "--listen", "127.0.0.1"]
    command += ["--port", str(port), "--disable-auto-launch", "--disable-api-nodes", *arguments]
    command += ["--database-url", f"sqlite:///{base / 'comfyui.db'}"]
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=tree,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **offline, **(environment or {})},
        )
        if handles is not None:
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (handles, handles))
    try:
        server = ComfyServer(port, base, process)
        server.wait(log)
        yield server
    finally:
        stop(process)


@pytest.fixture(scope="module")
def comfy_service() -> Iterator[StandIn]:
    """A quick stand-in for a server's remote edits, and for `account_at`."""
    with StandIn(timing=Timing(queued_s=0.01, processing_s=0.05)) as service:
        yield service


def account_at(service: StandIn) -> dict[str, str]:
    """What a server's environment says of where to edit."""
    return {"OXEN_BASE_URL": service.url, "OXEN_API_KEY": service.key}


@pytest.fixture(scope="session")
def comfy_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A server with this pack as `kontext-bridge`, and the tests' `sample-pack`."""
    packs = {
        "kontext-bridge": REPOSITORY,
        "sample-pack": REPOSITORY / "tests" / "headless" / "sample_pack",
    }
    with comfy_server_with(packs, tmp_path_factory.mktemp("comfyui")) as server:
        yield server
