"""Edit Picture (Oxen): each model is asked in its own way, and what is promised of Kontext holds for it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from kontext_bridge.headless.validate import WorkflowError
from kontext_bridge.host import Blocked
from kontext_bridge.imaging.codec import decode, encode
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.imaging.pixels import to_uint8
from kontext_bridge.imaging.uri import parse_data_uri
from kontext_bridge.oxen.api.models import bundled
from kontext_bridge.oxen.errors import InvalidParameters, SpendLimitReached
from kontext_bridge.standin import models as listed
from kontext_bridge.standin import sizes

MODELS = bundled()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What "1K" is painted as; a real one takes seconds."""
    monkeypatch.setattr(sizes, "SIDE", 128)


def edit(bench: Any, model: str, image: torch.Tensor, prompt: str = "a hat", **inputs: Any) -> dict[str, Any]:
    """What info says; `inputs` with two underscores are the model's own."""
    own = {name.replace("__", "."): value for name, value in inputs.items()}
    _, text, *_ = bench.run("OxenEdit", image=image, prompt=prompt, model=model, **own)
    return json.loads(text)


def sent(bench: Any) -> list[dict[str, Any]]:
    return [request.json for request in bench.server.requests if request.route in {"edit", "enqueue"}]


def pixels(uri: str) -> Any:
    picture = decode(parse_data_uri(uri))
    return picture.rgb if picture.alpha is None else np.dstack([picture.rgb, picture.alpha])


def half(height: int = 24, width: int = 32) -> torch.Tensor:
    """A MASK that marks the right half."""
    mask = torch.zeros(1, height, width)
    mask[:, :, width // 2 :] = 1
    return mask


def test_a_workflow_with_only_a_picture_and_a_prompt_runs_and_is_a_kontext_edit(bench: Any, images: Any) -> None:
    _, text, raw, mask = bench.run("OxenEdit", image=images(), prompt="a hat")
    told = json.loads(text)
    assert told["model"] == "flux-kontext-dev" and told["shape"] == "as my picture: aspect_ratio match_input_image"
    assert raw.shape[:3] == mask.shape
    _, told, _ = bench.run("KontextEdit", image=images(), prompt="a hat")
    assert json.loads(told)["edits"][0]["how"] == "reused", "the same request by whichever node"
    assert len(bench.paid) == 1


def test_a_model_is_asked_with_its_own_inputs_and_no_others(bench: Any, images: Any) -> None:
    told = edit(bench, "gpt-image-2", images(), model__quality="low", model__resolution="1K")
    (request,) = sent(bench)
    picture = request.pop("input_image")
    assert request == {
        "model": "gpt-image-2",
        "prompt": "a hat",
        "aspect_ratio": "auto",
        "resolution": "1K",
        "quality": "low",
        "output_format": "png",
    }
    assert isinstance(picture, list) and len(picture) == 1
    assert told["price_usd"] == 0.004 and told["shape"] == "as my picture: aspect_ratio auto"


@pytest.mark.parametrize("model", MODELS)
def test_every_model_edits_with_what_it_needs_and_is_paid_once(bench: Any, images: Any, model: str) -> None:
    spec = MODELS[model]
    needs: dict[str, Any] = {"model__mask": half()} if spec.mask and spec.mask.required else {}
    if spec.pictures.least > 1:
        needs["model__references__reference_0"] = images(1, 20, 20)
    told = edit(bench, model, images(), **needs)
    (request,) = sent(bench)
    assert set(request) >= set(spec.pictures.fields) and not set(request) & set(spec.never)
    assert ("prompt" in request) == ("prompt" in spec.named)
    assert told["edits"][0]["size_sent"] == "32x24" and told["edits"][0]["size_returned"]
    assert ("price_usd" in told) != ("price" in told)


def test_a_batch_is_one_edit_each_and_references_go_with_every_one_of_them(bench: Any, images: Any) -> None:
    two, one = images(2, 20, 20), images(1, 16, 16)
    own = {"model__references__reference_0": two, "model__references__reference_2": one}
    edit(bench, "gpt-image-2", images(2), **own)
    first, second = (request["input_image"] for request in sent(bench))
    assert len(first) == len(second) == 4 and first[1:] == second[1:] and first[0] != second[0]
    assert [pixels(one).shape[:2] for one in first] == [(24, 32), (20, 20), (20, 20), (16, 16)]
    edit(bench, "gpt-image-2", images(2), **own)
    assert len(bench.paid) == 2, "and again is free"
    own["model__references__reference_2"] = 1 - one
    edit(bench, "gpt-image-2", images(2), **own)
    assert len(bench.paid) == 4, "another reference is another request"


def test_the_second_picture_of_a_pair_has_a_field_of_its_own(bench: Any, images: Any) -> None:
    edit(bench, "flux-virtual-try-on", images(), model__references__reference_0=images(1, 20, 20))
    (request,) = sent(bench)
    assert pixels(request["input_image_2"]).shape[:2] == (20, 20)


def test_a_style_is_an_object_for_each_picture(bench: Any, images: Any) -> None:
    edit(bench, "krea-v2-large-text-to-image", images(), model__strength=0.5)
    (request,) = sent(bench)
    (style,) = request["image_style_references"]
    assert set(style) == {"image_url", "strength"} and style["strength"] == 0.5
    assert "strength" not in request and request["aspect_ratio"] == "4:3"


@pytest.mark.parametrize("model", [one.id for one in MODELS.values() if one.mask])
def test_a_mask_marks_its_half_in_the_way_of_each_model(bench: Any, images: Any, model: str) -> None:
    edit(bench, model, images(), model__mask=half())
    (request,) = sent(bench)
    mask = pixels(request["mask_url"])
    left, right = mask[:, :16], mask[:, 16:]
    if model.startswith("gpt-image-2-5"):
        assert (left[..., 3] == 255).all() and (right[..., 3] == 0).all()
    else:
        assert mask.shape == (24, 32, 3) and (left == 0).all() and (right == 255).all()


def test_each_picture_of_a_batch_has_its_own_mask(bench: Any, images: Any) -> None:
    masks = torch.cat([half(), half().flip(2)])
    edit(bench, "gpt-image-2", images(2), model__mask=masks)
    asked = sent(bench)  # side by side, so in any order
    asked.sort(key=lambda request: pixels(request["input_image"][0]).mean())
    first, second = (pixels(request["mask_url"]) for request in asked)
    assert (first[:, :16] == 0).all() and (second[:, :16] == 255).all()


def test_a_mask_makes_another_request_and_an_empty_one_is_none(bench: Any, images: Any) -> None:
    edit(bench, "gpt-image-2", images())
    edit(bench, "gpt-image-2", images(), model__mask=torch.zeros(1, 64, 64))
    assert len(bench.paid) == 1, "LoadImage gives a small empty one where the file has no alpha"
    edit(bench, "gpt-image-2", images(), model__mask=half())
    assert len(bench.paid) == 2 and "mask_url" not in sent(bench)[0]


@pytest.mark.parametrize(
    ("model", "inputs", "error", "words"),
    [
        ("flux-erase", {"model__mask": torch.zeros(1, 24, 32)}, InvalidParameters, "needs a mask for every picture"),
        ("gpt-image-2", {"model__mask": half(48, 64)}, ImageError, "scale the mask to the picture first"),
        ("gpt-image-2", {"model__mask": half() * 0.4}, InvalidParameters, "The mask is faint: no pixel .* by half"),
        ("gpt-image-2", {"model__mask": half() * 0.4, "pictures": 2}, InvalidParameters, "The mask is faint"),
        (
            "gpt-image-2",
            {"model__mask": torch.cat([half(), half() * 0.4]), "pictures": 2},
            InvalidParameters,
            "Mask 2 of 2 is faint",
        ),
        ("qwen-image-3", {"model__references__reference_0": torch.rand(3, 8, 8, 3)}, InvalidParameters, "at most 2"),
        ("gpt-image-2", {"prompt": " "}, WorkflowError, "The prompt is empty"),
        ("gpt-image-3", {}, WorkflowError, "gpt-image-3"),
        ("gpt-image-2", {"model__seed": 5}, InvalidParameters, "gpt-image-2 has no seed; its own inputs are"),
        ("flux-2-flex", {"model__steps": 99}, WorkflowError, "steps: 99 is above"),
    ],
)
def test_what_a_model_does_not_take_is_told_before_anything_is_sent(
    bench: Any, images: Any, model: str, inputs: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as raised:
        edit(bench, model, images(inputs.pop("pictures", 1)), **inputs)
    assert error is WorkflowError or "Nothing was sent." in str(raised.value)
    assert bench.paid == []


def test_a_model_that_comfyui_let_pass_is_told_by_the_node_itself() -> None:
    from kontext_bridge.nodes.remote.chosen import chosen, order_of, wrong_with

    with pytest.raises(InvalidParameters, match=r"There is no model 'gpt-9' in the list.*Nothing was sent"):
        chosen("gpt-9")
    assert "no model 'gpt-9'" in str(wrong_with("x", "gpt-9"))
    with pytest.raises(InvalidParameters, match="no model 'gpt-9'"):
        order_of(torch.rand(1, 8, 8, 3), prompt="x", model="gpt-9", **{"model.quality": "low"})


def test_odd_inputs_of_an_api_file_are_told_by_the_node_itself() -> None:
    from kontext_bridge.nodes.remote.chosen import order_of

    picture = torch.rand(1, 8, 8, 3)
    for references in ({"other": picture}, {"reference_x": picture}, {"reference_": picture}, [picture]):
        with pytest.raises(InvalidParameters, match="references has no socket"):
            order_of(picture, prompt="x", model={"model": "gpt-image-2", "references": references})
    with pytest.raises(InvalidParameters, match="takes no mask"):
        order_of(picture, prompt="x", model={"model": "nano-banana", "mask": torch.ones(1, 8, 8)}).along.looked_over(
            picture
        )
    with pytest.raises(ImageError):
        order_of(picture, prompt="x", model={"model": "gpt-image-2", "references": {"reference_0": 5}})


def test_two_variations_without_a_seed_are_two_requests_and_a_repeat_is_free(bench: Any, images: Any) -> None:
    pair = images(2)
    told = edit(bench, "nano-banana", pair[:1], variations=2)
    assert len(bench.paid) == 2 and [one["how"] for one in told["edits"]] == ["new", "new"]
    told = edit(bench, "nano-banana", pair[:1], variations=2)
    assert len(bench.paid) == 2 and told["cost_usd"] == 0
    edit(bench, "nano-banana", pair)
    assert len(bench.paid) == 3, "the first of the batch is there"
    edit(bench, "nano-banana", pair.flip(0))
    assert len(bench.paid) == 3, "wherever it stands"
    edit(bench, "nano-banana", pair[:1].expand(3, -1, -1, -1))
    assert len(bench.paid) == 4, "the third of one picture is a third request"


def test_a_prompt_that_a_model_does_not_take_is_not_sent_and_info_says_so(bench: Any, images: Any) -> None:
    told = edit(bench, "topazlabs-image-upscale", images(), model__scale="4x")
    (request,) = sent(bench)
    assert "prompt" not in request and request["upscale_factor"] == "4x"
    assert told["prompt"] == "not sent: Topaz Upscale takes none"


def test_a_limit_refuses_where_no_price_is_known_and_nothing_is_sent(
    bench: Any, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = listed.MODELS["topazlabs-bloom-2-image"] | {"pricing": {"method": "per_provider_credit"}}
    monkeypatch.setitem(listed.MODELS, "topazlabs-bloom-2-image", free)
    monkeypatch.setenv("KONTEXT_BRIDGE_USD_PER_RUN", "5")
    with pytest.raises(SpendLimitReached, match="publishes no price per picture for topazlabs-bloom-2-image"):
        edit(bench, "topazlabs-bloom-2-image", images())
    assert bench.paid == []


def test_what_was_submitted_with_any_model_is_collected(bench: Any, images: Any) -> None:
    job, ids = bench.run("OxenSubmit", image=images(), prompt="a hat", model="nano-banana", variations=2)
    assert len(ids.splitlines()) == 2
    pictures, _, *_ = bench.run("KontextCollect", job=[job])
    assert pictures.shape[0] == 2 and len(bench.paid) == 2


def test_one_blocking_request_goes_to_the_models_own_route(bench: Any, images: Any) -> None:
    edit(bench, "nano-banana", images(), wait="one blocking request")
    (request,) = [one for one in bench.server.requests if one.route == "edit"]
    assert request.json["response_format"] == "b64_json"


def test_a_cut_out_that_was_submitted_is_collected_and_brought_back_with_its_transparency(
    bench: Any, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_out = torch.cat([images(), 1 - half()[..., None]], -1)
    monkeypatch.setattr("kontext_bridge.standin.service.make_edit", lambda *_: encode(to_uint8(cut_out[0])).data)
    job, _ = bench.run("OxenSubmit", image=images(), prompt="a hat", model="sam-3-image")
    *_, raw, mask = bench.run("KontextCollect", job=[job])
    assert torch.equal(raw, images()) and torch.equal(mask, half())
    *_, raw, mask = bench.run("KontextHistory")
    assert torch.equal(raw, images()) and torch.equal(mask, half())
    *_, mask = bench.run("KontextHistory", pick=2)
    assert isinstance(mask, Blocked) and "no number 2" in str(mask.message)
