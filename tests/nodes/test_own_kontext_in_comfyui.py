"""A fine-tune of one's own in the real ComfyUI: refused asleep, woken where allowed, its LoRA brought and used here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from comfy_server import ComfyServer, comfy_service  # noqa: F401
from in_comfyui import node
from kontext_bridge.standin import StandIn

pytestmark = pytest.mark.comfyui
ASLEEP, FILE = "oxen:ox-asleep-fern", "ox-asleep-fern.safetensors"


@pytest.fixture(scope="module")
def service(comfy_service: StandIn) -> Iterator[StandIn]:  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kontext_bridge.standin.picture.SIZES", ((256, 192),))  # quickly drawn
        comfy_service.own.takes_s = 0.3
        yield comfy_service


def edit(**own: Any) -> dict[str, Any]:
    picture = node("EmptyImage", width=64, height=48, batch_size=1, color=0x336699)
    chosen = {"model": "your own Kontext", "model__model_id": ASLEEP, **own}
    edited = node("OxenEdit", image=["picture", 0], prompt="a hat", **chosen)
    shown, told = node("PreviewImage", images=["edit", 0]), node("PreviewAny", source=["edit", 1])
    return {"picture": picture, "edit": edited, "shown": shown, "told": told}


def test_asleep_it_is_refused_in_words_and_woken_only_where_that_is_allowed(
    server: ComfyServer, service: StandIn
) -> None:
    refused = server.run(edit())
    words = json.dumps(refused["status"]["messages"])
    assert "is asleep. Awake, it costs $4.87 an hour" in words and "It was not woken" in words
    assert not service.own.models["ox-asleep-fern"].wakings and not service.billed
    done = server.run(edit(model__if_asleep="wake it: billed by the hour"))
    assert done["status"]["status_str"] == "success", done["status"]["messages"]
    assert len(done["outputs"]["shown"]["images"]) == 1
    told = json.loads("".join(done["outputs"]["told"]["text"]))
    assert told["your_model"]["state"] == "put to sleep" and told["your_model"]["usd_per_hour"] == 4.87
    assert service.own.models["ox-asleep-fern"].wakings == 1 and service.own.find(ASLEEP).state != "active"


def test_its_lora_is_brought_listed_by_both_loaders_and_used_here(server: ComfyServer, service: StandIn) -> None:
    def files(loader: str, name: str) -> list[str]:
        declared = server.get(f"/object_info/{loader}")[loader]["input"]["required"][name]
        return declared[1]["options"] if declared[0] == "COMBO" else declared[0]

    assert FILE not in files("LoraLoader", "lora_name")
    brought = server.run({"1": node("OxenModels", action="bring its LoRA to models/loras", model_id=ASLEEP)})
    assert brought["status"]["status_str"] == "success", brought["status"]["messages"]
    text = "".join(brought["outputs"]["1"]["text"])
    assert f"{FILE} came, 0.4 MB: in models/loras" in text and f"{ASLEEP}  " in text
    assert FILE in files("LoraLoader", "lora_name") and FILE in files("KontextLoRA", "file")
    used = {
        "picture": node("EmptyImage", width=128, height=128, batch_size=1, color=0x336699),
        "demo": node("KontextLoadDemo"),
        "lora": node("KontextLoRA", model=["demo", 0], file=FILE, strength=1.0),
        "edit": node(
            "KontextEditLocal",
            model=["lora", 0],
            clip=["demo", 1],
            vae=["demo", 2],
            image=["picture", 0],
            prompt="Make it night, with lights.",
            steps=4,
        ),
        "shown": node("PreviewImage", images=["edit", 0]),
    }
    done = server.run(used)
    assert done["status"]["status_str"] == "success", done["status"]["messages"]
    assert len(done["outputs"]["shown"]["images"]) == 1
