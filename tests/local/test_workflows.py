"""The local example workflows and nodes in a real ComfyUI, on tiny models under the real names."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pytest
from comfy_server import REPOSITORY, ComfyServer, account_at, comfy_server_with, comfyui
from kontext_bridge.kontext.demo.shipped import LORAS, demo_loras
from kontext_bridge.standin import StandIn
from PIL import Image
from tiny_models import write_comfyui_folder

pytestmark = pytest.mark.comfyui
WORKFLOWS = REPOSITORY / "example_workflows"
HERE = Path(__file__).parent
NAMES = ("local_edit", "masked_edit", "two_references", "lora_edit", "draft_local_finish_remote")
FEWEST = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, comfy_service: StandIn) -> Iterator[ComfyServer]:
    comfyui()
    base = tmp_path_factory.mktemp("comfyui") / "base"
    # In place before the server starts, since it remembers what its folders hold.
    write_comfyui_folder(base.parent / "models")
    packs = {"kontext-bridge": REPOSITORY, "host-pack": HERE / "host_pack"}
    with comfy_server_with(packs, base, account_at(comfy_service)) as running:
        shutil.copytree(base.parent / "models", base / "models", dirs_exist_ok=True)
        shutil.copy(WORKFLOWS / "kontext_example.png", base / "input")
        yield running


def example(name: str, *, real_vae: bool = False, **changes: Any) -> dict[str, Any]:
    """An example in the API format with the tests' text encoders and VAE, few steps, and these widgets changed."""
    workflow: dict[str, Any] = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    for node in workflow.values():
        if node["class_type"] == "DualCLIPLoader":
            node.update(class_type="TestTextEncoders", inputs={})
        if node["class_type"] == "VAELoader" and not real_vae:
            node.update(class_type="TestVAE", inputs={})
        if "steps" in node["inputs"]:
            node["inputs"].update(steps=FEWEST)
        if node["class_type"] in {"KontextEditLocal", "KontextSample"}:
            node["inputs"].update(changes)
    return workflow


def done(server: ComfyServer, workflow: dict[str, Any]) -> dict[str, Any]:
    entry = server.run(workflow)
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    return dict(entry["outputs"])


def saved(server: ComfyServer, outputs: dict[str, Any]) -> list[np.ndarray]:
    pictures = []
    for output in outputs.values():
        for image in output.get("images", []):
            if image["type"] == "output":
                with Image.open(server.base / "output" / image["subfolder"] / image["filename"]) as picture:
                    pictures.append(np.asarray(picture).astype(int))
    return pictures


def source() -> np.ndarray:
    with Image.open(WORKFLOWS / "kontext_example.png") as picture:
        return np.asarray(picture).astype(int)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_that_fails_in_comfyui_is_noticed(name: str, server: ComfyServer, comfy_service: StandIn) -> None:
    (picture,) = saved(server, done(server, example(name, real_vae=name == "two_references")))
    if name == "draft_local_finish_remote":
        assert len(comfy_service.billed) == 1 and comfy_service.leaks == []
    else:
        assert picture.shape == source().shape
        assert np.abs(picture - source()).mean() > 1, "something was edited"


def test_a_masked_edit_that_changes_a_pixel_outside_mask_and_feather_is_noticed(server: ComfyServer) -> None:
    (picture,) = saved(server, done(server, example("masked_edit", seed=1)))
    inside = np.zeros(picture.shape[:2], bool)
    inside[296 - 16 : 296 + 288 + 16, 664 - 16 : 664 + 312 + 16] = True
    assert np.array_equal(picture[~inside], source()[~inside])
    assert not np.array_equal(picture[inside], source()[inside])


# The hull of the boat in the example picture, which is blue there; the mask of the masked template; the sky over the
# lake, where a string of lanterns hangs; the birds; where they and a balloon fly: rows and columns.
HULL = slice(525, 560), slice(740, 900)
MASK = slice(296 - 16, 296 + 288 + 16), slice(664 - 16, 664 + 312 + 16)
LANTERNS = slice(230, 340), slice(0, 1024)
BIRDS = slice(105, 175), slice(310, 480)
SKY = slice(0, 300), slice(250, 580)


def demo(server: ComfyServer, name: str) -> np.ndarray:
    """What a template of the demo model makes, as it is."""
    workflow = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    (picture,) = saved(server, done(server, workflow))
    assert picture.shape == source().shape
    return picture


def is_red(picture: np.ndarray) -> bool:
    red, green, blue = picture[HULL].reshape(-1, 3).mean(0)
    return bool(red > max(green, blue) + 80)


def test_a_demo_edit_that_is_not_what_was_asked_for_or_changes_the_rest_is_noticed(server: ComfyServer) -> None:
    picture = demo(server, "demo_edit")
    assert is_red(picture) and not is_red(source())
    same = (picture == source()).all(-1)
    assert same.mean() > 0.9 and same[:300].all(), "the sky, too, is the picture's own"


def test_a_masked_demo_edit_that_is_not_what_was_asked_for_or_leaves_the_mask_is_noticed(server: ComfyServer) -> None:
    picture = demo(server, "demo_masked_edit")
    assert is_red(picture)
    changed = (picture != source()).any(-1)
    changed[MASK] = False
    assert not changed.any()


def test_edits_in_a_row_that_lose_one_of_them_or_drift_though_each_is_kept_are_noticed(server: ComfyServer) -> None:
    workflow = json.loads((WORKFLOWS / "api" / "demo_edits_in_a_row.json").read_text(encoding="utf-8"))
    outputs = done(server, workflow)
    ends = {node["inputs"]["filename_prefix"]: id for id, node in workflow.items() if node["class_type"] == "SaveImage"}
    (raw,) = saved(server, {"raw": outputs[ends["kontext/demo_chain_raw"]]})
    (kept,) = saved(server, {"kept": outputs[ends["kontext/demo_chain_kept"]]})
    assert kept.shape == raw.shape == source().shape
    # the balloon may hang where they flew: it is red, and they are dark in every colour
    assert is_red(kept) and kept[BIRDS].max(-1).min() > 100 > 80 > source()[BIRDS].max(-1).min()
    red, _, blue = np.moveaxis(kept[SKY], -1, 0)
    assert (red > blue + 60).mean() > 0.05, "a balloon in the sky"
    assert (kept == source()).all(-1).mean() > 0.8 > 0.4 > (raw == source()).all(-1).mean()


def test_a_lora_of_the_demo_model_that_cannot_be_chosen_or_hangs_no_lanterns_is_noticed(server: ComfyServer) -> None:
    (lora,) = LORAS
    listed = server.get("/object_info/KontextLoRA")["KontextLoRA"]["input"]["required"]["file"]
    offered = listed[0] if isinstance(listed[0], list) else listed[1]["options"]
    if not demo_loras():
        assert lora not in offered
        pytest.skip(f"{lora} is not there")
    assert offered.count(lora) == 1 and offered[-1] == lora
    night = demo(server, "demo_lora_edit")
    assert night.mean() < source().mean() - 40
    warm = night[LANTERNS][..., 0] - night[LANTERNS][..., 2]
    assert (warm > 60).mean() > 0.02, "lanterns shine over the lake"


def test_a_remote_workflow_that_does_not_run_with_the_local_node_in_its_place_is_noticed(server: ComfyServer) -> None:
    remote, local = example("remote_edit"), example("local_edit")
    (edit,) = (node for node in remote.values() if node["class_type"] == "KontextEdit")
    (place,) = (node for node in local.values() if node["class_type"] == "KontextEditLocal")
    kinds = {"KontextLoadFP8", "TestTextEncoders", "TestVAE"}
    loaders = {f"loader {id}": node for id, node in local.items() if node["class_type"] in kinds}
    sockets = {name: [f"loader {place['inputs'][name][0]}", 0] for name in ("model", "clip", "vae")}
    edit.update(class_type="KontextEditLocal", inputs={**edit["inputs"], **sockets, "seed": 2})
    (picture,) = saved(server, done(server, {**remote, **loaders}))
    assert picture.shape == source().shape


def test_a_switch_keep_that_fails_in_comfyui_or_loses_the_raw_edit_is_noticed(server: ComfyServer) -> None:
    workflow = example("local_edit", seed=8, keep="auto")
    (edit,) = (id for id, node in workflow.items() if node["class_type"] == "KontextEditLocal")
    workflow["raw"] = {"class_type": "SaveImage", "inputs": {"images": [edit, 2], "filename_prefix": "raw"}}
    outputs = done(server, workflow)
    handed_on, raw = saved(server, outputs)
    assert np.array_equal(handed_on, raw), "a tiny random model changes the whole picture"
    assert outputs[edit]["text"][0].startswith("the whole picture changed")


def test_a_prompt_encoded_again_for_another_seed_is_noticed(server: ComfyServer) -> None:
    def encodings(**changes: Any) -> list[str]:
        workflow = example("local_edit", prompt="A word no other test uses.", **changes)
        (edit,) = (id for id, node in workflow.items() if node["class_type"] == "KontextEditLocal")
        workflow["encodings"] = {"class_type": "TestEncodings", "inputs": {"after": [edit, 0]}}
        return list(done(server, workflow)["encodings"]["encoded"])

    encodings(seed=3)
    assert encodings(seed=4) == []


def test_a_second_graph_that_loads_the_model_again_is_noticed(server: ComfyServer) -> None:
    log = server.base / "log.txt"
    done(server, example("local_edit", seed=5))
    before = log.read_text().count("Requested to load Flux")
    done(server, example("local_edit", seed=6))
    assert before > 0
    assert log.read_text().count("Requested to load Flux") == before


def test_a_cancelled_edit_that_goes_on_to_its_last_step_is_noticed(server: ComfyServer) -> None:
    prompt_id = server.submit(example("local_edit", seed=7, steps=50))
    log, end = server.base / "log.txt", time.monotonic() + 90
    while "/50" not in log.read_text() and time.monotonic() < end:
        time.sleep(0.2)
    server.post("/interrupt", {})
    while not (entry := server.get(f"/history/{prompt_id}")) and time.monotonic() < end:
        time.sleep(0.2)
    assert [kind for kind, _ in entry[prompt_id]["status"]["messages"]][-1] == "execution_interrupted"


def test_the_loader_that_does_not_say_what_it_loaded_is_noticed(server: ComfyServer) -> None:
    workflow = example("local_edit")
    loader = next(id for id, node in workflow.items() if node["class_type"] == "KontextLoadFP8")
    shown = {"class_type": "PreviewAny", "inputs": {"source": [loader, 1]}}
    outputs = done(server, {loader: workflow[loader], "show": shown})
    (text,) = outputs["show"]["text"]
    assert "float8_e4m3fn with a scale per layer" in text and "GB in memory" in text and "on cpu" in text


def test_a_local_edit_that_the_panel_does_not_show_is_noticed(server: ComfyServer) -> None:
    prompt = "A sentence that only the panel is asked for."
    (picture,) = saved(server, done(server, example("local_edit", prompt=prompt, seed=2**64 - 1)))
    end = time.monotonic() + 30
    while not (ids := server.get(f"/kontext-bridge/edits?search={quote(prompt)}")["ids"]) and time.monotonic() < end:
        time.sleep(0.2)
    told = server.get(f"/kontext-bridge/edits/{ids[0]}")
    assert (told["place"], told["prompt"], told["seed"]) == ("local", prompt, str(2**64 - 1))
    assert told["before"] and told["seconds"] > 0 and told["parameters"]["steps"] == FEWEST
    with urlopen(f"{server.url}/kontext-bridge/edits/{ids[0]}/picture", timeout=30) as reply:
        shown = np.asarray(Image.open(reply).convert("RGB")).astype(int)
    # Save Image cuts off where the pack rounds
    assert np.abs(shown - picture).max() <= 1
