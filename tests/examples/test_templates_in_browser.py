"""Every template opens clean on a fresh folder, in both renderers of the real front end; what is missing is offered."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Tab
from comfy_server import ComfyServer
from front_end import SHOWN, model_files, open_template, start
from pack import LOCAL, NAMES

pytestmark = pytest.mark.comfyui
# A folder to put pictures of the page into, to be looked at.
PICTURES = os.environ.get("TEMPLATE_PICTURES")
LOOKED_THROUGH_S = 2  # what is missing is looked for after the graph is there
# front end 1.58 calls them issues
WRONG = re.compile(r"missing|(error|issue)s? (found|detected)|^(error|issue)s?$", re.IGNORECASE | re.MULTILINE)


@pytest.fixture(scope="module")
def with_models(fresh_server: ComfyServer) -> Iterator[None]:
    """The models of the local templates are there by name; nothing is run with them."""
    files = model_files(fresh_server.base)
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    yield
    for path in files:
        path.unlink()


@pytest.mark.parametrize("name", NAMES + LOCAL)
def test_a_template_that_opens_with_an_error_is_noticed(
    name: str,
    with_models: None,
    fresh_tab: Tab,
    fresh_server: ComfyServer,
    request: pytest.FixtureRequest,
) -> None:
    open_template(fresh_tab, name)
    time.sleep(LOOKED_THROUGH_S)
    if PICTURES:
        fresh_tab.picture(Path(PICTURES) / f"{request.node.callspec.id}.png")
    assert WRONG.findall(fresh_tab.value(SHOWN)) == []
    assert fresh_tab.value("window.app.graph.nodes.filter((node) => node.has_errors).map((node) => node.type)") == []


def test_an_app_that_does_not_open_as_a_form_is_noticed(fresh_tab: Tab) -> None:
    open_template(fresh_tab, "remote_edit_app")
    for asked in ("image", "prompt", "seed", "keep", "Number of runs"):
        fresh_tab.wait(f"{SHOWN}.includes('{asked}')")
    assert fresh_tab.value("window.app.extensionManager.workflow.activeWorkflow.initialMode") == "app"


def test_what_shows_an_error_is_known_by_the_test_above(fresh_tab: Tab, fresh_server: ComfyServer) -> None:
    missing = [path for path in model_files(fresh_server.base) if "loras" not in path.parts]
    for path in missing:
        path.rename(path.with_suffix(".away"))
    try:
        start(fresh_tab, fresh_server)
        open_template(fresh_tab, "local_edit")
        fresh_tab.wait(f"/4 (error|issue)s found/.test({SHOWN})")
        assert WRONG.findall(fresh_tab.value(SHOWN))
        details = "[...document.querySelectorAll('button')].find((one) => one.innerText.trim() === 'View details')"
        fresh_tab.value(f"{details}.click()")
        fresh_tab.wait(f"{SHOWN}.includes('Download all')")
        if PICTURES:
            fresh_tab.picture(Path(PICTURES) / "download.png")
        assert [path.name for path in missing if path.name not in fresh_tab.value(SHOWN)] == []
    finally:
        for path in missing:
            path.with_suffix(".away").rename(path)
