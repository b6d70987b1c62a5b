"""The local nodes as far as they can be looked at and run without ComfyUI."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kontext_bridge.headless import ensure_comfy_api
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.kontext.errors import KontextError
from kontext_bridge.oxen.errors import OxenError
from PIL import Image

ensure_comfy_api()

from kontext_bridge import comfy_entrypoint  # noqa: E402
from kontext_bridge.standin.picture import output_size  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "example_workflows" / "kontext_example.png"
LOCAL = (
    "KontextLoadFP8",
    "KontextLoadDemo",
    "KontextLoRA",
    "KontextPrepare",
    "KontextRestore",
    "KontextSample",
    "KontextEditLocal",
    "KontextFast",
)


async def _classes() -> list[Any]:
    return await (await comfy_entrypoint()).get_node_list()


NODES = {node.GET_SCHEMA().node_id: node for node in asyncio.run(_classes())}


def declared(node_id: str) -> dict[str, Any]:
    """A node's inputs in order: type and what a widget stores or refuses."""
    info = json.loads(json.dumps(NODES[node_id].GET_NODE_INFO_V1()))
    told = {}
    for kind in ("required", "optional"):
        for name, spec in info["input"].get(kind, {}).items():
            options = dict(spec[1]) if len(spec) > 1 else {}
            options.pop("tooltip", None)
            told[name] = (kind, spec[0], options)
    return told


def test_a_widget_that_one_side_lacks_or_has_elsewhere_is_noticed() -> None:
    remote, local = declared("KontextEdit"), declared("KontextEditLocal")
    assert list(local)[:3] == ["model", "clip", "vae"]
    *shared, last = list(local.items())[3:]
    assert list(remote.items())[: len(shared)] == shared
    assert list(remote.items())[-1] == last and last[0] == "keep"


def test_an_input_that_means_something_here_and_is_left_to_the_remote_side_is_noticed() -> None:
    alone = set(declared("KontextEdit")) - set(declared("KontextEditLocal"))
    files_and_service = {"output_format", "output_quality", "disable_safety_checker", "namespace", "send_as"}
    waiting_and_paying = {"wait", "timeout", "result", "if_some_fail"}
    assert alone == files_and_service | waiting_and_paying


def test_a_local_node_that_talks_of_paying_is_noticed() -> None:
    for node_id in LOCAL:
        assert "paid" not in json.dumps(NODES[node_id].GET_NODE_INFO_V1()), node_id


def test_a_schema_that_loads_what_only_running_needs_is_noticed() -> None:
    script = (
        "import sys; from kontext_bridge.headless import ensure_comfy_api; ensure_comfy_api();"
        "from kontext_bridge.nodes import NODES; [node.GET_NODE_INFO_V1() for node in NODES];"
        "heavy = {'safetensors', 'diffusers', 'transformers', 'requests', 'comfy', 'kontext_bridge.nodes.local.work'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def run(node_id: str, **inputs: Any) -> tuple[Any, ...]:
    return NODES[node_id].execute(**inputs).args


def picture(height: int, width: int, batch: int = 1, channels: int = 3) -> torch.Tensor:
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(1))


def prepared(image: torch.Tensor, **changes: Any) -> tuple[Any, ...]:
    widgets = {"megapixels": 0.1, "margin": 32, "aspect_ratio": "match_input_image"}
    return run("KontextPrepare", image=image, **{**widgets, **changes})


@pytest.mark.parametrize(("height", "width"), [(333, 500), (2000, 1201), (64, 64)])
def test_a_prepared_size_that_kontext_cannot_sample_is_noticed(height: int, width: int) -> None:
    image, _, across, down = prepared(picture(height, width))
    assert image.shape == (1, down, across, 3)
    assert across % 16 == down % 16 == 0
    assert across * down == pytest.approx(0.1 * 1024 * 1024, rel=0.3)


@pytest.mark.parametrize("size", [(90, 900), (900, 90), (90, 215), (200, 250), (250, 200), (217, 200)])
@pytest.mark.parametrize("masked", [False, True])
def test_an_edit_in_the_nearest_size_that_kontext_makes_and_that_restore_refuses_is_noticed(
    size: tuple[int, int], masked: bool
) -> None:
    image, mask = picture(*size), torch.zeros(1, *size)
    mask[:, 5:-5, 5:-5] = float(masked)
    _, canvas, width, height = prepared(image, mask=mask)
    across, down = output_size("match_input_image", (width, height))
    answer = torch.full((1, down // 4, across // 4, 3), 0.5)
    (restored,) = run("KontextRestore", image=answer, canvas=canvas, feather=0)
    assert restored.shape == image.shape and not torch.equal(restored, image)


def test_a_way_out_for_an_edit_that_was_cropped_that_does_not_lead_back_onto_the_picture_is_noticed() -> None:
    image = torch.from_numpy(np.asarray(Image.open(EXAMPLE).convert("RGB"), dtype=np.float32) / 255)[None, :, :880]
    before, canvas, width, height = prepared(image, megapixels=0.25)
    edit = before.clone()
    edit[:, height // 2 : height // 2 + 60, width // 3 : width // 3 + 80] = torch.tensor([0.8, 0.1, 0.1])
    spare = (width - height) // 2
    cropped = edit[:, :, spare : spare + height]
    with pytest.raises(ImageError, match="Put Kontext Keep between, with Kontext Prepare's image as its source"):
        run("KontextRestore", image=cropped, canvas=canvas, feather=16)
    kept, _, _ = run("KontextKeep", source=before, edited=cropped)
    (restored,) = run("KontextRestore", image=kept, canvas=canvas, feather=16)
    (wanted,) = run("KontextRestore", image=edit, canvas=canvas, feather=16)
    assert (restored - wanted).abs().mean() < 0.002 < (wanted - image).abs().mean()
    assert torch.equal(restored[:, :50], image[:, :50])


@pytest.mark.parametrize("feather", [0, 7, 16, 500])
def test_a_masked_edit_that_touches_a_pixel_outside_mask_and_feather_is_noticed(feather: int) -> None:
    image = picture(300, 400, channels=4)
    mask = torch.zeros(1, 300, 400)
    mask[:, 100:160, 200:290] = 1
    edited, canvas, _, _ = prepared(image, mask=mask)
    (restored,) = run("KontextRestore", image=1 - edited, canvas=canvas, feather=feather)
    reach = min(feather, 32)
    touched = torch.zeros(300, 400, dtype=torch.bool)
    touched[100 - reach : 160 + reach, 200 - reach : 290 + reach] = True
    assert restored.shape == image.shape
    assert torch.equal(restored[0][~touched], image[0][~touched])
    inside = (restored - image)[0, 110:150, 210:280, :3].abs()
    assert inside.mean() > 0.05, "the edit is there"


def test_a_feather_wider_than_the_margin_that_leaves_a_seam_is_noticed() -> None:
    image, mask = torch.zeros(1, 300, 400, 3), torch.zeros(1, 300, 400)
    mask[:, 100:160, 200:290] = 1
    edited, canvas, _, _ = prepared(image, mask=mask)
    (restored,) = run("KontextRestore", image=torch.ones_like(edited), canvas=canvas, feather=512)
    steps = restored.diff(dim=1).abs().amax(), restored.diff(dim=2).abs().amax()
    assert max(steps) < 0.2


def test_another_aspect_ratio_that_does_not_come_back_at_the_pictures_own_size_is_noticed() -> None:
    image = picture(300, 400)
    edited, canvas, width, height = prepared(image, aspect_ratio="1:1")
    assert width == height
    (restored,) = run("KontextRestore", image=edited, canvas=canvas, feather=16)
    assert torch.equal(restored, image)


@pytest.mark.parametrize(
    "node_id", ["KontextSample", "KontextEditLocal", "KontextLoRA", "KontextLoadDemo", "KontextFast"]
)
def test_a_run_without_comfyui_is_told_what_to_use_instead(node_id: str, tmp_path: Path, monkeypatch: Any) -> None:
    from kontext_bridge.kontext.demo import shipped
    from kontext_bridge.nodes.local import model_files as files

    monkeypatch.setattr(files, "path", lambda kind, name: tmp_path / name)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    for name in (shipped.TRANSFORMER, shipped.VAE, shipped.TEXT):
        (tmp_path / name).touch()
    latent = {"samples": torch.zeros(1, 16, 8, 8)}
    edit = {"prompt": "make it snow", "aspect_ratio": "match_input_image", "steps": 4, "guidance": 2.5, "seed": 0}
    size = {"width": 64, "height": 64, "steps": 4, "guidance": 2.5, "seed": 0}
    inputs: dict[str, Any] = {
        "KontextSample": {"model": object(), "positive": [], "references": {"reference_0": latent}, **size},
        "KontextEditLocal": {"model": object(), "clip": Clip(), "vae": object(), "image": picture(64, 64), **edit},
        "KontextLoRA": {"model": object(), "file": "a.safetensors", "strength": 1.0},
        "KontextLoadDemo": {},
        "KontextFast": {"model": object(), "cache": 0.1},
    }[node_id]
    with pytest.raises(KontextError, match=r"use Kontext Edit \(Oxen\)"):
        run(node_id, **inputs)


class Clip:
    """The two methods of ComfyUI's CLIP that an edit calls."""

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str) -> list[Any]:
        return [[torch.zeros(1, 7, 64), {"pooled_output": torch.zeros(1, 32)}]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"prompt": "  "}, "prompt is empty"), ({"variations": 0}, "at least one"), ({"steps": 0}, "at least one step")],
)
def test_a_widget_value_over_a_link_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    widgets = {"prompt": "snow", "aspect_ratio": "match_input_image", "steps": 4, "guidance": 2.5, "seed": 0}
    with pytest.raises(KontextError, match=words):
        run("KontextEditLocal", model=0, clip=Clip(), vae=0, image=picture(64, 64), **{**widgets, **changes})


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"cache": 1.5}, "cache is 1.5"),
        ({"reference": 0.5}, "reference is 0.5"),
        ({"settled": 0.1}, "give a mask"),
        ({"settled": 0.1, "mask": torch.zeros(1, 8, 8)}, "The mask is empty"),
        ({"settled": 0.1, "mask": "a mask"}, "Connect a mask"),
        ({"cache": "much"}, "cache takes a number"),
    ],
)
def test_an_approximation_over_a_link_that_makes_no_sense_is_refused(inputs: dict[str, Any], words: str) -> None:
    with pytest.raises((KontextError, OxenError), match=words):
        run("KontextFast", model=object(), **inputs)


def test_an_approximation_that_is_on_where_nothing_was_set_is_noticed() -> None:
    widgets = {
        name: options["default"] for name, (_, _, options) in declared("KontextFast").items() if "default" in options
    }
    assert widgets == {"cache": 0.0, "reference": 1.0, "settled": 0.0, "measure": False}


def test_a_file_that_is_gone_is_named() -> None:
    with pytest.raises(KontextError, match=r"kontext\.safetensors is not in ComfyUI's folder"):
        run("KontextLoadFP8", file="kontext.safetensors", compute="auto", compile=False)


def test_a_demo_model_that_is_not_there_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    from kontext_bridge.kontext.demo import shipped

    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(KontextError, match=r"kontext_demo_fp8_scaled\.safetensors, kontext_demo_vae\.safetensors"):
        run("KontextLoadDemo")


@pytest.mark.parametrize(("height", "width"), [(200, 300), (1000, 1000), (500, 1800)])
def test_a_prepared_size_that_the_demo_model_cannot_edit_is_noticed(height: int, width: int) -> None:
    _, _, across, down = prepared(picture(height, width), megapixels=0.016)
    assert across % 16 == down % 16 == 0 and across * down == pytest.approx(128 * 128, rel=0.25)


def test_a_size_that_is_far_more_than_a_model_edits_is_refused_unless_it_is_a_kontext() -> None:
    from kontext_bridge.kontext.checkpoint.purpose import Purpose
    from kontext_bridge.kontext.comfyui.carried import carry

    class Patcher:
        def __init__(self) -> None:
            self.attachments: dict[str, Any] = {}

        def set_attachments(self, key: str, value: Any) -> None:
            self.attachments[key] = value

    latent = {"samples": torch.zeros(1, 16, 8, 8)}
    inputs = {"positive": [], "references": {"reference_0": latent}, "steps": 1, "guidance": 2.5, "seed": 0}
    for called, side, words in (
        ("demo model", 1024, "Set megapixels to 0.016 in Kontext Prepare"),
        ("demo model", 256, r"use Kontext Edit \(Oxen\)"),
        (None, 1024, r"use Kontext Edit \(Oxen\)"),
    ):
        model = Patcher()
        carry(model, Purpose(128 * 128, called))
        with pytest.raises(KontextError, match=words):
            run("KontextSample", model=model, width=side, height=side, **inputs)
