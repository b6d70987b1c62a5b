"""What stands on the nodes in the real front end, both renderers: the price before Run, the truth at every end."""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab
from comfy_server import ComfyServer
from front_end import page_of
from kontext_bridge.standin import Fault, StandIn
from pack import TWINS, read, template
from patience import PATIENCE

pytestmark = pytest.mark.comfyui
# A folder to put pictures of the page into, to be looked at.
PICTURES = os.environ.get("SAYS_PICTURES")
NODE = "window.app.graph.nodes.find((node) => node.comfyClass === 'KontextEdit')"
WIDGET = f"{NODE}.widgets.find((widget) => widget.name === '%s')"
ELEMENT = f"{WIDGET % 'kontext_bridge_line'}.element"
BADGES = f"{NODE}.badges.map((badge) => (typeof badge === 'function' ? badge() : badge).text)"
seeds = itertools.count(5000)


@pytest.fixture(scope="module", params=["classic", "nodes 2.0"])
def tab(request: pytest.FixtureRequest, server: ComfyServer, tmp_path_factory: Any) -> Iterator[Tab]:
    """The front end with the first template open."""
    with page_of(server, request.param, tmp_path_factory.mktemp("profile")) as opened:
        opened.value(f"window.app.loadGraphData({json.dumps(read(template('remote_edit')))})")
        opened.wait(f"{ELEMENT}.isConnected")
        yield opened


@pytest.fixture
def run(tab: Tab) -> Any:
    """Run the template with these values of the node's widgets; `new` takes a seed of its own."""

    def start(*, new: bool = True, **values: Any) -> None:
        if new:
            values["seed"] = next(seeds)
        for name, value in values.items():
            tab.value(f"{WIDGET % name}.value = {json.dumps(value)}")
        tab.value("window.app.queuePrompt(0)")

    yield start
    for name, value in (("variations", 1), ("timeout", 300), ("steps", 28)):
        tab.value(f"{WIDGET % name}.value = {value}")


def says(tab: Tab, pattern: str, request: pytest.FixtureRequest) -> None:
    """The line that can be read on the node is this, sooner or later."""
    end = time.monotonic() + PATIENCE
    while not re.fullmatch(pattern, tab.value(f"{ELEMENT}.innerText")):
        assert time.monotonic() < end, f"{tab.value(f'{ELEMENT}.innerText')!r} is not {pattern!r}"
        time.sleep(0.1)
    if PICTURES:
        tab.picture(Path(PICTURES) / f"{request.node.name}.png")
    tab.wait(f"{ELEMENT}.isConnected && {ELEMENT}.getBoundingClientRect().height > 8")


def test_the_price_stands_on_the_node_before_run_and_follows_the_variations(tab: Tab) -> None:
    tab.wait(f"{BADGES}.includes('$0.04')")
    tab.value(f"{WIDGET % 'variations'}.value = 4")
    tab.wait(f"{BADGES}.includes('$0.16')")
    if tab.value("window.LiteGraph.vueNodesMode"):
        tab.wait(f"document.querySelector('[data-node-id=\"' + {NODE}.id + '\"]').innerText.includes('$0.16')")
    tab.value(f"{WIDGET % 'variations'}.value = 1")
    tab.wait(f"{BADGES}.includes('$0.04')")


def test_a_price_of_pictures_that_cannot_be_counted_is_said_to_be_of_one(tab: Tab) -> None:
    link = f"{NODE}.inputs.find((input) => input.name === 'image')"
    tab.value(f"window.before = {link}.link")
    source = f"window.app.graph.getNodeById(window.app.graph.getLink({link}.link).origin_id)"
    tab.value(f"window.source = {source}, window.slot = {NODE}.inputs.indexOf({link}), void 0")
    tab.value(f"void {NODE}.disconnectInput(window.slot)")
    tab.wait(f"{BADGES}.includes('$0.04 a picture')")
    tab.value(f"void window.source.connect(0, {NODE}, window.slot)")
    tab.wait(f"{BADGES}.includes('$0.04')")


def test_every_end_stands_on_the_node(
    tab: Tab, run: Any, server: ComfyServer, comfy_service: StandIn, request: pytest.FixtureRequest
) -> None:
    run()
    says(tab, r"done · \d+ s · \$0\.04", request)
    run(new=False)
    says(tab, "unchanged, not run again", request)
    run(new=False, timeout=299)
    says(tab, "brought back, not paid again", request)
    assert "error" not in tab.value(f"{ELEMENT}.style.color")
    comfy_service.set(run_fails=Fault("the worker died", times=1))
    run()
    says(tab, r'The edit failed at Oxen\.ai: ".*the worker died.*"', request)
    tab.wait(f"{ELEMENT}.style.color.includes('error')")
    comfy_service.hold()
    try:
        run(timeout=5)
        says(tab, "still running there; run again to go on waiting", request)
        before = len(comfy_service.jobs)
        run(variations=4, timeout=300)
        comfy_service.wait_for(lambda s: len(s.jobs) == before + 4)
        tab.value("window.app.api.interrupt()")
        says(tab, r"cancelled, all 4 at Oxen\.ai too", request)
    finally:
        comfy_service.release()


def test_the_line_and_the_price_are_not_saved_nor_sent(tab: Tab) -> None:
    saved = tab.value(f"{NODE}.serialize()")
    assert "kontext_bridge_line" not in json.dumps(saved) and "$0.04" not in json.dumps(saved)
    assert tab.value(f"{ELEMENT}.innerText") and tab.value(f"{ELEMENT}.innerText") not in json.dumps(saved)
    assert saved["widgets_values"][-1] == tab.value(f"{WIDGET % 'keep'}.value"), "the node's own last widget"
    sent = tab.value(f"window.app.graphToPrompt().then((made) => made.output[{NODE}.id].inputs)")
    twin = next(node for node in read(TWINS / "remote_edit.json").values() if node["class_type"] == "KontextEdit")
    assert set(sent) == {*twin["inputs"], "keep"}


def test_a_line_comes_back_with_its_workflow_and_stands_on_no_other(
    tab: Tab, run: Any, request: pytest.FixtureRequest
) -> None:
    run()
    says(tab, r"done · \d+ s · \$0\.04", request)
    here = "window.app.extensionManager.workflow.activeWorkflow"
    tab.value(f"window.first = {here}, void 0")
    other = read(template("remote_edit"))
    other["id"] = "00000000-0000-4000-8000-000000000001"
    tab.value(f"window.app.loadGraphData({json.dumps(other)}, true, true, 'another')")
    tab.wait(f"{ELEMENT}.isConnected && {ELEMENT}.innerText === ''")
    tab.value("window.app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow') ?? 0, void 0")
    says(tab, r"done · \d+ s · \$0\.04", request)
