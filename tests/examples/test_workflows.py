"""The example workflows as files: both formats say the same, and nothing in them is out of place."""

from __future__ import annotations

import asyncio
import json
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from comfy_server import comfyui
from editor import COMMENTS, to_api
from kontext_bridge.headless.folders import RunFolders, in_folders
from kontext_bridge.headless.graph import parse_workflow
from kontext_bridge.headless.validate import validate
from pack import INFO, LOCAL, NAMES, TABLE, TITLES, TWINS, WORKFLOWS, card, read, template
from PIL import Image

TITLE_HEIGHT = 30
# The folders of models/ that the files of a loader's first widgets lie in. A LoRA is the artist's own.
LOADERS = {
    "KontextLoadFP8": ("diffusion_models",),
    "UNETLoader": ("diffusion_models",),
    "DualCLIPLoader": ("text_encoders", "text_encoders"),
    "CLIPLoader": ("text_encoders",),
    "VAELoader": ("vae",),
}


@pytest.fixture(params=NAMES + LOCAL)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def document(name: str) -> Any:
    return read(template(name))


def test_a_workflow_without_twin_thumbnail_or_test_is_noticed() -> None:
    assert {path.stem for path in TWINS.iterdir()} == {*NAMES, *LOCAL} == set(TITLES)
    for pattern in ("*.json", "*.jpg"):
        assert {path.stem for path in WORKFLOWS.glob(pattern)} == set(TITLES.values())


def test_a_twin_that_differs_from_what_the_editor_would_queue_is_noticed(name: str, document: Any) -> None:
    twin = {
        id: {key: node[key] for key in ("class_type", "inputs")} for id, node in read(TWINS / f"{name}.json").items()
    }
    assert to_api(document) == twin


@pytest.mark.parametrize("name", NAMES)
def test_a_widget_value_out_of_its_range_or_at_the_wrong_place_is_noticed(name: str, tmp_path: Any) -> None:
    prompt = to_api(read(template(name)))
    with in_folders(RunFolders(source=WORKFLOWS, output=tmp_path)):
        asyncio.run(validate(workflow := parse_workflow(prompt), TABLE))
    assert workflow.prompt == prompt, "a value had to be converted"


def test_a_link_whose_ends_do_not_know_of_it_is_noticed(document: Any) -> None:
    nodes = {node["id"]: node for node in document["nodes"]}
    seen = set()
    for id, source, slot, target, place, kind in document["links"]:
        assert id in nodes[source]["outputs"][slot]["links"]
        assert nodes[target]["inputs"][place]["link"] == id
        assert nodes[source]["outputs"][slot]["type"] == nodes[target]["inputs"][place]["type"] == kind
        seen.add(id)
    assert seen == {one["link"] for node in nodes.values() for one in node["inputs"]} - {None}


def test_nodes_that_lie_on_top_of_each_other_are_noticed(document: Any) -> None:
    boxes = [(node["id"], *_box(node)) for node in document["nodes"]]
    for (one, left, top, right, bottom), (other, *b) in combinations(boxes, 2):
        assert right <= b[0] or b[2] <= left or bottom <= b[1] or b[3] <= top, f"{one} and {other} overlap"


def test_a_workflow_that_opens_too_small_to_be_read_is_noticed(document: Any) -> None:
    """On a screen of 1600 pixels the classic renderer draws no text of one that is wider."""
    edges = [(node["pos"][0], node["pos"][0] + node["size"][0]) for node in document["nodes"]]
    edges += [(group["bounding"][0], group["bounding"][0] + group["bounding"][2]) for group in document["groups"]]
    assert max(right for _, right in edges) - min(left for left, _ in edges) <= 1900


def test_a_workflow_that_does_not_explain_itself_is_noticed(document: Any) -> None:
    (note,) = [node for node in document["nodes"] if node["type"] in COMMENTS]
    assert note["widgets_values"][0].strip()
    assert document["groups"]


def test_a_node_of_the_pack_under_a_title_in_another_language_or_size_zero_is_noticed(document: Any) -> None:
    for node in document["nodes"]:
        assert min(node["size"]) > 0
        if node["type"] in INFO:
            shown = INFO[node["type"]]["display_name"]
            assert node.get("title", shown).startswith(shown.split(" (")[0])


def test_an_input_that_shows_its_place_in_a_list_in_place_of_its_name_is_noticed(document: Any) -> None:
    grown = [one for node in document["nodes"] for one in node["inputs"] if "." in one["name"]]
    assert [one["name"] for one in grown if one.get("label") != one["name"].split(".")[-1]] == []


def test_a_loader_whose_files_the_front_end_cannot_offer_to_download_is_noticed(document: Any) -> None:
    for node in document["nodes"]:
        folders = LOADERS.get(node["type"], ())
        models = node["properties"].get("models", [])
        assert [(one["name"], one["directory"]) for one in models] == list(
            zip(node.get("widgets_values") or (), folders, strict=False)
        )
        assert all(one["url"].startswith("https://huggingface.co/") for one in models)
        assert all(one["url"].endswith(f"/{one['name']}") for one in models)


@pytest.mark.comfyui
def test_an_address_of_a_model_that_comfyuis_own_template_does_not_have_is_noticed(document: Any) -> None:
    _, python = comfyui()
    place = "import comfyui_workflow_templates_json as own; print(own.__path__[0])"
    found = subprocess.run([python, "-c", place], capture_output=True, text=True)
    if found.returncode:
        pytest.skip("needs the package comfyui-workflow-templates-json in ComfyUI's Python")
    own = (Path(found.stdout.strip()) / "templates" / "flux_kontext_dev_basic.json").read_text(encoding="utf-8")
    addresses = {one["url"] for node in document["nodes"] for one in node["properties"].get("models", [])}
    assert {address for address in addresses if json.dumps(address) not in own} == set()


def test_pictures_too_heavy_for_a_pack_are_noticed() -> None:
    for name in NAMES + LOCAL:
        path = card(name)
        with Image.open(path) as picture:
            assert picture.format == "JPEG" and max(picture.size) <= 800
        assert path.stat().st_size < 60_000
    with Image.open(WORKFLOWS / "kontext_example.png") as picture:
        assert (picture.size, picture.mode, picture.info) == ((1024, 768), "RGB", {})
        plain = picture.tobytes()
    with Image.open(WORKFLOWS / "kontext_example_masked.png") as picture:
        assert (picture.mode, picture.info) == ("RGBA", {})
        assert picture.convert("RGB").tobytes() == plain, "what is under the mask is edited"
    for path in WORKFLOWS.glob("*.png"):
        assert path.stat().st_size < 60_000


def _box(node: dict[str, Any]) -> tuple[float, float, float, float]:
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE_HEIGHT, x + width, y + height
