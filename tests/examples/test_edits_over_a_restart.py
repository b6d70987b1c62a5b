"""The panel *Edits* stays open while ComfyUI is stopped and started again: it says so, goes on, and nothing is lost."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from browser import a_tab, chromium
from comfy_server import account_at, comfy_server_with, comfyui
from kontext_bridge.standin import StandIn
from pack import REPOSITORY, TWINS, WORKFLOWS, read

pytestmark = pytest.mark.comfyui
PANEL = "document.querySelector('[data-kontext-edits]')"


def test_a_job_that_a_restart_left_behind_is_shown_and_collected_by_the_page_that_was_open(
    tmp_path: Path, comfy_service: StandIn
) -> None:
    comfyui()
    chromium()
    packs = {"kontext-bridge": REPOSITORY}
    environment = {**account_at(comfy_service), "KONTEXT_BRIDGE_HOME": str(tmp_path / "home")}
    workflow = read(TWINS / "remote_edit.json")
    with a_tab(tmp_path / "profile") as tab:
        with comfy_server_with(packs, tmp_path / "first", environment) as first:
            picture = (WORKFLOWS / "kontext_example.png").read_bytes()
            (first.base / "input" / "kontext_example.png").write_bytes(picture)
            assert first.post("/api/settings", {"Comfy.TutorialCompleted": True})[0] == 200
            tab.open(first.url)
            tab.wait("window.app?.extensionManager?.command && window.LiteGraph?.registered_node_types?.KontextEdit")
            time.sleep(3)  # what a page does while it still loads may be undone
            tab.value("void window.app.extensionManager.sidebarTab.toggleSidebarTab('kontext-bridge-edits')")
            tab.wait(f"{PANEL}.textContent.includes('Nothing was made on this machine yet')")
            comfy_service.hold()
            before = len(comfy_service.jobs)
            first.submit(workflow)
            comfy_service.wait_for(lambda s: len(s.jobs) == before + 1)
            tab.wait(f"{PANEL}.textContent.includes('Running (1)')", 10)
            first.process.kill()
        tab.wait(f"{PANEL}.textContent.includes('ComfyUI does not answer')", 10)
        port = int(first.url.rpartition(":")[2])
        with comfy_server_with(packs, tmp_path / "second", environment, port=port) as second:
            tab.wait(f"{PANEL}.textContent.includes('Not collected (1)')", 10)
            assert "does not answer" not in tab.value(f"{PANEL}.innerText")
            comfy_service.release()
            press = f"[...{PANEL}.querySelectorAll('button')].find((one) => one.textContent === %s).click()"
            tab.value(press % json.dumps("Collect"))
            tab.wait(f"!{PANEL}.querySelector('[data-job]') && {PANEL}.querySelector('[data-edit]')")
            tab.wait(f"{PANEL}.querySelector('[data-edit] img').naturalWidth")
            assert len(comfy_service.billed) == 1
            (second.base / "input" / "kontext_example.png").write_bytes(picture)
            next(node for node in workflow.values() if node["class_type"] == "KontextEdit")["inputs"]["seed"] = 77
            comfy_service.hold()
            second.submit(workflow)
            tab.wait(f"{PANEL}.textContent.includes('Running (1)')", 10)
            comfy_service.release()
            tab.wait(f"{PANEL}.querySelectorAll('[data-edit]:not([hidden])').length === 2")
