"""The demo model's templates in the real front end, both renderers: they open without an error and make a picture."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab
from comfy_server import ComfyServer
from front_end import page_of
from pack import DEMOS, read, template
from patience import PATIENCE

pytestmark = pytest.mark.comfyui
# A folder to put pictures of the page into, to be looked at.
PICTURES = os.environ.get("DEMO_PICTURES")
SHOWN = "window.app.graph.nodes.some((node) => node.type === 'SaveImage' && node.imgs?.[0]?.naturalWidth === 1024)"
VUE_SHOWN = (
    "[...document.querySelectorAll('img')].some((image) => image.src.includes('filename=demo') && image.complete)"
)


@pytest.fixture(scope="module", params=["classic", "nodes 2.0"])
def tab(request: pytest.FixtureRequest, server: ComfyServer, tmp_path_factory: Any) -> Iterator[Tab]:
    with page_of(server, request.param, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_template_that_opens_with_an_error_or_shows_no_picture_is_noticed(
    name: str, tab: Tab, server: ComfyServer, request: pytest.FixtureRequest
) -> None:
    tab.value(f"window.app.loadGraphData({json.dumps(read(template(name)))})")
    tab.wait("window.app.graph.nodes.some((node) => node.type === 'KontextLoadDemo')")
    tab.value("window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    before = len(server.get("/history"))
    tab.value("window.app.queuePrompt(0)")
    end = time.monotonic() + 5 * PATIENCE  # five edits on a computer with other things to do
    while len(server.get("/history")) == before and time.monotonic() < end:
        time.sleep(0.2)  # until then the page may show the picture of the run before
    tab.wait(f"{SHOWN} || {VUE_SHOWN}")
    time.sleep(2)  # a picture fades in
    if PICTURES:
        tab.picture(Path(PICTURES, f"{name}_{request.node.callspec.params['tab'].replace(' ', '_')}.png"))
    runs = list(server.get("/history").values())
    assert len(runs) == before + 1 and runs[-1]["status"]["status_str"] == "success"
    said = tab.value("document.body.innerText")
    assert "Missing" not in said and "input missing" not in said.lower()
