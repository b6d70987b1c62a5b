"""The panel *Edits* in the real front end, both renderers: it opens, searches, compares, drags, cancels, collects."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, chromium
from comfy_server import ComfyServer, account_at, comfy_server_with, comfyui
from frames import CATEGORIES, Frames, frames_of
from front_end import page_of
from kontext_bridge.oxen.jobs.ledger import FILE_NAME
from kontext_bridge.standin import StandIn
from pack import REPOSITORY, TWINS, WORKFLOWS, read, template

pytestmark = pytest.mark.comfyui
# A folder to put pictures of the page into, to be looked at.
PICTURES = os.environ.get("EDITS_PICTURES")
PANEL = "document.querySelector('[data-kontext-edits]')"
TILES = f"[...{PANEL}.querySelectorAll('[data-edit]')].filter((one) => !one.hidden)"
SHOWN = (
    f"{TILES}.filter((one) => one.firstChild.complete && one.firstChild.naturalWidth"
    " && one.firstChild.style.visibility !== 'hidden')"
)
GRID = f"{PANEL}.querySelector('[role=group]')"
# 5 s of scrolling, at first as a wheel does it and then as who drags the bar: the longest frame by the clock.
SCROLL = (
    f"(async () => {{ const list = {GRID};"
    " let worst = 0, at = performance.now(), end = at + 5000, frames = 0, step = list.scrollHeight / 300;"
    " while (at < end) { await new Promise(requestAnimationFrame); const now = performance.now();"
    " worst = Math.max(worst, now - at); at = now; frames++;"
    " list.scrollTop = frames < 200 ? list.scrollTop + 40 : list.scrollTop + step;"
    " if (list.scrollTop + list.clientHeight >= list.scrollHeight - 1) list.scrollTop = 0; }"
    " return worst; })()"
)
# In the grid's place an empty list that is as long, to tell what the page itself does when something is scrolled.
EMPTY = (
    f"(() => {{ const list = {GRID}, empty = list.cloneNode(true); empty.firstChild.replaceChildren();"
    " list.before(empty); list.style.display = 'none'; })()"
)
FULL = f"(() => {{ const empty = {GRID}; empty.nextSibling.style.display = ''; empty.remove(); }})()"
# Whole screens, 20 frames of them: how many tiles became another edit's meanwhile, how many frames after the last until
# there is one in the middle.
FLY = (
    f"(async () => {{ const list = {GRID}, next = () => new Promise(requestAnimationFrame); let written = 0;"
    " list.scrollTop = 0; for (let i = 0; i < 5; i++) await next();"
    " const watch = new MutationObserver((seen) => (written += seen.length));"
    " watch.observe(list, { subtree: true, childList: true, attributeFilter: ['data-edit'] });"
    " for (let i = 0; i < 20; i++) { list.scrollTop += list.clientHeight; await next(); }"
    " const flown = written, { left, top, width, height } = list.getBoundingClientRect(); let frames = 0;"
    " const there = () => document.elementsFromPoint(left + 20, top + height / 2).concat("
    "   document.elementsFromPoint(left + 20, top + height / 2 + 10)).some((one) => one.dataset.edit);"
    " while (!there() && frames < 60) { await next(); frames++; }"
    " watch.disconnect(); return { flown, frames, written }; })()"
)
LONGEST_MS = 50
SHOWS_S = 2
LOOKS = "performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/edits/now'))"
JS = "/extensions/kontext-bridge/js"
MANY = 10_000
NODES = "window.app.graph.nodes"
KONTEXT = f"{NODES}.filter((node) => node.comfyClass === 'KontextEdit')"
WIRED = f"{KONTEXT}.at(-1).inputs.find((one) => one.name === 'image').link != null"
seeds = itertools.count(91_000)


def many_edits() -> Any:
    spec = importlib.util.spec_from_file_location("many_edits", REPOSITORY / "benchmarks" / "many_edits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("edits") / "home"
    return folder


@pytest.fixture(scope="module")
def server(home: Path, tmp_path_factory: pytest.TempPathFactory, comfy_service: StandIn) -> Iterator[ComfyServer]:
    comfyui()
    chromium()
    many_edits().fill(home, MANY)
    base = tmp_path_factory.mktemp("comfyui") / "base"
    environment = {**account_at(comfy_service), "KONTEXT_BRIDGE_HOME": str(home)}
    with comfy_server_with({"kontext-bridge": REPOSITORY}, base, environment) as running:
        shutil.copy(WORKFLOWS / "kontext_example.png", running.base / "input")
        yield running


@pytest.fixture(scope="module", params=["classic", "nodes 2.0"])
def tab(request: pytest.FixtureRequest, server: ComfyServer, tmp_path_factory: Any) -> Iterator[Tab]:
    with page_of(server, request.param, tmp_path_factory.mktemp("profile")) as opened:
        opened.value(f"window.app.loadGraphData({json.dumps(read(template('remote_edit')))})")
        toggle(opened, True)
        yield opened


def toggle(tab: Tab, open: bool) -> None:
    if tab.value(f"!!{PANEL}") != open:
        tab.value("void window.app.extensionManager.sidebarTab.toggleSidebarTab('kontext-bridge-edits')")
    tab.wait(f"!!{PANEL} === {json.dumps(open)}")


def note(measured: str) -> None:
    """What was measured, into a file beside the pictures."""
    if PICTURES:
        with (Path(PICTURES) / "measured.txt").open("a", encoding="utf-8") as file:
            file.write(measured + "\n")


def look_at(tab: Tab, request: pytest.FixtureRequest) -> None:
    if PICTURES:
        tab.picture(Path(PICTURES) / f"{request.node.name}.png")


def scrolled(tab: Tab) -> tuple[float, Frames]:
    """The longest frame of SCROLL by the clock, in ms, and what each was worked for.

    What the page left behind before is collected first. Else that falls into some frame of whatever is scrolled then:
    after ComfyUI's start one of 60 to 70 ms.
    """
    tab.call("HeapProfiler.collectGarbage")
    worst, events = tab.traced(SCROLL, CATEGORIES)
    return worst, frames_of(events)


def run(server: ComfyServer, prompt: str = "the hat becomes red") -> str:
    """An edit that another page starts; its prompt."""
    workflow = read(TWINS / "remote_edit.json")
    number = next(seeds)
    for node in workflow.values():
        if node["class_type"] == "KontextEdit":
            node["inputs"] |= {"seed": number, "prompt": f"{prompt} {number}"}
    graph = read(template("remote_edit"))
    status, reply = server.post("/prompt", {"prompt": workflow, "extra_data": {"extra_pnginfo": {"workflow": graph}}})
    assert status == 200, reply
    return f"{prompt} {number}"


def press(tab: Tab, label: str, then: str) -> None:
    tab.wait(
        f"(() => {{ const one = [...{PANEL}.querySelectorAll('button')].find((one) => one.textContent === '{label}');"
        " if (!one || one.disabled) return false; one.click(); return true; })()"
    )
    tab.wait(then)


def open_newest(tab: Tab, prompt: str) -> None:
    """The detail view of the newest edit, which has this prompt."""
    end = time.monotonic() + 30
    while True:
        tab.wait(f"{TILES}.length > 0")
        tab.value(f"{PANEL}.querySelector('[role=group]').scrollTop = 0")
        tab.value(
            f"{TILES}.sort((a, b) => parseInt(a.dataset.edit.slice(1)) - parseInt(b.dataset.edit.slice(1)))"
            ".at(-1).click()"
        )
        tab.wait(f"{PANEL}.querySelector('[data-detail] dl')")
        if prompt in tab.value(f"{PANEL}.querySelector('[data-detail]').textContent"):
            return
        assert time.monotonic() < end, tab.value(f"{PANEL}.textContent")
        press(tab, "Back", f"!{PANEL}.querySelector('[data-detail]')")
        time.sleep(0.5)


def test_it_opens_at_once_with_ten_thousand_edits_and_scrolls_without_a_gap(
    tab: Tab, request: pytest.FixtureRequest
) -> None:
    toggle(tab, False)
    opened = tab.value(
        "(async () => { const since = performance.now();"
        " window.app.extensionManager.sidebarTab.toggleSidebarTab('kontext-bridge-edits');"
        f" while (!({PANEL} && {TILES}.length)) await new Promise(requestAnimationFrame);"
        " return performance.now() - since; })()"
    )
    tab.wait(f"{SHOWN}.length >= {TILES}.length / 2")
    look_at(tab, request)
    worst, ours = scrolled(tab)
    elements = tab.value(f"{PANEL}.querySelectorAll('[data-edit]').length")
    tab.value(EMPTY)
    worst_empty, empty = scrolled(tab)
    tab.value(FULL)
    note(f"load {os.getloadavg()[0]:.1f}; opened in {opened:.0f} ms")
    note(f"scrolled: {ours}, longest by the clock {worst:.0f} ms")
    note(f"an empty list: {empty}, longest by the clock {worst_empty:.0f} ms")
    # what was measured stands in benchmarks/RESULTS.md; here, that nothing is made for all of them at once, that no
    # frame's work is long, nor twice that of an empty list, and that none is laid out more than once
    assert opened < 2000 and elements < 200
    assert ours.long < LONGEST_MS and ours.layouts <= 1.25 * len(ours.work), str(ours)
    assert ours.usual < 2 * empty.usual, f"{ours}; {empty}"
    tab.value(f"{PANEL}.querySelector('[role=group]').scrollTop = 1e9")
    tab.wait(f"{TILES}.some((one) => one.dataset.edit.startsWith('r1-'))")
    tab.wait(f"{SHOWN}.length > 5")
    tab.value(f"{PANEL}.querySelector('[role=group]').scrollTop = 0")


def test_nothing_is_written_while_the_list_flies_past_and_at_rest_the_edits_are_there(tab: Tab) -> None:
    flown = tab.value(FLY)
    assert flown["flown"] == 0, flown
    assert flown["frames"] <= 5 and flown["written"] > 0, flown
    tab.wait(f"{SHOWN}.length > 5")
    tab.value(f"{GRID}.scrollTop = 0")


def showed_after(tab: Tab, server: ComfyServer, home: Path, service: StandIn) -> tuple[float, str]:
    """Seconds from when an edit that another page starts was written down to when its prompt stood in the panel."""
    before, words = len(service.jobs), json.dumps(f"shows {next(seeds)}")
    tab.value(
        f"void (window.showed = new Promise((end) => {{ const look = () => {PANEL}.textContent.includes({words})"
        " && (watch.disconnect(), end(Date.now() / 1000)); const watch = new MutationObserver(look);"
        f" watch.observe({PANEL}, {{ subtree: true, childList: true, characterData: true }}); }}))"
    )
    prompt = run(server, json.loads(words))
    service.wait_for(lambda s: len(s.jobs) == before + 1)
    showed = tab.value("window.showed")
    with contextlib.closing(sqlite3.connect(f"{(home / FILE_NAME).as_uri()}?mode=ro", uri=True)) as ledger:
        (began,) = ledger.execute("SELECT created_at FROM jobs ORDER BY id DESC LIMIT 1").fetchone()
    return showed - began, prompt


def test_a_job_of_another_page_shows_within_two_seconds_and_can_be_cancelled(
    tab: Tab, server: ComfyServer, home: Path, comfy_service: StandIn, request: pytest.FixtureRequest
) -> None:
    comfy_service.hold()
    tab.value("performance.clearResourceTimings()")
    try:
        took, prompt = showed_after(tab, server, home, comfy_service)
        note(f"a job showed after {took:.1f} s")
        # where the machine is busy with something else one may be late, and not three in a row
        for _ in range(2):
            if took >= SHOWS_S:
                press(tab, "Cancel", f"!{PANEL}.textContent.includes({json.dumps(prompt)})")
                took, prompt = showed_after(tab, server, home, comfy_service)
        assert took < SHOWS_S
        tab.wait(f"{PANEL}.textContent.includes('at Oxen.ai ·')")
        tab.wait(f"{LOOKS}.length > 4")
        looks = tab.value(f"{LOOKS}.map((one) => [one.startTime, one.responseEnd])")
        pauses = [later[0] - earlier[1] for earlier, later in itertools.pairwise(looks)]
        assert min(pauses) < 1000 * SHOWS_S - 250, pauses  # a busy machine makes some longer, and none shorter
        tab.wait(f"{PANEL}.querySelector('[data-job] img').naturalWidth")
        look_at(tab, request)
        press(tab, "Cancel", f"!{PANEL}.textContent.includes({json.dumps(prompt)})")
        assert list(comfy_service.jobs.values())[-1].status.value == "cancelled"
    finally:
        comfy_service.release()


def test_a_page_in_the_background_asks_for_nothing_and_shows_a_job_at_the_first_look_after(
    tab: Tab, server: ComfyServer, comfy_service: StandIn
) -> None:
    tab.value("Object.defineProperty(document, 'hidden', { value: true, configurable: true }), void 0")
    comfy_service.hold()
    try:
        before = len(comfy_service.jobs)
        time.sleep(1.5)  # for a look that was under way
        tab.value("performance.clearResourceTimings()")
        prompt = run(server)
        comfy_service.wait_for(lambda s: len(s.jobs) == before + 1)
        time.sleep(1.5)
        assert tab.value(f"{LOOKS}.length") == 0
        tab.value("delete document.hidden, document.dispatchEvent(new Event('visibilitychange')), void 0")
        tab.wait(f"{PANEL}.textContent.includes({json.dumps(prompt)}) || {LOOKS}.length > 1")
        assert prompt in tab.value(f"{PANEL}.textContent")
        press(tab, "Cancel", f"!{PANEL}.textContent.includes({json.dumps(prompt)})")
    finally:
        tab.value("delete document.hidden, void 0")
        comfy_service.release()


def test_an_edit_is_compared_used_again_and_its_graph_revealed(
    tab: Tab, server: ComfyServer, request: pytest.FixtureRequest
) -> None:
    prompt = run(server)
    tab.value(f"{PANEL}.querySelector('[role=group]').scrollTop = 0")
    open_newest(tab, prompt)
    detail = f"{PANEL}.querySelector('[data-detail]')"
    tab.wait(f"[...{detail}.querySelectorAll('img')].filter((one) => one.naturalWidth).length === 2")
    tab.value(
        f"(() => {{ const one = {detail}.querySelector('input[type=range]'); one.value = 30;"
        " one.dispatchEvent(new Event('input')); })()"
    )
    assert tab.value(f"{detail}.querySelectorAll('img')[1].style.clipPath") == "inset(0px 70% 0px 0px)"
    for word in ("flux-kontext-dev", "$0.04", "Seed", "28"):
        assert word in tab.value(f"{detail}.textContent")
    look_at(tab, request)
    press(tab, "Use this prompt", f"{detail}.textContent.includes('Written into')")
    assert tab.value(f"{KONTEXT}[0].widgets.find((one) => one.name === 'prompt').value") == prompt
    count = tab.value(f"{NODES}.length")
    press(tab, "Put on the canvas", f"{detail}.textContent.includes('Added as Load Image')")
    assert tab.value(f"{NODES}.length") == count + 1
    press(tab, "Edit this again", f"{NODES}.length === {count + 3}")
    tab.wait(WIRED)
    tab.wait("document.activeElement?.tagName === 'TEXTAREA'")
    loaded = tab.value(f"{NODES}.filter((node) => node.comfyClass === 'LoadImage').at(-1).widgets[0].value")
    assert (server.base / "input" / loaded).is_file()
    look_at(tab, request)
    press(tab, "Reveal the graph", f"{detail}.textContent.includes('Opened as')")
    assert tab.value(f"{NODES}.length") == len(read(template("remote_edit"))["nodes"])
    press(tab, "Back", f"!{detail}")


def test_an_edit_dropped_on_the_canvas_becomes_a_load_image_there(tab: Tab) -> None:
    tab.wait(f"{TILES}.length")
    before = tab.value("window.app.graph.nodes.length")
    tab.value(
        "(() => { const data = new DataTransfer();"
        f" {TILES}[0].dispatchEvent(new DragEvent('dragstart', {{ dataTransfer: data, bubbles: true }}));"
        " const canvas = window.app.canvas.canvas;"
        " for (const name of ['dragover', 'drop']) canvas.dispatchEvent(new DragEvent(name,"
        " { dataTransfer: data, clientX: 900, clientY: 500, bubbles: true, cancelable: true })); })()"
    )
    tab.wait(f"window.app.graph.nodes.length === {before + 1}")
    node = "window.app.graph.nodes.at(-1)"
    assert tab.value(f"{node}.comfyClass") == "LoadImage"
    tab.wait(f"{node}.imgs?.[0]?.naturalWidth || {node}.images?.length || document.querySelector('[data-node-id] img')")
    ds = tab.value(
        "({ x: window.app.canvas.ds.offset[0], y: window.app.canvas.ds.offset[1], s: window.app.canvas.ds.scale,"
        " l: window.app.canvas.canvas.getBoundingClientRect().left,"
        " t: window.app.canvas.canvas.getBoundingClientRect().top })"
    )
    x, y = tab.value(f"[...{node}.pos]")
    assert abs((x + ds["x"]) * ds["s"] + ds["l"] - 900) < 12 and abs((y + ds["y"]) * ds["s"] + ds["t"] - 500) < 12


def test_one_comes_back_to_the_place_in_the_grid_that_one_left(tab: Tab) -> None:
    grid = f"{PANEL}.querySelector('[role=group]')"
    tab.value(f"{grid}.scrollTop = 90000")
    tab.wait(f"{TILES}.length > 10 && {TILES}.every((one) => one.dataset.edit)")
    time.sleep(0.5)
    tab.value(f"{TILES}[12].dispatchEvent(new KeyboardEvent('keydown', {{ key: 'Enter', bubbles: true }}))")
    tab.wait(f"{PANEL}.querySelector('[data-detail] dl')")
    press(tab, "Back", f"{TILES}.length > 10")
    assert tab.value(f"{grid}.scrollTop") == 90000
    tab.value(f"{grid}.scrollTop = 0")


def test_a_search_finds_by_the_prompt_and_goes_back(tab: Tab, request: pytest.FixtureRequest) -> None:
    box = f"{PANEL}.querySelector('input[type=search]')"
    tab.value(f"{box}.focus()")
    tab.type("number 4321")
    tab.wait(f"{TILES}.length === 1 && {TILES}[0].dataset.edit.startsWith('r4322-')")
    tab.value(f"{box}.value = 'no edit has this', {box}.dispatchEvent(new Event('input')), void 0")
    tab.wait(f"{TILES}.length === 0 && {PANEL}.textContent.includes('No edit has that')")
    look_at(tab, request)
    tab.value(f"{box}.value = '', {box}.dispatchEvent(new Event('input')), void 0")
    tab.wait(f"{TILES}.length > 10")


def test_what_a_run_left_behind_is_collected(
    tab: Tab, server: ComfyServer, comfy_service: StandIn, request: pytest.FixtureRequest
) -> None:
    workflow = read(TWINS / "submit_and_collect.json")
    submit = {id: node for id, node in workflow.items() if node["class_type"] != "KontextCollect"}
    kept = {id: node for id, node in submit.items() if node["class_type"] in {"LoadImage", "KontextSubmit"}}
    for node in kept.values():
        if node["class_type"] == "KontextSubmit":
            node["inputs"] |= {"seed": next(seeds), "prompt": "left behind"}
    server.run(kept)
    tab.wait(f"{PANEL}.textContent.includes('Not collected (1)')")
    look_at(tab, request)
    bills = len(comfy_service.billed)
    press(tab, "Collect", f"!{PANEL}.textContent.includes('Not collected')")
    assert len(comfy_service.billed) == bills
    open_newest(tab, "left behind")
    press(tab, "Back", f"!{PANEL}.querySelector('[data-detail]')")


def select(tab: Tab, kind: str) -> None:
    tab.value(f"void window.app.canvas.selectNode({NODES}.find((node) => node.comfyClass === '{kind}'))")


def test_a_picture_node_is_edited_from_its_toolbox(tab: Tab) -> None:
    tab.value(f"window.app.loadGraphData({json.dumps(read(template('remote_edit')))})")
    for kind in ("LoadImage", "PreviewImage", "SaveImage"):
        if not tab.value(f"window.app.graph.nodes.some((node) => node.comfyClass === '{kind}')"):
            continue
        before = tab.value(f"{KONTEXT}.length")
        tab.value(
            f"void window.app.canvas.selectNode(window.app.graph.nodes.find((node) => node.comfyClass === '{kind}'))"
        )
        tab.value("void window.app.extensionManager.command.execute('KontextBridge.EditWithKontext')")
        tab.wait(f"{KONTEXT}.length === {before + 1}")
        tab.wait(WIRED)
        tab.wait("document.activeElement?.tagName === 'TEXTAREA'")
    tab.value(
        "void window.app.canvas.selectNode(window.app.graph.nodes.find((node) => node.comfyClass === 'LoadImage'))"
    )
    tab.wait(
        "document.querySelector('.selection-toolbox, [class*=selection-toolbox]')?.innerHTML.includes('pi-pencil')"
    )


def test_the_grid_shows_what_is_in_sight_and_no_more(tab: Tab) -> None:
    module = f"import('{JS}/virtual_grid.js')"
    lay = tab.value(f"{module}.then((m) => m.layoutOf(330, 10000))")
    assert lay["columns"] == 3 and abs(lay["side"] - 106) < 1 and lay["height"] > 370_000
    sight = f"{module}.then((m) => m.inSight(m.layoutOf(330, 10000), %s, 800, 10000))"
    assert tab.value(sight % 0) == {"first": 0, "last": 30}
    end = tab.value(sight % "1e9")
    assert end["last"] == 10_000 and end["first"] <= end["last"]
    assert tab.value(f"{module}.then((m) => m.inSight(m.layoutOf(0, 0), 0, 0, 0))") == {"first": 0, "last": 0}


def test_numbers_are_written_as_people_read_them(tab: Tab) -> None:
    words = f"import('{JS}/edit_words.js')"
    amounts = tab.value(f"{words}.then((m) => ['0', '0.04', '0.0425', '12.5', '1e3'].map(m.dollarsOf))")
    assert amounts == ["$0.00", "$0.04", "$0.0425", "$12.50", "$1000.00"]
    times = tab.value(f"{words}.then((m) => [0, 9.2, 59.4, 59.6, 75, 7300].map(m.secondsOf))")
    assert times == ["0 s", "9 s", "59 s", "1:00", "1:15", "2:01 h"]


def test_a_slider_without_a_picture_before_is_the_picture_alone(tab: Tab) -> None:
    made = f"import('{JS}/compare_slider.js').then((m) => m.compareSlider({{ after: 'data:,' }}).children.length)"
    assert tab.value(made) == 1
