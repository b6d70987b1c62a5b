"""Kontext Keep in the real ComfyUI: files in, files out, and Cancel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comfy_server import REPOSITORY, ComfyServer, comfy_server_with, comfyui
from drawn import Pair, pair
from kontext_bridge.imaging.keep.filters import highest
from kontext_bridge.imaging.pixels import to_uint8
from patience import PATIENCE, timed
from PIL import Image

pytestmark = pytest.mark.comfyui

PAIRS: dict[str, dict[str, Any]] = {
    "shifted": {"shift": (3.0, -2.0)},
    "larger": {"size": (360, 480), "zoom": 1.02, "shift": (2.0, 1.0)},
    "smaller": {"size": (220, 300), "shift": (1.0, 1.0)},
    "nothing": {"disc": None},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    comfyui()
    base = tmp_path_factory.mktemp("comfyui") / "base"
    with comfy_server_with({"kontext-bridge": REPOSITORY}, base) as running:
        yield running


def put(server: ComfyServer, name: str, given: Pair) -> dict[str, Any]:
    """A pair in ComfyUI's input folder, and the nodes that load it."""
    nodes = {}
    for what, picture in (("source", given.source), ("edited", given.edited)):
        Image.fromarray(np.ascontiguousarray(to_uint8(picture))).save(server.base / "input" / f"{name}_{what}.png")
        nodes[f"{name} {what}"] = {"class_type": "LoadImage", "inputs": {"image": f"{name}_{what}.png"}}
    return nodes


def keep(name: str, **inputs: Any) -> dict[str, Any]:
    """Keep's node, and those that save its picture and its mask."""
    given = {"source": [f"{name} source", 0], "edited": [f"{name} edited", 0], **inputs}
    return {
        f"{name} keep": {"class_type": "KontextKeep", "inputs": given},
        f"{name} mask": {"class_type": "MaskToImage", "inputs": {"mask": [f"{name} keep", 1]}},
        **{
            f"{name} save {what}": {
                "class_type": "SaveImage",
                "inputs": {"images": [f"{name} {node}", 0], "filename_prefix": f"{name} {what}"},
            }
            for what, node in (("image", "keep"), ("mask", "mask"))
        },
    }


def load(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def saved(server: ComfyServer, outputs: dict[str, Any], id: str) -> np.ndarray:
    (shown,) = outputs[id]["images"]
    return load(server.base / "output" / shown["subfolder"] / shown["filename"])


def test_pixels_outside_mask_and_feather_that_are_not_the_sources_bit_for_bit_are_noticed(server: ComfyServer) -> None:
    workflow: dict[str, Any] = {}
    for name, how in PAIRS.items():
        workflow |= put(server, name, pair(240, 320, **how)) | keep(name)
    workflow |= {
        "bound": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 320, "height": 240}},
        "given source": workflow["shifted source"],
        "given edited": workflow["shifted edited"],
        **keep("given", mask=["bound", 0], change="local"),
    }
    done = server.run(workflow)
    assert done["status"]["status_str"] == "success", done["status"]["messages"]
    for name in (*PAIRS, "given"):
        source = load(server.base / "input" / f"{'shifted' if name == 'given' else name}_source.png")
        picture, mask = (saved(server, done["outputs"], f"{name} save {what}") for what in ("image", "mask"))
        # SaveImage cuts what is below a 255th off the mask: the feather's last pixels are those beside it
        taken = highest(torch.from_numpy(mask[..., :1].astype(np.float32)).permute(2, 0, 1), 3)[0].numpy() > 0
        assert np.array_equal(picture[~taken], source[~taken]), name
        assert taken.any() != (name == "nothing") and (~taken).mean() > 0.5, name
        if name != "nothing":
            assert not np.array_equal(picture, source), name


def test_cancel_that_waits_for_the_end_of_a_batch_in_keep_is_noticed(server: ComfyServer) -> None:
    workflow = put(server, "many", pair(240, 320, shift=(2.0, 1.0)))
    workflow |= {"batch": {"class_type": "RepeatImageBatch", "inputs": {"image": ["many edited", 0], "amount": 400}}}
    workflow |= keep("many", edited=["batch", 0])
    prompt = server.submit(workflow)
    end = time.monotonic() + PATIENCE
    while not server.get("/queue")["queue_running"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(2)
    assert server.get("/queue")["queue_running"], "it was over before it could be cancelled"
    with timed() as took:
        server.post("/interrupt", {})
        done = server.wait_for(prompt)
    assert "execution_interrupted" in [message[0] for message in done["status"]["messages"]]
    assert took.own < 5
