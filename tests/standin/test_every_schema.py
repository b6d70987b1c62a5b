"""Every model that has a file is served with its schema, and requests are held to that schema alone."""

from __future__ import annotations

import base64
import io
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.standin.models import MODELS
from kontext_bridge.standin.own_models import EDITING
from kontext_bridge.standin.parameters import MODEL, PICTURE_MODELS, SCHEMAS, cost_of
from kontext_bridge.standin.sizes import wanted
from PIL import Image

from .conftest import data_uri

# The folder of the service's own model objects, one `ID.json` each; they are not ours to give out. A name that begins
# as those of the pack's settings would be refused as one.
REFERENCE = "OXEN_MODEL_OBJECTS"
# Those that the service has objects of for everybody.
DOCUMENTED = SCHEMAS.keys() - set(EDITING)


def mask_uri(mode: str, size: tuple[int, int] = (60, 40), colour: Any = 255) -> str:
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


WHITE, CLEAR = mask_uri("RGB", colour=(255, 255, 255)), mask_uri("RGBA", colour=(9, 9, 9, 0))


def request(model: str, **more: Any) -> dict[str, Any]:
    """The least that a model can be asked, from its schema."""
    schema = SCHEMAS[model]
    body: dict[str, Any] = {"model": model}
    for name in schema["required"]:
        rule = schema["properties"][name]
        if rule["type"] == "array":
            key = next(iter(rule["items"].get("required", ())), None)
            body[name] = [data_uri() if key is None else {key: data_uri()}]
        elif rule.get("format") == "uri":
            body[name] = WHITE if name == "mask_url" else data_uri()
        else:
            body[name] = "a hat"
    return body | more


@pytest.fixture
def quick(serve: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("kontext_bridge.standin.sizes.SIDE", 64)
    monkeypatch.setattr("kontext_bridge.standin.picture.SIZES", ((96, 64), (64, 96)))
    return serve()


def post(api: Any, body: dict[str, Any]) -> Any:
    return api.call("POST", f"/api/ai/images/{PICTURE_MODELS[body['model']].route}", json=body)


def test_a_blocking_request_on_the_route_of_other_models_finds_nothing(quick: Any) -> None:
    for model, other in (("krea-v2-large-text-to-image", "edit"), ("gpt-image-2", "generate"), (MODEL, "generate")):
        reply = quick.call("POST", f"/api/ai/images/{other}", json=request(model))
        assert reply.status_code == 404 and reply.json()["error"]["type"] == "resource_not_found"
    assert not quick.server.billed


def test_each_is_listed_and_paints_by_the_least_that_it_needs(quick: Any) -> None:
    assert len(MODELS) == 39, "the models of pictures, and one of texts"
    listed = {one["id"]: one for one in quick.call("GET", "/api/ai/models").json()["data"]}
    for model in DOCUMENTED:  # the account's own are listed without a schema
        assert listed[model]["request_schema"] == SCHEMAS[model]
        reply = post(quick, request(model))
        assert reply.status_code == 200 and len(reply.json()["images"]) == 1, (model, reply.text)
    assert len(quick.server.billed) == len(DOCUMENTED)


@pytest.mark.parametrize(
    ("model", "change", "words"),
    [
        ("gpt-image-2", {"quality": "xhigh"}, "quality must be one of low, medium, high"),
        ("gpt-image-2", {"guidance": 3}, "guidance: not a parameter of gpt-image-2"),
        ("gpt-image-2", {"input_image": data_uri()}, "input_image must be of type array"),
        ("gpt-image-2", {"input_image": []}, "input_image must hold a picture"),
        ("gpt-image-2", {"input_image": None}, "input_image must be of type array"),
        ("gpt-image-2", {"input_image": [data_uri(), 7]}, "input_image holds what must be of type string"),
        ("gpt-image-2", {"prompt": " "}, "Prompt cannot be empty"),
        ("gpt-image-2", {"output_format": "jpg"}, "output_format must be one of png, jpeg, webp"),
        ("flux-2-dev", {"output_format": "jpeg"}, "output_format must be one of"),
        ("flux-2-dev", {"guidance_scale": 3}, "guidance_scale: not a parameter"),
        ("flux-2-dev", {"guidance": 10.5}, "guidance must be between 0 and 10"),
        ("qwen-image-3", {"num_images": 2}, "num_images: must not be sent"),
        ("qwen-image-3", {"seed": 2**31}, "seed must be between 0 and 2147483647"),
        ("qwen-image-3", {"input_images": [data_uri()] * 4}, "input_images must hold at most 3"),
        ("qwen-image-2-1", {"image_size": {"width": 1}}, "image_size: must not be sent"),
        ("qwen-image-2", {"match_input_image": "true"}, "match_input_image must be of type boolean"),
        ("nano-banana-2-edit", {"safety_tolerance": 6}, "safety_tolerance must be of type string"),
        ("flux-3-image", {"safety_tolerance": "2"}, "safety_tolerance must be of type integer"),
        ("topazlabs-image-upscale", {"prompt": "sharper"}, "prompt: not a parameter"),
        ("topazlabs-image-upscale", {"upscale_factor": "8x"}, "upscale_factor must be one of 2x, 4x"),
        ("flux-virtual-try-on", {"input_image_2": None}, "403 Client Error: Forbidden for url: None"),
        ("krea-v2-large-text-to-image", {"image_style_references": [data_uri()]}, "of type object"),
        ("krea-v2-large-text-to-image", {"image_style_references": [{"strength": 1}]}, "must hold image_url"),
        (
            "krea-v2-large-text-to-image",
            {"image_style_references": [{"image_url": data_uri(), "strength": 2}]},
            "a strength that must be between -1 and 1",
        ),
        ("flux-erase", {"mask_url": 1}, "mask_url must be of type string"),
        ("flux-kontext-dev", {"mask_url": WHITE}, "mask_url: not a parameter of flux-kontext-dev"),
    ],
)
def test_what_is_not_as_the_schema_says_is_named_and_not_billed(
    quick: Any, model: str, change: dict[str, Any], words: str
) -> None:
    reply = post(quick, request(model, **change))
    assert reply.status_code == 400 and words in reply.json()["error"]["detail"], reply.text
    assert not quick.server.billed
    job = quick.call("POST", "/api/ai/queue", json=request(model, **change)).json()["generations"][0]
    assert words in quick.ended(job["generation_id"])["error_message"], "the queue takes it, and it fails there"


def test_a_missing_mask_and_a_missing_picture_are_named(quick: Any) -> None:
    for model, lacks in (("flux-erase", "mask_url"), ("qwen-image-3", "input_images"), ("sam-3-image", "input_image")):
        body = request(model)
        del body[lacks]
        reply = post(quick, body)
        assert reply.status_code == 400 and (lacks in reply.text or "for url: None" in reply.text), reply.text
    assert not quick.server.billed


@pytest.mark.parametrize(
    ("model", "mask", "words"),
    [
        ("gpt-image-2", mask_uri("L", (30, 20)), "mask_url is 30x20, and the picture 60x40"),
        ("gpt-image-2", CLEAR, "transparent in places"),
        ("gpt-image-2", mask_uri("RGB", colour=(128, 128, 128)), "not black and white"),
        ("gpt-image-2", "data:image/png;base64,AAAA", "mask_url is no jpeg"),
        ("gpt-image-2-5-flare", WHITE, "no alpha channel"),
        ("flux-erase", "https://example.com/mask.png", "403 Client Error: Forbidden for url"),
    ],
)
def test_a_mask_of_another_size_or_kind_is_refused_and_not_billed(
    quick: Any, model: str, mask: str, words: str
) -> None:
    reply = post(quick, request(model, mask_url=mask))
    assert reply.status_code == 400 and words in reply.json()["error"]["detail"], reply.text
    assert not quick.server.billed


def test_a_transparent_mask_is_taken_where_transparent_marks(quick: Any) -> None:
    assert post(quick, request("gpt-image-2-5-sunburst", mask_url=CLEAR)).status_code == 200


def test_as_many_pictures_as_are_asked_of_the_queue_come_and_each_is_on_the_bill(quick: Any) -> None:
    body = request("gpt-image-2", quality="low", resolution="1K", num_generations=3)
    jobs = quick.call("POST", "/api/ai/queue", json=body).json()["generations"]
    rows = [quick.ended(job["generation_id"]) for job in jobs]
    assert [row["status"] for row in rows] == ["succeeded"] * 3
    assert [bill.usd for bill in quick.server.billed] == [Decimal("0.004")] * 3
    history = quick.call("GET", "/api/ai/generations").json()
    assert history["total_cost"] == "0.012" and {row["cost"] for row in history["generations"]} == {"0.004"}


@pytest.mark.parametrize(
    ("model", "asked", "usd"),
    [
        ("gpt-image-2", {}, "0.29"),
        ("gpt-image-2", {"quality": "low", "resolution": "4K"}, "0.035"),
        ("nano-banana-2", {"resolution": "512"}, "0.0585"),
        ("flux-3-image", {}, "0.0624"),
        ("flux-2-flex", {}, "0.12"),
        ("topazlabs-wonder-3-5-image", {}, None),
        ("qwen-image-edit", {}, None),
    ],
)
def test_a_picture_costs_what_the_grid_has_for_it_and_nothing_is_claimed_where_it_is_not_told(
    model: str, asked: dict[str, Any], usd: str | None
) -> None:
    assert cost_of({"model": model, **asked}) == (None if usd is None else Decimal(usd))


def test_the_history_claims_no_cost_of_a_model_whose_price_is_not_told(quick: Any) -> None:
    generation = quick.call("POST", "/api/ai/queue", json=request("qwen-image-edit")).json()["generations"][0]
    quick.ended(generation["generation_id"])
    history = quick.call("GET", "/api/ai/generations").json()
    assert history["generations"][0]["cost"] is None and history["total_cost"] is None


@pytest.mark.parametrize(
    ("asked", "pictures", "size"),
    [
        ({"aspect_ratio": "16:9"}, [(60, 40)], (1368, 768)),
        ({"aspect_ratio": "auto", "resolution": "2K"}, [(60, 40)], (2512, 1672)),
        ({"aspect_ratio": "match_input_image", "resolution": "0.5 MP"}, [(10, 10)], (728, 728)),
        ({"aspect_ratio": "2:3", "match_input_image": True}, [(60, 30)], (1448, 728)),
        ({"aspect_ratio": "2:3", "match_input_image": False}, [(60, 30)], (840, 1256)),
        ({"size": "portrait"}, [(60, 40)], (840, 1256)),
        ({"resolution": "1024x1536"}, [(60, 40)], (1024, 1536)),
        ({"size": "4K"}, [(40, 40)], (4096, 4096)),
        ({"scale": "6x"}, [(60, 40)], (360, 240)),
        ({"upscale_factor": "2x"}, [(60, 40)], (120, 80)),
        ({"aspect_ratio": "1:1", "resolution": "768sq"}, [(60, 40)], (768, 768)),
        ({}, [(61, 41)], (61, 41)),
    ],
)
def test_a_result_is_as_large_as_the_request_says(
    asked: dict[str, Any], pictures: list[tuple[int, int]], size: tuple[int, int]
) -> None:
    assert wanted(asked).size(pictures) == size


def test_one_model_follows_the_last_of_several_pictures() -> None:
    assert [name for name, model in PICTURE_MODELS.items() if model.last] == ["qwen-image-3"]
    assert wanted({"aspect_ratio": "auto"}, follows_last=True).size([(60, 40), (40, 60)])[0] < 1024


# What the schemas are compared with, where it is at hand.


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    folder = os.environ.get(REFERENCE)
    if not folder:
        pytest.skip(f"needs the service's model objects: set {REFERENCE} to a folder of ID.json")
    found = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(folder).glob("*.json")))
    return {one["id"]: one for one in found if one["id"] in SCHEMAS}


def _array(rule: dict[str, Any]) -> Any:
    return {**rule["items"].get("properties", {})}


def test_a_schema_says_what_the_services_own_object_says(objects: dict[str, Any]) -> None:
    assert set(objects) == DOCUMENTED
    for model in DOCUMENTED:
        _is_alike(objects, model)


def _is_alike(objects: dict[str, Any], model: str) -> None:
    theirs, ours = objects[model]["request_schema"], SCHEMAS[model]
    never = PICTURE_MODELS[model].never
    assert set(ours["properties"]) == set(theirs["properties"]) - set(never), model
    assert set(never) < set(theirs["properties"]), model
    pictures = {name for name, rule in ours["properties"].items() if rule["type"] == "array"} | {"input_image"}
    assert set(theirs["required"]) <= set(ours["required"]) <= set(theirs["required"]) | pictures
    pairs = {name: (rule, theirs["properties"][name]) for name, rule in ours["properties"].items()}
    for name, (mine, own) in list(pairs.items()):
        if mine["type"] == "array":
            inside = _array(own)
            pairs |= {f"{name}.{key}": (rule, inside[key]) for key, rule in _array(mine).items()}
            assert set(inside) == set(_array(mine))
            most = own.get("maxItems")
            assert mine.get("maxItems") == most or (most is None and str(mine["maxItems"]) in own["description"]), (
                model,
                name,
            )
    for name, (mine, own) in pairs.items():
        assert mine["type"] == own["type"], (model, name)
        if "enum" in own and mine["type"] == "integer":
            assert own["enum"] == list(range(mine["minimum"], mine["maximum"] + 1)), (model, name)
        else:
            assert sorted(mine.get("enum", ())) == sorted(own.get("enum", ())), (model, name)
        if not ("enum" in own or name == "seed"):
            assert [mine.get(end) for end in ("minimum", "maximum")] == [own.get(end) for end in ("minimum", "maximum")]
        # a text of theirs is a sample, and none of it is ours
        is_sample = name == "prompt" and own.get("default")
        assert is_sample or (mine.get("default") or None) == (own.get("default") or None), (model, name)


def test_a_mask_marks_what_the_services_own_words_say(objects: dict[str, Any]) -> None:
    masked = [name for name in SCHEMAS if PICTURE_MODELS[name].marks]
    assert len(masked) == 5
    for model in masked:
        (rule,) = [one for name, one in objects[model]["request_schema"]["properties"].items() if "mask" in name]
        said, edits = rule["description"].lower().replace("black-and-white", ""), ("edit", "remove")
        white = "white" in said and min(said.find(word) for word in edits if word in said) < said.find("black")
        assert PICTURE_MODELS[model].marks == ("white" if white else "transparent"), model
        assert white != ("transparent pixels mark" in said), model


def test_a_price_is_the_services_own(objects: dict[str, Any]) -> None:
    for model in DOCUMENTED - {MODEL}:
        theirs, ours = objects[model]["pricing"], PICTURE_MODELS[model].pricing
        assert (ours is None) == (theirs is None), model
        for name, value in (theirs or {}).items():
            assert value is None or (ours or {})[name] == value, (model, name)
