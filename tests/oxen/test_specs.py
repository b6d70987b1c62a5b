"""Every model's file is whole: what it says holds together, and what it does not say is not guessed."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.editing.fields import Kind
from kontext_bridge.oxen.api import models
from kontext_bridge.oxen.api.models.field_words import WORDS
from kontext_bridge.oxen.api.models.shape import AS_PICTURE
from kontext_bridge.oxen.api.models.spec import Form, Marks, ModelSpec
from kontext_bridge.oxen.api.models.spec_files import BadSpec, read_spec
from kontext_bridge.oxen.api.prices import Priced
from kontext_bridge.oxen.api.request import EditParameters

FILES = sorted(Path(models.__file__).parent.glob("*.json"))
MODELS = models.bundled()
each = pytest.mark.parametrize("spec", MODELS.values(), ids=MODELS)


def test_kontext_comes_first_and_every_file_is_a_model_by_its_own_name() -> None:
    assert next(iter(MODELS)) == models.DEFAULT.id
    assert {path.stem for path in FILES} == set(MODELS) - {models.DEFAULT.id}
    assert len(MODELS) == 38


def given(spec: ModelSpec) -> dict[str, Any]:
    """What a request needs besides the defaults, for a picture of 3 to 2."""
    needs: dict[str, Any] = {"prompt": "a red boat"} if "prompt" in spec.named else {}
    return needs if spec.shape is None else needs | spec.shape.fit(AS_PICTURE, 1536, 1024).values


@each
def test_a_model_is_asked_with_its_defaults_and_nothing_that_must_not_be_sent(spec: ModelSpec) -> None:
    body = EditParameters(spec, **given(spec)).body() | spec.with_pictures(
        spec.read(given(spec)), ["data:,"] * spec.pictures.least, "data:,m" if spec.mask else None
    )
    assert body["model"] == spec.id and not set(body) & set(spec.never)
    assert None not in body.values() and "" not in body.values(), "left out rather than empty"
    assert set(spec.pictures.fields) < set(body)
    assert body.get("output_format", "png") == "png", "where a lossless file can be had, it is asked for"


@each
def test_what_people_read_of_a_model_is_there(spec: ModelSpec) -> None:
    assert spec.name and spec.about.endswith(".") and len(spec.about) < 120
    for field in spec.fields:
        assert len(field.tooltip.split()) > 2, field.name
        assert field.name in WORDS or field.name == "match_input_image", field.name
        assert field.kind is not Kind.CHOICE or len(field.choices) == len(set(field.choices)), field.name


@each
def test_only_a_prompt_and_a_shape_must_be_given(spec: ModelSpec) -> None:
    must = {field.name for field in spec.fields if field.default is None}
    assert must <= {"prompt", spec.shape.field if spec.shape else ""}
    for field in spec.fields:
        if field.default is not None:
            assert field.read(field.default) == field.default, field.name


@each
def test_a_models_shape_keeps_a_tall_and_a_wide_picture(spec: ModelSpec) -> None:
    shape = spec.shape
    if shape is None:
        assert "aspect_ratio" not in spec.named
        return
    tall, wide = (shape.fit(AS_PICTURE, *size).values for size in ((900, 1600), (1600, 900)))
    follows = shape.keeps is not None or shape.switch is not None
    assert follows or (shape.ratios[tall[shape.field]] < 1 < shape.ratios[wide[shape.field]])
    assert shape.fit("4:3", 900, 1600).values[shape.field] == "4:3"


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("flux-kontext-dev", {"aspect_ratio": "match_input_image"}),
        ("gpt-image-2", {"aspect_ratio": "auto"}),
        ("qwen-image-2", {"aspect_ratio": "2:3", "match_input_image": True}),
        ("qwen-image-edit", {"aspect_ratio": "2:3"}),
        ("krea-v2-large-text-to-image", {"aspect_ratio": "2:3"}),
        ("gpt-image-1-5", {"size": "portrait"}),
        ("gpt-image-2-edit", {"resolution": "1024x1536"}),
    ],
)
def test_as_my_picture_is_said_in_each_models_own_way(model: str, values: dict[str, Any]) -> None:
    shape = MODELS[model].shape
    assert shape is not None and shape.fit(AS_PICTURE, 1000, 1500).values == values


def test_a_model_that_follows_its_last_picture_is_told_the_first_ones_shape() -> None:
    shape = MODELS["qwen-image-3"].shape
    assert shape is not None and shape.fit(AS_PICTURE, 1600, 900).values == {"aspect_ratio": "auto"}
    assert shape.fit(AS_PICTURE, 1600, 900, pictures=2).values == {"aspect_ratio": "16:9"}


def test_masks_say_which_pixels_they_mark() -> None:
    marks = {spec.id: spec.mask.marks for spec in MODELS.values() if spec.mask is not None}
    assert marks == {
        "flux-erase": Marks.WHITE,
        "gpt-image-2": Marks.WHITE,
        "gpt-image-2-edit": Marks.WHITE,
        "gpt-image-2-5-flare": Marks.TRANSPARENT,
        "gpt-image-2-5-sunburst": Marks.TRANSPARENT,
    }


def test_pictures_stand_in_the_request_as_each_model_wants_them() -> None:
    def of(model: str, *addresses: str) -> Any:
        spec = MODELS[model]
        return spec.with_pictures(spec.read(given(spec)), addresses, None)

    assert of("flux-kontext-dev", "a") == {"input_image": "a"}
    assert of("gpt-image-2", "a") == {"input_image": ["a"]}
    assert of("qwen-image-3", "a", "b") == {"input_images": ["a", "b"]}
    assert of("flux-virtual-try-on", "a", "b") == {"input_image": "a", "input_image_2": "b"}
    styled = {"image_style_references": [{"image_url": "a", "strength": 1.0}, {"image_url": "b", "strength": 1.0}]}
    assert of("krea-v2-large-text-to-image", "a", "b") == styled
    assert "strength" not in MODELS["krea-v2-large-text-to-image"].body(
        MODELS["krea-v2-large-text-to-image"].read(given(MODELS["krea-v2-large-text-to-image"]))
    )


def price(model: str, **values: Any) -> Decimal | None:
    spec = MODELS[model]
    return spec.price.of(EditParameters(spec, **given(spec) | values).priced)


def test_prices_are_told_by_quality_and_size_and_not_where_they_are_unknown() -> None:
    assert price("flux-2-flex") == Decimal("0.12")
    assert price("gpt-image-2", quality="low", resolution="4K") == Decimal("0.035")
    assert price("nano-banana-2", resolution="512") == Decimal("0.0585"), "one row, whatever it is called"
    assert price("topazlabs-bloom-2-image") is None and MODELS["topazlabs-bloom-2-image"].price.per_credit is not None
    assert price("flux-kontext-dev") is None


@each
def test_a_price_grid_has_a_cell_for_every_choice(spec: ModelSpec) -> None:
    if spec.price.grid is None:
        return
    qualities = spec.named["quality"].choices if "quality" in spec.named else ("",)
    for quality in qualities:
        for size in spec.named["resolution"].choices:
            assert spec.price.of(Priced(spec.id, quality, size)) is not None


GOOD: dict[str, Any] = {
    "id": "new",
    "name": "New",
    "about": "A new one.",
    "pictures": {"field": "input_image", "form": "list"},
    "fields": {"prompt": {}, "size": {"choices": ["1K"], "default": "1K"}},
}


def test_a_new_model_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    spec = read_spec(path)
    assert (spec.id, spec.pictures.form, spec.pictures.most) == ("new", Form.LIST, 10)
    assert spec.body(spec.read({"prompt": "x"})) == {"model": "new", "prompt": "x", "size": "1K"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"masks": {}}, "masks, which is not known"),
        ({"fields": {"size": {}}}, "size is of 0 kinds"),
        ({"fields": {"size": {"choices": ["1K"], "default": "2K"}}}, "it takes one of 1K"),
        ({"fields": {"size": {"choices": ["1K"], "wire": "input_image"}}}, "input_image: named twice"),
        ({"never": ["size"]}, "must not be sent"),
        ({"mask": {"field": "mask_url", "marks": "black"}}, "black"),
        ({"pictures": {"form": "list"}}, "it lacks 'field'"),
        ({"shape": {"field": "size"}}, "its field has no ratio"),
        ({"name": None}, "stands where a text belongs"),
    ],
)
def test_a_file_that_is_no_models_is_told_by_name(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(GOOD | change), encoding="utf-8")
    with pytest.raises(BadSpec, match=rf"bad\.json is no file of a model: .*{words}"):
        read_spec(path)


def test_the_body_of_a_kontext_edit_is_what_it_was() -> None:
    assert EditParameters(prompt="x", seed=2**31 + 5).body() == {
        "model": "flux-kontext-dev",
        "prompt": "x",
        "aspect_ratio": "match_input_image",
        "num_inference_steps": 28,
        "guidance": 2.5,
        "seed": 5,
        "output_format": "png",
        "output_quality": 95,
        "disable_safety_checker": False,
    }
