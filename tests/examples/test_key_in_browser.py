"""Settings > Kontext Bridge in the real front end, in both renderers: a key is pasted, saved, tested, removed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Tab, chromium
from comfy_server import ComfyServer, comfy_server_with, comfyui
from front_end import page_of
from kontext_bridge.standin import StandIn
from pack import REPOSITORY, read
from served import KEY, holding_the_key

pytestmark = pytest.mark.comfyui
# A folder to put pictures of the page into, to be looked at.
PICTURES = os.environ.get("KEY_PAGE_PICTURES")
PANEL = "document.querySelector('input[type=password]').closest('div[style*=column]')"
LIMITS = "document.querySelector('input[data-setting]').closest('div[style*=column]')"


@pytest.fixture(scope="module")
def service() -> Iterator[StandIn]:
    with StandIn(key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, service: StandIn) -> Iterator[ComfyServer]:
    comfyui()
    chromium()
    base = tmp_path_factory.mktemp("comfyui") / "base"
    environment = {"OXEN_BASE_URL": service.url, "OXEN_API_KEY": "", "OXEN_CONFIG_DIR": str(base / "oxen")}
    with comfy_server_with({"kontext-bridge": REPOSITORY}, base, environment) as running:
        yield running


@pytest.fixture(params=["classic", "nodes 2.0"])
def settings(request: pytest.FixtureRequest, server: ComfyServer, tmp_path: Path) -> Iterator[Tab]:
    """The front end with the pack's settings open."""
    with page_of(server, request.param, tmp_path / "profile") as tab:
        opened = "document.querySelector('[role=dialog] input[placeholder^=Search]')"
        command = "window.app.extensionManager.command.execute('Comfy.ShowSettingsDialog')"
        tab.value(f"{command} ?? 0, void 0")
        tab.wait(opened)
        entry = "[...document.querySelectorAll('[role=dialog] *')].find((one) => !one.children.length && "
        entry += "one.textContent.trim() === 'Kontext Bridge')"
        tab.wait(entry)
        tab.value(f"{entry}.click()")
        tab.wait(f"{PANEL}.textContent.includes('No key is set')")
        yield tab


def press(tab: Tab, panel: str, label: str, then: str) -> None:
    tab.wait(
        f"(() => {{ const one = [...{panel}.querySelectorAll('button')].find((one) => one.textContent === '{label}');"
        " if (!one || one.disabled) return false; one.click(); return true; })()"
    )
    tab.wait(f"{panel}.textContent.includes({json.dumps(then)})")


def test_a_key_is_pasted_saved_tested_and_removed_and_reaches_nothing_else(
    settings: Tab, server: ComfyServer, request: pytest.FixtureRequest
) -> None:
    tab = settings
    key_file = server.base / "user" / "__kontext_bridge" / "oxen_api_key"
    tab.value(f"{PANEL}.querySelector('input').focus()")
    tab.type(f"  {KEY}\n")
    press(tab, PANEL, "Save", "Saved. It is used from the next run on.")
    assert key_file.read_text() == KEY + "\n"
    assert f"ends in {KEY[-4:]}" in tab.value(f"{PANEL}.textContent")
    press(tab, PANEL, "Test", "Oxen.ai accepts the key: it is ")
    press(tab, LIMITS, "Save", "Saved. They hold from the next run on.")
    if PICTURES:
        tab.picture(Path(PICTURES) / f"key page, {request.node.callspec.id}.png")
    assert holding_the_key(tab.value("document.documentElement.outerHTML").encode()) == set()
    assert holding_the_key(tab.value("JSON.stringify({...localStorage, ...sessionStorage})").encode()) == set()
    values = "[...document.querySelectorAll('input, textarea')].map((one) => one.value)"
    assert holding_the_key(json.dumps(tab.value(values)).encode()) == set()
    assert holding_the_key(json.dumps(tab.value("window.app.graph.serialize()")).encode()) == set()
    assert holding_the_key(json.dumps([tab.said, tab.asked]).encode()) == set()
    kept = read(server.base / "user" / "default" / "comfy.settings.json")
    assert not [name for name in kept if name.startswith("KontextBridge")]
    press(tab, PANEL, "Remove", "Removed. No key is set now.")
    assert not key_file.exists()


def test_a_limit_is_saved_and_shown_again_and_a_wrong_one_is_not(settings: Tab, server: ComfyServer) -> None:
    tab = settings
    field = f"{LIMITS}.querySelector('[data-setting=usd_per_run]')"
    tab.value(f"{field}.focus(), {field}.select()")
    tab.type("0.25")
    press(tab, LIMITS, "Save", "Saved.")
    assert server.get("/kontext-bridge/limits")["usd_per_run"]["value"] == "0.25"
    tab.value(f"{field}.value = '-1'")
    press(tab, LIMITS, "Save", "is not a number that is taken here")
    tab.value(f"{field}.value = ''")
    press(tab, LIMITS, "Save", "Saved.")
    assert server.get("/kontext-bridge/limits")["usd_per_run"]["value"] is None
