"""What an artist finds in the front end, both renderers: search, blueprints, six widgets, a button on a picture."""

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
from front_end import open_template
from pack import REPOSITORY, read

pytestmark = pytest.mark.comfyui
# A folder to put pictures of the page into, to be looked at.
PICTURES = os.environ.get("FIRST_CONTACT_PICTURES")
BLUEPRINTS = sorted((REPOSITORY / "subgraphs").glob("*.json"))
SIX = ["prompt", "aspect_ratio", "steps", "guidance", "seed", "keep"]
EDIT = "window.app.graph.nodes.find((node) => node.comfyClass === 'KontextEdit')"
# Widgets by name that can be seen, without the one under a seed and our line of text.
SEEN = (
    "{node}.widgets.filter((widget) => {node}.isWidgetVisible(widget) && widget.name in {node}.constructor.nodeData."
    "inputs).map((widget) => widget.name)"
)
DIALOG = "[...document.querySelectorAll('[role=dialog]')].at(-1)"
FOUND = f"{DIALOG}?.innerText ?? ''"


@pytest.fixture
def tab(fresh_tab: Tab) -> Iterator[Tab]:
    """The front end with an empty graph."""
    fresh_tab.value("window.app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    fresh_tab.wait("window.app.graph.nodes.length === 0 && window.app.canvas.graph === window.app.graph")
    time.sleep(1)  # what is selected while it still opens is not any more
    yield fresh_tab


def classic(tab: Tab) -> bool:
    return not tab.value("window.LiteGraph.vueNodesMode")


def picture(tab: Tab, name: str) -> None:
    if PICTURES:
        tab.picture(Path(PICTURES) / f"{name}, {'classic' if classic(tab) else 'nodes 2.0'}.png")


def press(tab: Tab, key: str, number: int) -> None:
    for kind in ("rawKeyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=number)


def search(tab: Tab, words: str) -> list[str]:
    """What the search box lists for some words, line by line."""
    tab.value("window.app.extensionManager.command.execute('Workspace.SearchBox.Toggle') ?? 0, void 0")
    # front end 1.58 gives the focus to the box around it
    box = "[...document.querySelectorAll('input')].find((one) => one.placeholder.startsWith('Add a node'))"
    tab.wait(f"{box}.focus() ?? document.activeElement === {box}")
    before = tab.value(FOUND)
    tab.type(words)
    tab.wait(f"({FOUND}) !== {json.dumps(before)}")
    time.sleep(1)
    return [line.strip() for line in tab.value(FOUND).splitlines()]


def first_of(lines: list[str], *names: str) -> list[str]:
    """These names in the order in which they are listed, those that are not left out."""
    return sorted((name for name in names if name in lines), key=lines.index)


def test_what_is_searched_for_is_found_first_as_far_as_the_front_end_lets_it(tab: Tab) -> None:
    edit, local = "Kontext Edit (Oxen)", "Kontext Edit (Local FP8)"
    other = ["Kontext LoRA", "Kontext Keep", "InpaintModelConditioning", "TextEncodeQwenImageEdit"]
    other += ["Image Edit (Qwen 2509)", "Image Edit (Bernini-R)", "Load Image"]
    for words, first in (
        ("kontext", edit),
        ("oxen", edit),
        ("image edit", "Image Edit (Kontext)"),
    ):
        lines = search(tab, words)
        picture(tab, f"search {words}")
        assert first_of(lines, edit, local, "Image Edit (Kontext)", "Inpaint (Kontext)", *other)[0] == first, words
        press(tab, "Escape", 27)
        tab.wait("document.activeElement.placeholder === undefined")
    for words, there in (("edit image", "Image Edit (Kontext)"), ("inpaint", "Inpaint (Kontext)")):
        lines = search(tab, words)
        press(tab, "Escape", 27)
        assert first_of(lines, edit, local, there) == [there, edit, local], words


def test_six_widgets_show_and_the_rest_when_it_is_asked_for(tab: Tab) -> None:
    if not classic(tab):
        pytest.skip("Nodes 2.0 folds by itself")
    for name in ("KontextEdit", "KontextEditLocal"):
        tab.value(f"window.app.graph.add(window.node = window.LiteGraph.createNode('{name}')), void 0")
        seen = SEEN.format(node="window.node")
        assert tab.value(seen) == SIX
        small = tab.value("window.node.size[1]")
        tab.value("window.node.toggleAdvanced()")
        assert len(tab.value(seen)) > len(SIX)
        assert tab.value("window.node.size[1]") > small
        tab.value("window.node.toggleAdvanced()")
        assert tab.value(seen) == SIX
        assert tab.value("window.node.serialize().widgets_values.length") >= len(SIX)


def test_a_number_is_shown_and_taken_as_finely_as_its_node_reads_it(tab: Tab) -> None:
    open_template(tab, "demo_masked_edit")
    widget = "window.app.graph.nodes.find((node) => node.comfyClass === 'KontextPrepare').widgets[0]"
    if classic(tab):
        assert tab.value(f"{widget}._displayValue") == "0.016"
    else:
        tab.wait("[...document.querySelectorAll('[data-node-id] input')].some((one) => one.value === '0.016')")
    tab.value(f"{widget}.value = 1, {widget}.callback(0.016), void 0")
    assert tab.value(f"{widget}.value") in (1, 0.016), "a rounder one would be 0.01, the least that is taken"


def test_a_sentence_on_a_node_takes_no_room_from_its_neighbour(tab: Tab) -> None:
    add = "window.app.graph.add(window.%s = window.LiteGraph.createNode('%s')), void 0"
    tab.value(add % ("node", "KontextEdit"))
    wide = tab.value("window.node.size[0]")
    tab.value(
        "window.node.onExecuted({ text: ['the whole picture changed, light and colour everywhere. '.repeat(3)] })"
    )
    assert tab.value("window.node.size[0]") == wide
    tab.value(add % ("list", "KontextQueueStatus"))
    tab.value("window.list.onExecuted({ text: ['a row of a table of jobs, as long as it is. '.repeat(2)] })")
    assert tab.value("window.list.size[0]") > wide


def test_what_a_workflow_sets_is_seen_when_it_is_opened(tab: Tab) -> None:
    if not classic(tab):
        pytest.skip("Nodes 2.0 folds by itself")
    open_template(tab, "batch_edit")
    assert "variations" in tab.value(SEEN.format(node=EDIT))
    assert "namespace" not in tab.value(SEEN.format(node=EDIT))
    picture(tab, "batch_edit")


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_a_blueprint_is_listed_and_inserted_and_asks_for_what_it_shows(
    path: Path, tab: Tab, fresh_server: ComfyServer
) -> None:
    listed = fresh_server.get("/global_subgraphs").values()
    assert path.stem in {one["name"] for one in listed if one["info"]["node_pack"] == "custom_nodes.kontext-bridge"}
    search(tab, path.stem)
    press(tab, "Enter", 13)
    tab.wait("window.app.graph.nodes.length === 1")
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, x=700, y=400, button="left", clickCount=1)
        time.sleep(1)
    tab.wait("window.app.canvas.state.ghostNodeId == null")
    picture(tab, path.stem)
    (wanted,) = read(path)["definitions"]["subgraphs"]
    node = "window.app.graph.nodes[0]"
    assert tab.value(f"{node}.title") == path.stem
    assert tab.value(f"{node}.subgraph.nodes.map((one) => one.type)") == [one["type"] for one in wanted["nodes"]]
    assert tab.value(f"{node}.inputs.map((one) => one.name)") == [one["name"] for one in wanted["inputs"]]
    tab.value(f"{node}.widgets.find((widget) => widget.name === 'prompt').value = 'Make it night.', void 0")
    sent = tab.value("window.app.graphToPrompt().then((made) => made.output)")
    (edit,) = [one for one in sent.values() if one["class_type"] == "KontextEdit"]
    assert edit["inputs"]["prompt"] == "Make it night." and edit["inputs"]["variations"] == 1
    tab.value(
        "(() => { const [load, show] = ['LoadImage', 'PreviewImage'].map((kind) => { const one = "
        "window.LiteGraph.createNode(kind); window.app.graph.add(one); return one; }); "
        "const node = window.app.graph.nodes.find((one) => one.subgraph); load.connect(0, node, 0); "
        "if (node.inputs[1]?.name === 'mask') load.connect(1, node, 1); node.connect(0, show, 0); })()"
    )
    done = fresh_server.run(tab.value("window.app.graphToPrompt().then((made) => made.output)"))
    assert done["status"]["status_str"] == "success", done["status"]["messages"]
    assert sum(len(one.get("images", [])) for one in done["outputs"].values()) == 1


@pytest.mark.parametrize("kind", ["LoadImage", "PreviewImage", "SaveImage"])
def test_a_picture_is_edited_by_the_button_on_its_toolbox(kind: str, tab: Tab, request: pytest.FixtureRequest) -> None:
    tab.value(
        "(() => { const graph = window.app.graph; window.app.canvas.ds.scale = 0.8; window.app.canvas.ds.offset = "
        "[150, 150]; const load = window.LiteGraph.createNode('LoadImage'); graph.add(load); let node = load; "
        f"if ('{kind}' !== 'LoadImage') {{ node = window.LiteGraph.createNode('{kind}'); node.pos = [350, 0]; "
        "graph.add(node); load.connect(0, node, 0); } window.app.canvas.selectItems([node]); "
        "window.picked = node.id; })()"
    )
    button = "[...document.querySelectorAll('button')].find((one) => one.querySelector('.pi-pencil'))"
    tab.wait(button)
    picture(tab, f"toolbox of {kind}")
    tab.value(f"{button}.click()")
    tab.wait("document.activeElement.tagName === 'TEXTAREA'")
    tab.type("Make it night.")
    tab.wait(f"{EDIT}.widgets.find((widget) => widget.name === 'prompt').value === 'Make it night.'")
    picture(tab, f"edit of {kind}")
    sent: dict[str, Any] = tab.value("window.app.graphToPrompt().then((made) => made.output)")
    ids = {one["class_type"]: id for id, one in sent.items()}
    load = next(id for id, one in sent.items() if one["class_type"] == "LoadImage")
    came, slot = sent[ids["KontextEdit"]]["inputs"]["image"]
    assert (came, slot) in {(load, 0), (str(tab.value("window.picked")), 0)}
    shown = [one for one in sent.values() if one["class_type"] == "PreviewImage"]
    assert [ids["KontextEdit"], 0] in [one["inputs"]["images"] for one in shown]
    boxes = tab.value("window.app.graph.nodes.map((node) => [...node.pos, ...node.size])")
    for place, (x, y, width, height) in enumerate(boxes):
        for left, top, wide, high in boxes[place + 1 :]:
            apart = x + width <= left or left + wide <= x or y + height <= top or top + high <= y
            assert apart, "the new nodes lie on others"


def test_the_button_is_on_pictures_alone(tab: Tab) -> None:
    tab.value(
        "(() => { const node = window.LiteGraph.createNode('KontextKeep'); window.app.graph.add(node); "
        "window.app.canvas.selectItems([node]); })()"
    )
    tab.wait("document.querySelector('[data-testid=more-options-button]')")
    assert tab.value("document.querySelectorAll('button .pi-pencil').length") == 0
