"""Every model through Edit Picture (Oxen): held to its own schema, billed once at the price that was told, painted."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import torch
from kontext_bridge.oxen.api.models import bundled
from kontext_bridge.standin.models import MODELS
from kontext_bridge.standin.parameters import COST_PER_IMAGE

SPECS = bundled()
MASKED = [spec.id for spec in SPECS.values() if spec.mask is not None]
KONTEXT = "flux-kontext-dev"


@pytest.fixture
def service(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in that refuses every field that a model has not, and draws small."""
    monkeypatch.setattr("kontext_bridge.standin.sizes.SIDE", 128)
    monkeypatch.setattr("kontext_bridge.standin.picture.SIZES", ((160, 120), (168, 112), (128, 128)))
    return serve(strict_fields=True)


def plain(height: int = 96, width: int = 128, value: float = 0.5) -> torch.Tensor:
    return torch.full((1, height, width, 3), value)


def half(right: bool, height: int = 96, width: int = 128) -> torch.Tensor:
    """A MASK that marks one half."""
    mask = torch.zeros(1, height, width)
    mask[:, :, width // 2 :] = 1
    return mask if right else 1 - mask


def needs(model: str) -> dict[str, Any]:
    """What the model cannot do without, and what it need not have and may: references, a mask."""
    spec = SPECS[model]
    own: dict[str, Any] = {"prompt": "a hat"} if "prompt" in spec.named else {}
    if spec.mask is not None:
        own["model.mask"] = half(right=True)
    if spec.pictures.most > 1:
        own["model.references.reference_0"] = plain(64, 64, 0.2)
    return own


def test_every_model_is_asked_by_its_schema_billed_once_as_told_and_gives_its_picture(
    service: Any, tables: dict[str, list[str]]
) -> None:
    rows = ["model | sent | shape | told | billed | came"]
    for number, model in enumerate(SPECS):
        picture, text, *_ = service.run("OxenEdit", image=plain(), model=model, **needs(model))
        told = json.loads(text)
        (request,) = [one.json for one in service.server.requests[-40:] if one.route == "enqueue"][-1:]
        assert len(service.server.billed) == number + 1, model
        bill = service.server.billed[-1]
        assert bill.what in service.server.delivered, model
        schema = MODELS[model]["request_schema"]
        assert set(schema["required"]) <= set(request) - {"model"} <= set(schema["properties"]), model
        cost = told["edits"][0].get("cost_usd")
        assert (None if bill.usd is None else float(bill.usd)) == cost, model
        if model == KONTEXT:
            assert told["price"] == "not known" and bill.usd == Decimal(str(COST_PER_IMAGE)), "made up there"
        else:
            assert told.get("price_usd") == cost, model
        assert abs(picture.shape[2] / picture.shape[1] * 3 / 4 - 1) < 0.16, (model, picture.shape)
        fields = ", ".join(name for name in request if name != "model")
        price = told.get("price_usd", told.get("price"))
        came = f"{picture.shape[2]}x{picture.shape[1]}"
        rows.append(f"{model} | {fields} | {told['shape']} | {price} | {bill.usd} | {came}")
    assert len(rows) == 39
    tables["every model through Edit Picture"] = rows


@pytest.mark.parametrize("model", ["krea-v2-large-text-to-image", "gpt-image-1-5", "flux-erase", "gpt-image-2"])
def test_a_blocking_request_goes_to_the_models_route_and_is_held_to_its_schema_too(service: Any, model: str) -> None:
    service.run("OxenEdit", image=plain(), model=model, wait="one blocking request", **needs(model))
    assert service.paid == ["edit"] and len(service.server.billed) == 1
    (request,) = [one for one in service.server.requests if one.route == "edit"]
    assert request.path == f"/api/ai/images/{SPECS[model].route}"


@pytest.mark.parametrize("right", [True, False], ids=["right", "left"])
@pytest.mark.parametrize("model", MASKED)
def test_a_half_mask_edits_that_half_and_leaves_the_other(service: Any, model: str, right: bool) -> None:
    own = needs(model) | {"model.mask": half(right)}
    own.pop("model.references.reference_0", None)
    picture, *_ = service.run("OxenEdit", image=plain(), model=model, **own)
    middle = picture.shape[2] // 2
    changed = (picture[0] - 0.5).abs().amax(dim=2) > 0.03
    left, other = changed[:, : middle - 8], changed[:, middle + 8 :]
    edited, kept = (other, left) if right else (left, other)
    assert edited.float().mean() > 0.95 and not kept.any(), (edited.float().mean(), kept.float().mean())
