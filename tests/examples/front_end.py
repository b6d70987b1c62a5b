"""ComfyUI's front end with the pack, on a fresh folder, in both renderers: fixtures for what is tried in a browser."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, a_tab, chromium
from comfy_server import ComfyServer, account_at, comfy_server_with, comfyui
from kontext_bridge.standin import StandIn
from pack import LOCAL, REPOSITORY, TITLES, WORKFLOWS, read, template

READY = "window.app?.extensionManager?.command && window.LiteGraph?.registered_node_types?.KontextEdit"
SETTLED_S = 3  # what a page does while it still loads may be undone
SHOWN = "document.body.innerText"


@pytest.fixture(scope="module")
def fresh_server(tmp_path_factory: pytest.TempPathFactory, comfy_service: StandIn) -> Iterator[ComfyServer]:
    """A server whose folders nobody has put anything into."""
    comfyui()
    chromium()
    base = tmp_path_factory.mktemp("comfyui") / "base"
    with comfy_server_with({"kontext-bridge": REPOSITORY}, base, account_at(comfy_service)) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, comfy_service: StandIn) -> Iterator[ComfyServer]:
    """A server with the templates' picture, for an account at the stand-in."""
    comfyui()
    base = tmp_path_factory.mktemp("comfyui") / "base"
    with comfy_server_with({"kontext-bridge": REPOSITORY}, base, account_at(comfy_service)) as running:
        shutil.copy(WORKFLOWS / "kontext_example.png", running.base / "input")
        yield running


@pytest.fixture(scope="module", params=["classic", "nodes 2.0"])
def fresh_tab(request: pytest.FixtureRequest, fresh_server: ComfyServer, tmp_path_factory: Any) -> Iterator[Tab]:
    with page_of(fresh_server, request.param, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@contextlib.contextmanager
def page_of(server: ComfyServer, renderer: str, profile: Path) -> Iterator[Tab]:
    """The page as an artist has it who knows it, in one renderer: "classic" or "nodes 2.0"."""
    own = {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": renderer != "classic"}
    assert server.post("/api/settings", own)[0] == 200
    with a_tab(profile) as opened:
        start(opened, server)
        yield opened


def start(tab: Tab, server: ComfyServer) -> None:
    """The page from its beginning."""
    tab.open(server.url)
    tab.wait(READY)
    time.sleep(SETTLED_S)


def open_template(tab: Tab, name: str) -> None:
    """As the browser of templates opens it."""
    address = json.dumps(f"/workflow_templates/kontext-bridge/{TITLES[name]}.json")
    tab.value(
        f"window.app.api.fetchApi({address}).then((reply) => reply.json()).then((template) => "
        f"window.app.loadGraphData(template, true, true, {json.dumps(TITLES[name])}, {{ openSource: 'template' }}))"
    )
    wanted = len(read(template(name))["nodes"])
    tab.wait(f"window.app.graph.nodes.length === {wanted}")


def model_files(base: Path) -> list[Path]:
    """Where the models of the local templates belong in ComfyUI's folders."""
    nodes = [node for name in LOCAL for node in read(template(name))["nodes"]]
    named = {(one["directory"], one["name"]) for node in nodes for one in node["properties"].get("models", [])}
    named |= {("loras", node["widgets_values"][0]) for node in nodes if node["type"] == "KontextLoRA"}
    return [base / "models" / folder / name for folder, name in sorted(named)]
