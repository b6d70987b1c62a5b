"""Kontext Edit Folder in the real ComfyUI: over a kill and a restart, and as it stands on the canvas."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab
from comfy_server import ComfyServer, account_at, comfy_server_with, comfyui
from front_end import open_template, page_of
from kontext_bridge.standin import Fault, StandIn
from pack import REPOSITORY, TWINS, read
from patience import PATIENCE
from PIL import Image

pytestmark = pytest.mark.comfyui
COUNT = 200
# A folder to put pictures of the page into, to be looked at.
PICTURES = os.environ.get("FOLDER_PICTURES")
NODE = "window.app.graph.nodes.find((node) => node.comfyClass === 'KontextEditFolder')"
WIDGET = f"{NODE}.widgets.find((widget) => widget.name === '%s')"
LINE = f"{WIDGET % 'kontext_bridge_line'}.element"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kontext_bridge.standin.picture.SIZES", ((256, 192),))  # quickly drawn


def workflow(**inputs: Any) -> dict[str, Any]:
    graph = read(TWINS / "folder_edit.json")
    graph["1"]["inputs"] |= {"folder": "many", "output_format": "jpg", "usd_limit": 0, **inputs}
    return dict(graph)


def test_two_hundred_pictures_over_a_kill_of_comfyui_are_two_hundred_results_and_bills(
    tmp_path: Path, comfy_service: StandIn
) -> None:
    comfyui()
    before = len(comfy_service.billed)
    (tmp_path / "in" / "many").mkdir(parents=True)
    for number in range(COUNT):
        Image.new("RGB", (32, 24), (number, 255 - number, 9)).save(tmp_path / "in" / "many" / f"{number:03}.png")
    packs = {"kontext-bridge": REPOSITORY}
    environment = {**account_at(comfy_service), "KONTEXT_BRIDGE_HOME": str(tmp_path / "home")}
    folders = ("--input-directory", str(tmp_path / "in"), "--output-directory", str(tmp_path / "out"))
    results = tmp_path / "out" / "many"
    with comfy_server_with(packs, tmp_path / "first", environment, arguments=folders) as first:
        first.submit(workflow())
        comfy_service.wait_for(lambda s: len(s.billed) - before >= 70, timeout=8 * PATIENCE)
        first.process.kill()
        first.process.wait()
    paid = len(comfy_service.billed) - before
    assert 70 <= paid < COUNT and 0 < len(list(results.glob("*.jpg"))) < COUNT
    with comfy_server_with(packs, tmp_path / "second", environment, arguments=folders) as second:
        done = second.run(workflow())
        assert done["status"]["status_str"] == "success", done["status"]["messages"]
        if "failed:" in done["outputs"]["1"]["text"][0]:  # killed while it sent: nobody can know, so the artist decides
            done = second.run(workflow(pay_for_lost=True))
        assert done["outputs"]["1"]["text"][0].startswith("200 of 200 pictures are done, $8.00 paid\n")
        (sheet,) = done["outputs"]["1"]["images"]
        assert (second.base / "temp" / sheet["filename"]).is_file()
        again = second.run(workflow())
    assert len(comfy_service.billed) - before == COUNT and len(list(results.glob("*.jpg"))) == COUNT
    assert again["outputs"]["1"]["text"] == done["outputs"]["1"]["text"], "and once more pays for nothing"
    lines = [json.loads(line) for line in (results / "report.jsonl").read_text().splitlines()]
    assert len({line["generation_id"] for line in lines if line["state"] == "done"}) == COUNT
    for path in results.glob("*.jpg"):
        with Image.open(path) as picture:
            picture.load()
    assert comfy_service.leaks == []


@pytest.fixture(scope="module", params=["classic", "nodes 2.0"])
def tab(
    request: pytest.FixtureRequest, fresh_server: ComfyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tab]:
    with page_of(fresh_server, request.param, tmp_path_factory.mktemp("profile")) as opened:
        open_template(opened, "folder_edit")
        opened.wait(f"{LINE}.isConnected")
        yield opened


def said(tab: Tab, pattern: str, name: str, request: pytest.FixtureRequest) -> None:
    """The line on the node is this, sooner or later; a picture of the page then."""
    end = time.monotonic() + PATIENCE
    while not re.fullmatch(pattern, tab.value(f"{LINE}.innerText")):
        assert time.monotonic() < end, f"{tab.value(f'{LINE}.innerText')!r} is not {pattern!r}"
        time.sleep(0.2)
    if PICTURES:
        time.sleep(1)
        tab.picture(Path(PICTURES) / f"{request.node.callspec.id}-{name}.png")


def test_how_far_it_is_and_the_contact_sheet_stand_on_the_node(
    tab: Tab, fresh_server: ComfyServer, comfy_service: StandIn, request: pytest.FixtureRequest
) -> None:
    output = request.node.callspec.id.replace(" ", "_").replace(".", "_")
    tab.wait(f"{NODE}.badges.map((one) => (typeof one === 'function' ? one() : one).text).includes('$0.04 a picture')")
    comfy_service.hold()
    run(tab, output=output, prompt=f"Make it {output}")
    said(tab, r"0 of 3 pictures|looking at the folder.*", "runs", request)
    comfy_service.release()
    said(tab, r"3 of 3 done · \$0\.12", "done", request)
    tab.wait(
        f"{NODE}.imgs?.[0]?.naturalWidth > 500 || document.querySelector('[data-node-id] img')?.naturalWidth > 500"
    )
    run(tab)
    said(tab, r"3 of 3 done, nothing new · \$0\.12", "again", request)
    comfy_service.set(run_fails=Fault("the worker died", times=1))
    run(tab, output=f"{output}_failed", prompt=f"Make it fail, {output}")
    said(tab, r"2 of 3 done · 1 failed · \$0\.08", "failed", request)
    status, reply = fresh_server.post("/prompt", {"prompt": workflow(folder="../models")})
    assert status == 400 and "leads out" in json.dumps(reply)


def run(tab: Tab, **values: str) -> None:
    """Run what is open, with these values of the node's widgets."""
    for name, value in values.items():
        tab.value(f"{WIDGET % name}.value = {json.dumps(value)}")
    tab.value("window.app.queuePrompt(0)")


def test_a_name_that_is_refused_stands_on_the_node_and_marks_no_other_input(
    tab: Tab, request: pytest.FixtureRequest
) -> None:
    marked = f"window.app.lastNodeErrors?.[{NODE}.id]?.errors.map((error) => error.extra_info.input_name)"
    for values, wrong in (
        ({"folder": "../models", "prompt": "Make it night"}, "folder"),
        ({"folder": "shoot", "output": "../prompt"}, "output"),
        ({"output": "", "prompt": ""}, "prompt"),
    ):
        run(tab, **values)
        said(tab, rf"(The )?{wrong} is .*", f"refused {wrong}", request)
        tab.wait(f"{LINE}.style.color.includes('error')")
        tab.wait(f"JSON.stringify({marked}) === '[\"{wrong}\"]'")
