"""Edit Picture (Oxen) in the real front end, both renderers: another model is chosen, saved, opened again, and run."""

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
from kontext_bridge.nodes.remote.own_inputs import own_fields
from kontext_bridge.oxen.api.models import bundled
from kontext_bridge.standin import StandIn
from pack import TWINS, read
from patience import PATIENCE

pytestmark = pytest.mark.comfyui
# A folder to put pictures of the page into, to be looked at.
PICTURES = os.environ.get("EDIT_PICTURE_PICTURES")
MODELS = ("gpt-image-2", "topazlabs-bloom-image", "qwen-image-3", "flux-kontext-dev")
PRICES = {"gpt-image-2": "$0.29", "topazlabs-bloom-image": "price not known", "qwen-image-3": "$0.039"}
NODE = "window.app.graph.nodes.find((node) => node.comfyClass === 'OxenEdit')"
WIDGET = f"{NODE}.widgets.find((widget) => widget.name === '%s')"
SAVED = f"{NODE}.widgets.filter((widget) => widget.serialize !== false)"
SEEN = f"{NODE}.widgets.filter((widget) => {NODE}.isWidgetVisible(widget)).map((widget) => widget.name)"
BADGES = f"{NODE}.badges.map((badge) => (typeof badge === 'function' ? badge() : badge).text)"
SENT = f"window.app.graphToPrompt().then((made) => made.output[{NODE}.id].inputs)"
SET = {"model.resolution": "1K", "model.seed": 77, "model.negative_prompt": "blurry", "model.enable_thinking": False}
SET |= {"variations": 3}
API = "window.comfyAPI.api.api"
# Queues the graph, and notes the run.
QUEUED = (
    f"void (() => {{ const api = {API}, queue = api.queuePrompt; window.queued = undefined;"
    " api.queuePrompt = async function (...given) { api.queuePrompt = queue;"
    " const reply = await queue.apply(this, given); window.queued = reply.prompt_id; return reply; };"
    " window.app.queuePrompt(0); })()"
)
REFUSED = "window.refusing.widgets.some((one) => /^The prompt is empty/.test(one.element?.innerText ?? ''))"
PROMPT = 100  # the least height of the box: six lines


@pytest.fixture(scope="module")
def models(comfy_service: StandIn) -> Iterator[StandIn]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kontext_bridge.standin.sizes.SIDE", 128)  # "4K" is quickly drawn, too
        yield comfy_service


@pytest.fixture(scope="module", params=["classic", "nodes 2.0"])
def tab(request: pytest.FixtureRequest, models: StandIn, server: ComfyServer, tmp_path_factory: Any) -> Iterator[Tab]:
    """The front end with the first template's graph, in which Edit Picture edits."""
    workflow = read(TWINS / "remote_edit.json")
    edit = next(node for node in workflow.values() if node["class_type"] == "KontextEdit")
    edit |= {
        "class_type": "OxenEdit",
        "inputs": {"image": edit["inputs"]["image"], "prompt": f"a hat, {request.param}"},
    }
    edit["inputs"] |= {"model": "flux-kontext-dev"}
    with page_of(server, request.param, tmp_path_factory.mktemp("profile")) as opened:
        load_api(opened, workflow)
        yield opened


def load_api(tab: Tab, workflow: Any) -> None:
    tab.value(f"window.app.loadApiJson({json.dumps(workflow)}, 'edit')")
    tab.wait(f"{NODE} && {WIDGET % 'kontext_bridge_line'}")


def choose(tab: Tab, model: str) -> None:
    tab.value(f"void ({WIDGET % 'model'}.value = {json.dumps(model)})")


def own(model: str) -> set[str]:
    """The widgets that a model has below it."""
    return {f"model.{field.name}" for field in own_fields(bundled()[model])}


def test_inputs_of_another_model_that_remain_after_a_switch_are_noticed(tab: Tab) -> None:
    tab.value(f"void ({WIDGET % 'variations'}.value = 2)")
    for model in (*MODELS, *MODELS):
        choose(tab, model)
        names = tab.value(f"{SAVED}.map((widget) => widget.name)")
        below = names[names.index("model") + 1 :]
        assert {name for name in below if name.startswith("model.")} == own(model)
        seeds = [name for name in below if not name.startswith("model.")]
        assert len(seeds) == ("model.seed" in below), f"{model}: {seeds} of a model that was chosen before"
        sent = tab.value(SENT)
        assert {name for name in sent if name.startswith("model.")} == own(model)
        assert sent["prompt"].startswith("a hat") and sent["variations"] == 2
    tab.value(f"void ({WIDGET % 'variations'}.value = 1)")


def test_a_prompt_box_of_two_lines_is_noticed_on_a_new_node_and_after_a_model_is_chosen(tab: Tab) -> None:
    box = "window.made.widgets.find((widget) => widget.name === 'prompt').computedHeight"
    for kind in ("KontextEdit", "OxenEdit", "OxenSubmit"):
        tab.value(f"window.app.graph.add(window.made = window.LiteGraph.createNode('{kind}')), void 0")
        try:
            tab.wait(f"{box} >= {PROMPT}")
            for model in MODELS if kind != "KontextEdit" else ():
                tab.value(f"void (window.made.widgets.find((one) => one.name === 'model').value = '{model}')")
                tab.value("new Promise((end) => requestAnimationFrame(() => requestAnimationFrame(end))).then(() => 0)")
                assert tab.value(box) >= PROMPT, f"{kind}, {model}"
        finally:
            tab.value("window.app.graph.remove(window.made)")


@pytest.mark.parametrize("model", PRICES)
def test_a_price_that_is_not_the_chosen_models_is_noticed(tab: Tab, model: str) -> None:
    choose(tab, model)
    tab.wait(f"{BADGES}.includes({json.dumps(PRICES[model])})")


def test_the_rare_inputs_of_a_model_that_is_chosen_later_are_folded_and_those_that_are_set_are_not(tab: Tab) -> None:
    choose(tab, "flux-kontext-dev")
    choose(tab, "qwen-image-3")
    assert not {"model.negative_prompt", "model.enable_thinking", "variations"} & set(tab.value(SEEN))
    tab.value(f"void {NODE}.toggleAdvanced()")
    assert {*own("qwen-image-3"), "variations"} <= set(tab.value(SEEN))
    tab.value(f"void {NODE}.toggleAdvanced()")
    for name, value in SET.items():
        tab.value(f"void ({WIDGET % name}.value = {json.dumps(value)})")
    workflow, graph = tab.value("window.app.graphToPrompt().then((made) => [made.output, made.workflow])")
    tab.value(f"window.app.loadGraphData({json.dumps(graph)})")
    opened(tab)
    load_api(tab, workflow)
    opened(tab)


def opened(tab: Tab) -> None:
    """What was set is there, and in sight; the rest is folded."""
    tab.wait(f"{WIDGET % 'model.seed'}.value === 77")
    assert SET.items() <= tab.value(SENT).items()
    seen = set(tab.value(SEEN))
    assert {"model.negative_prompt", "model.enable_thinking", "variations"} <= seen
    assert not {"model.watermark", "timeout"} & seen


def test_sockets_for_references_grow_and_their_links_are_kept_where_the_next_model_takes_as_many(tab: Tab) -> None:
    choose(tab, "gpt-image-2")
    picture = "window.app.graph.nodes.find((node) => node.type === 'LoadImage')"
    links = f"{NODE}.inputs.filter((one) => one.name.includes('reference')).map((one) => one.link != null)"
    for number in range(3):
        socket = f"{NODE}.inputs.findIndex((one) => one.name === 'model.references.reference_{number}')"
        tab.wait(f"{socket} >= 0")
        tab.value(f"void {picture}.connect(0, {NODE}, {socket})")
    tab.wait(f"JSON.stringify({links}) === '[true,true,true,false]'")
    choose(tab, "qwen-image-3")
    assert tab.value(links) == [True, True]
    choose(tab, "topazlabs-bloom-image")
    assert tab.value(links) == []


@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_ends_without_its_picture_or_its_text_is_noticed(tab: Tab, server: ComfyServer, model: str) -> None:
    choose(tab, model)
    tab.value(f"void ({WIDGET % 'variations'}.value = 1)")
    before = len(server.get("/history"))
    tab.value("window.app.queuePrompt(0)")
    end = time.monotonic() + PATIENCE
    while len(server.get("/history")) == before and time.monotonic() < end:
        time.sleep(0.2)
    run = list(server.get("/history").values())[-1]
    assert run["status"]["status_str"] == "success", run["status"]["messages"]
    tab.wait(f"/^done/.test({WIDGET % 'kontext_bridge_line'}.element.innerText)")
    (saved,) = (
        one["images"] for one in run["outputs"].values() if "images" in one and one["images"][0]["type"] == "output"
    )
    shown = "[...document.querySelectorAll('img'), ...window.app.graph.nodes.flatMap((node) => node.imgs ?? [])]"
    tab.wait(f"{shown}.some((one) => one.src.includes({json.dumps(saved[0]['filename'])}) && one.naturalWidth)")
    if PICTURES:
        tab.picture(Path(PICTURES) / f"{model}, {bool(tab.value('window.LiteGraph.vueNodesMode'))}.png")


@pytest.mark.parametrize("kind", ["OxenEdit", "OxenSubmit"])
def test_a_prompt_that_is_refused_is_said_on_the_node_and_the_model_is_not_marked(tab: Tab, kind: str) -> None:
    """The last one: the graph is another one then."""
    tab.value(
        "(() => { const graph = window.app.graph, from = graph.nodes.find((one) => one.type === 'LoadImage');"
        f" const node = window.refusing = window.LiteGraph.createNode('{kind}'); graph.add(node);"
        " from.connect(0, node, node.inputs.findIndex((one) => one.name === 'image'));"
        " const shows = window.LiteGraph.createNode('PreviewImage'); graph.add(shows);"
        " if (node.outputs[0].type === 'IMAGE') node.connect(0, shows, 0); })()"
    )
    tab.value(QUEUED)
    tab.wait(f"window.queued && {REFUSED}")
    # The rest of the graph is run without the node, and that run's beginning may be told of before or after this.
    tab.value(f"void {API}.dispatchCustomEvent('execution_start', {{ prompt_id: window.queued }})")
    assert tab.value(REFUSED)
    marked = "window.app.lastNodeErrors[window.refusing.id].errors.map((error) => error.extra_info.input_name)"
    assert tab.value(marked) == ["prompt"]
    tab.value("void window.app.graph.remove(window.refusing)")
