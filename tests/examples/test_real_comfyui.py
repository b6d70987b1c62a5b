"""The example workflows, help pages and translations as the real ComfyUI runs and serves them."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from comfy_server import ComfyServer
from kontext_bridge.standin import StandIn
from pack import DOCS, INFO, LOCALES, TITLES, TWINS, read

pytestmark = pytest.mark.comfyui


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("remote_edit", 1),
        ("submit_and_collect", 1),
        ("batch_edit", 6),
        ("uri_round_trip", 2),
        ("edit_and_keep", 2),
        ("edits_in_a_row", 2),
    ],
)
def test_a_workflow_that_fails_in_comfyui_is_noticed(
    name: str, saved: int, server: ComfyServer, comfy_service: StandIn
) -> None:
    done = server.run(read(TWINS / f"{name}.json"))
    assert done["status"]["status_str"] == "success", done["status"]["messages"]
    images = [image for output in done["outputs"].values() for image in output.get("images", [])]
    assert len(images) == saved
    assert comfy_service.leaks == []


def test_a_node_that_no_template_shows_and_that_fails_in_comfyui_is_noticed(server: ComfyServer) -> None:
    workflow = read(TWINS / "submit_and_collect.json")
    submit = next(id for id, node in workflow.items() if node["class_type"] == "KontextSubmit")
    workflow[submit]["inputs"]["seed"] = 4711
    workflow["90"] = {"class_type": "KontextCancel", "inputs": {"job": [submit, 0], "generation_ids": ""}}
    workflow["91"] = {"class_type": "KontextModelInfo", "inputs": {"model": "flux-kontext-dev"}}
    kept = {id: node for id, node in workflow.items() if node["class_type"] not in {"KontextCollect", "SaveImage"}}
    done = server.run(kept)
    assert done["status"]["status_str"] == "success", done["status"]["messages"]
    assert any(word in done["outputs"]["90"]["text"][0] for word in ("cancelled", "finished before"))
    assert "USD per image" in done["outputs"]["91"]["text"][0]


def test_the_history_gives_its_table_in_comfyui_also_where_there_is_no_picture_to_bring_back(
    server: ComfyServer,
) -> None:
    server.run(read(TWINS / "remote_edit.json"))
    for search, saved in (("", 1), ("nothing like it", 0)):
        history = {
            "1": {"class_type": "KontextHistory", "inputs": {"pick": 1, "search": search, "count": 5}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        }
        done = server.run(history)
        assert done["status"]["status_str"] == "success", done["status"]["messages"]
        assert "in all, " in done["outputs"]["1"]["text"][0]
        assert len(done["outputs"].get("2", {}).get("images", [])) == saved


def test_a_twin_listed_as_a_template_is_noticed(server: ComfyServer) -> None:
    assert set(server.get("/workflow_templates")["kontext-bridge"]) == set(TITLES.values())


def test_help_that_comfyui_does_not_serve_is_noticed(server: ComfyServer) -> None:
    for path in DOCS.rglob("*.md"):
        name = path.relative_to(DOCS).as_posix()
        with urllib.request.urlopen(f"{server.url}/extensions/kontext-bridge/docs/{name}") as page:
            assert page.read() == path.read_bytes()
    for path in (DOCS / "pictures").iterdir():
        with urllib.request.urlopen(f"{server.url}/extensions/kontext-bridge/docs/pictures/{path.name}") as picture:
            assert picture.read() == path.read_bytes()


def test_a_translation_that_comfyui_does_not_serve_is_noticed(server: ComfyServer) -> None:
    served = server.get("/i18n")
    for folder in LOCALES.iterdir():
        own: Path = folder / "nodeDefs.json"
        assert {id: served[folder.name]["nodeDefs"][id] for id in INFO} == read(own)
