"""Edit Picture (Oxen) in the real ComfyUI: every model once, and what ComfyUI lets pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from comfy_server import ComfyServer, comfy_service  # noqa: F401
from in_comfyui import node
from kontext_bridge.oxen.api.models import bundled
from kontext_bridge.standin import StandIn

pytestmark = pytest.mark.comfyui
MODELS = bundled()


@pytest.fixture(scope="module")
def service(comfy_service: StandIn) -> Iterator[StandIn]:  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kontext_bridge.standin.picture.SIZES", ((256, 192),))  # quickly drawn
        patch.setattr("kontext_bridge.standin.sizes.SIDE", 128)
        yield comfy_service


PICTURES = {
    "picture": node("EmptyImage", width=64, height=48, batch_size=1, color=0x336699),
    "other": node("EmptyImage", width=32, height=32, batch_size=1, color=0x996633),
    "mask": node("SolidMask", value=1.0, width=64, height=48),
}


def sent(service: StandIn) -> list[dict[str, Any]]:
    return [request.json for request in service.requests if request.route in {"edit", "enqueue"}]


def test_every_model_edits_once_is_billed_once_and_gives_its_picture(
    server: ComfyServer, service: StandIn, tables: dict[str, list[str]]
) -> None:
    workflow = dict(PICTURES)
    for id, spec in MODELS.items():
        own: dict[str, Any] = {"model": id, "image": ["picture", 0]}
        if "prompt" in spec.named:
            own["prompt"] = "a hat"
        if spec.mask is not None:
            own["model__mask"] = ["mask", 0]
        if spec.pictures.most > 1:
            own["model__references__reference_0"] = ["other", 0]
        workflow[id] = node("OxenEdit", **own)
        workflow[f"{id} shown"] = node("PreviewImage", images=[id, 0])
        workflow[f"{id} info"] = node("PreviewAny", source=[id, 1])
    before = len(service.billed)
    done = server.run(workflow)
    assert done["status"]["status_str"] == "success", done["status"]["messages"]
    assert len(service.billed) - before == len(MODELS)
    requests = {one["model"]: one for one in sent(service)}
    rows = []
    for id, spec in MODELS.items():
        assert len(done["outputs"][f"{id} shown"]["images"]) == 1, id
        told = json.loads("".join(done["outputs"][f"{id} info"]["text"]))
        fields = sorted(set(requests[id]) - {"model"})
        assert set(fields) >= set(spec.pictures.fields) and not set(fields) & set(spec.never), id
        price = told.get("price_usd", told.get("price"))
        rows.append(f"{id}: {', '.join(fields)} | {told['shape']} | told {price} | billed {told.get('cost_usd')}")
    tables["Edit Picture in ComfyUI: fields sent, shape, price"] = rows


def test_a_file_with_only_a_picture_and_a_prompt_runs(server: ComfyServer, service: StandIn) -> None:
    alone = node("OxenEdit", image=["other", 0], prompt="a hat")
    done = server.run({**PICTURES, "1": alone, "2": node("PreviewImage", images=["1", 0])})
    assert done["status"]["status_str"] == "success", done["status"]["messages"]
    assert sent(service)[-1]["model"] == "flux-kontext-dev"


def test_a_model_that_there_is_not_is_told_before_anything_runs(server: ComfyServer, service: StandIn) -> None:
    before = len(sent(service))
    wrong = node("OxenEdit", image=["picture", 0], prompt="a hat", model="gpt-9", model__quality="low")
    info = node("PreviewAny", source=["1", 1])
    status, reply = server.post("/prompt", {"prompt": {**PICTURES, "1": wrong, "2": info}})
    assert status == 400 and "There is no model 'gpt-9' in the list" in json.dumps(reply)
    stray = node("OxenEdit", image=["picture", 0], prompt="a hat", model="gpt-image-2", model__guidance=3)
    done = server.run({**PICTURES, "1": stray, "2": info})
    assert "gpt-image-2 has no guidance; its own inputs are" in json.dumps(done["status"]["messages"])
    assert len(sent(service)) == before


def test_all_that_the_pack_says_of_its_nodes_is_light(server: ComfyServer) -> None:
    ours = {id: one for id, one in server.get("/object_info").items() if "kontext-bridge" in one["python_module"]}
    assert "OxenEdit" in ours and len(json.dumps(ours)) < 300_000
