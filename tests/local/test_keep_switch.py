"""The switch `keep` of Kontext Edit (Local FP8), without a model: real edits in the place of the sampled ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from drawn import pair
from kontext_bridge import host
from kontext_bridge.headless import ensure_comfy_api
from kontext_bridge.imaging.keep import switch
from kontext_bridge.kontext.checkpoint.purpose import Purpose

ensure_comfy_api()

from kontext_bridge.nodes.local import work  # noqa: E402
from kontext_bridge.nodes.local.model import KontextEditLocal  # noqa: E402

PAIRS = [pair(160, 200, shift=(2.0, 1.0), seed=seed) for seed in range(2)]
SOURCE = torch.stack([one.source for one in PAIRS])


@pytest.fixture(autouse=True)
def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each picture's own edit, as often as it has variations."""

    def edited(run: Any, canvas: Any, *_: Any) -> torch.Tensor:
        (number,) = (place for place, one in enumerate(PAIRS) if torch.equal(canvas.source[0], one.source))
        return PAIRS[number].edited[None]

    monkeypatch.setattr(work, "_encoded", lambda *_: None)
    monkeypatch.setattr(work, "_progress", lambda *_: lambda done: done)
    monkeypatch.setattr(work._Run, "_latent", lambda *_: torch.zeros(1))
    monkeypatch.setattr(work._Run, "_edited", edited)


def run(**inputs: Any) -> Any:
    widgets = {"prompt": "snow", "aspect_ratio": "match_input_image", "steps": 4, "guidance": 2.5, "seed": 0}
    return KontextEditLocal.execute(model=0, clip=0, vae=0, image=SOURCE, **{**widgets, **inputs})


def test_only_what_was_edited_changes_pair_by_pair_and_the_raw_edits_are_given_too() -> None:
    output = run(variations=2, keep="auto")
    image, info, raw = output.args
    for place, (picture, told) in enumerate(zip(image, json.loads(info)["edits"], strict=True)):
        given = PAIRS[place // 2]
        kept = switch.keep(given.source, given.edited)
        assert torch.equal(picture, kept.picture) and told["keep"]["verdict"] == "local"
        assert torch.equal(picture[kept.mask == 0], given.source[kept.mask == 0])
        assert torch.equal(raw[place], given.edited)
    assert output.ui.value.count("the rest is your own pixels") == 4


def test_a_large_picture_keeps_what_a_small_models_edit_has_no_detail_for(monkeypatch: pytest.MonkeyPatch) -> None:
    small = pair(96, 120, seed=3)
    fine = torch.rand(480, 600, 1, generator=torch.Generator().manual_seed(4)) * 0.2 - 0.1

    def enlarged(picture: torch.Tensor) -> torch.Tensor:
        planes = picture.permute(2, 0, 1)[None]
        return F.interpolate(planes, (480, 600), mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0)

    source = (enlarged(small.source) + fine).clamp(0, 1)
    monkeypatch.setattr(work, "purpose_of", lambda _: Purpose(120 * 96, "demo model"))
    monkeypatch.setattr(work._Run, "_edited", lambda *_: enlarged(small.edited)[None])
    widgets = {"prompt": "snow", "aspect_ratio": "match_input_image", "steps": 4, "guidance": 2.5, "seed": 0}
    output = KontextEditLocal.execute(model=0, clip=0, vae=0, image=source[None], keep="auto", **widgets)
    image, info, _ = output.args
    told = json.loads(info)["edits"][0]["keep"]
    assert told["verdict"] == "local" and told["changed"] < 0.5
    assert (image[0] == source).all(-1).float().mean() > 0.5 and image.shape == (1, 480, 600, 3)


def test_a_file_saved_before_the_switch_gives_what_it_gave() -> None:
    output = run()
    image, info, raw = output.args
    assert image is raw and output.ui is None and "keep" not in json.loads(info)["edits"][0]


def test_an_error_in_keep_hands_on_the_edits_as_they_came_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(switch, "keep", fails)
    output = run(keep="auto")
    image, info, raw = output.args
    assert torch.equal(image, raw) and json.loads(info)["edits"][1]["keep"]["verdict"] == "failed"
    assert output.ui.value.startswith("Keep failed (not enough memory): the edit is handed on as it came")


def test_cancel_stops_between_two_steps_of_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter([False, False, True])
    monkeypatch.setattr(host.comfyui, "interrupted", lambda: next(asked))
    with pytest.raises(host.LocalInterruption):
        run(keep="auto")
