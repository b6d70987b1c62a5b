"""A model that came later is brought in from what the service says of it, and nothing is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.models import _file_name, main
from kontext_bridge.oxen.api import models
from kontext_bridge.oxen.api.models.from_schema import disagreements, file_of
from kontext_bridge.oxen.api.models.spec import Form, Marks
from kontext_bridge.oxen.api.models.spec_files import BadSpec, spec_of
from kontext_bridge.oxen.api.replies import read_model
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.standin import models as listed

LATER = {
    "id": "a-later-model",
    "display_name": "A Later Model",
    "pricing": {"method": "per_image", "cost_per_image": 0.07},
    "request_schema": {
        "required": ["prompt"],
        "properties": {
            "num_images": {"type": "integer", "default": 1, "minimum": 1, "maximum": 4, "x-order": 9},
            "prompt": {"type": "string", "x-order": 0},
            "input_images": {"type": "array", "items": {"type": "string"}, "maxItems": 4, "x-order": 1},
            "mask_url": {"type": "string", "description": "White pixels mark regions to edit.", "x-order": 2},
            "aspect_ratio": {"type": "string", "enum": ["auto", "1:1", "16:9"], "default": "16:9", "x-order": 3},
            "guidance_scale": {"type": "number", "minimum": 1, "maximum": 9, "default": 4, "x-order": 4},
            "output_format": {"type": "string", "enum": ["webp", "png"], "default": "webp", "x-order": 5},
            "image_size": {"type": "object", "x-order": 6},
            "mystery": {"type": "integer", "x-order": 7},
            "turbo": {"type": "boolean", "default": True, "description": "Faster.", "x-order": 8},
        },
    },
}


def test_what_the_schema_says_for_certain_is_taken_over_and_the_rest_is_never_sent() -> None:
    spec = spec_of(json.loads(json.dumps(file_of(read_model(LATER)))))
    assert [field.name for field in spec.fields] == ["prompt", "aspect_ratio", "guidance", "output_format", "turbo"]
    assert spec.never == ("image_size", "mystery", "num_images")
    assert (spec.pictures.form, spec.pictures.fields, spec.pictures.most) == (Form.LIST, ("input_images",), 4)
    assert spec.mask is not None and spec.mask.marks is Marks.UNKNOWN
    assert spec.shape is not None and spec.shape.keeps is None, "what auto does is not known"
    assert spec.named["output_format"].default == "png" and spec.named["turbo"].tooltip == "Faster."
    assert str(spec.price.flat) == "0.07"


@pytest.mark.parametrize("schema", [None, {}, {"properties": {"prompt": {"type": "string"}}}])
def test_a_model_that_takes_no_picture_is_not_brought_in(schema: Any) -> None:
    with pytest.raises(BadSpec, match="a-later-model"):
        file_of(read_model(LATER | {"request_schema": schema}))


def test_the_command_writes_a_file_that_is_read_at_the_next_start(
    remote: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(listed.MODELS, "a-later-model", LATER)
    monkeypatch.setenv("OXEN_BASE_URL", remote.server.url)
    assert main(["update", "a-later-model", "--folder", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "after the next start of ComfyUI" in told and "none is sent" in told and "--folder" not in told
    assert list(models.added(tmp_path)) == ["a-later-model"]
    assert main(["update", "no-such-model", "--folder", str(tmp_path)]) == 1
    assert "Oxen.ai has no model named" in capsys.readouterr().err


def test_a_model_that_is_brought_where_comfyui_does_not_look_is_told_with_the_way_there(
    remote: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(listed.MODELS, "a-later-model", LATER)
    monkeypatch.setenv("OXEN_BASE_URL", remote.server.url)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("KONTEXT_BRIDGE_HOME", raising=False)
    assert main(["update", "a-later-model"]) == 0
    assert "for ComfyUI name its user/__kontext_bridge with --folder" in capsys.readouterr().out
    assert list(models.added(tmp_path / "kontext-bridge")) == ["a-later-model"]
    monkeypatch.setenv("KONTEXT_BRIDGE_HOME", str(tmp_path))
    assert main(["update", "a-later-model"]) == 0
    assert "--folder" not in capsys.readouterr().out


def test_a_file_of_the_users_that_is_broken_hides_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / models.FOLDER
    folder.mkdir()
    (folder / "a.json").write_text("{", encoding="utf-8")
    (folder / "b.json").write_text(json.dumps(file_of(read_model(LATER))), encoding="utf-8")
    assert list(models.added(tmp_path)) == ["a-later-model"]
    assert "a.json is no file of a model" in caplog.text
    assert models.added(tmp_path / "nowhere") == {}


def test_where_the_service_and_a_file_here_disagree_is_told() -> None:
    spec = models.bundled()["nano-banana"]
    properties = {
        "prompt": {"type": "string"},
        "input_image": {"type": "array"},
        "aspect_ratio": {"type": "string", "enum": ["1:1", "5:4"]},
        "seed": {"type": "integer"},
    }
    found = disagreements(spec, read_model({"id": "nano-banana", "request_schema": {"properties": properties}}))
    assert found == ["Oxen.ai has seed, which this version does not know.", "aspect_ratio takes 1:1, 5:4 at Oxen.ai."]
    del properties["input_image"]
    assert "Oxen.ai no longer has input_image." in disagreements(
        spec, read_model({"id": "nano-banana", "request_schema": {"properties": properties}})
    )


def later(**properties: Any) -> Any:
    """The later model with other rules for some of its fields, `needs` what it requires."""
    needs = properties.pop("needs", ["prompt"])
    whole = {**LATER["request_schema"]["properties"], **properties}
    return read_model(LATER | {"request_schema": {"required": needs, "properties": whole}})


def test_a_value_that_may_also_be_null_is_the_value() -> None:
    spec = spec_of(
        file_of(
            later(
                input_images={"type": ["array", "null"], "items": {"type": "string"}, "x-order": 1},
                guidance_scale={"type": ["number", "null"], "minimum": 1, "maximum": 9, "default": 4},
                turbo={"anyOf": [{"type": "boolean"}, {"type": "null"}], "default": True},
                seed={"type": ["integer", "null"]},
                prompt={"type": ["string", "null"], "maxLength": 900},
            )
        )
    )
    assert spec.pictures.form is Form.LIST and {"guidance", "turbo", "seed"} < set(spec.named)
    assert spec.named["prompt"].bounds == (1, 900)


def test_a_field_that_is_called_like_an_input_of_the_node_has_a_name_of_its_own() -> None:
    names = ("self", "namespace", "timeout", "keep", "references", "mask", "variations", "image", "a.b", "")
    spec = spec_of(file_of(later(**{name: {"type": "boolean", "default": False} for name in names})))
    assert {"own_self", "own_mask", "own_references", "own_keep", "a_b", "own_"} < set(spec.named)
    assert set(names) < {field.wire for field in spec.fields}
    body = EditParameters(spec, prompt="x", aspect_ratio="1:1", own_mask=True).body()
    assert body["mask"] is True and body["keep"] is False


def test_what_every_request_says_by_itself_is_no_field() -> None:
    model = later(model={"type": "string", "default": "x"}, target_namespace={"type": "string"})
    spec = spec_of(file_of(model))
    assert not {"model", "target_namespace"} & {field.wire for field in spec.fields}
    assert not [told for told in disagreements(spec, model) if "model" in told or "target" in told]


REFUSED: dict[str, dict[str, Any]] = {
    "a picture in no known form": {"input_images": {"$ref": "#/properties/input_images"}},
    "a picture that is a number": {"input_images": {"type": "integer"}},
    "a prompt that is a list": {"prompt": {"type": "array"}},
    "a prompt that is a choice": {"prompt": {"type": "string", "enum": ["a", "b"]}},
    "a needed object": {"image_size": {"type": "object"}, "needs": ["prompt", "image_size"]},
    "needed pictures to be paid for": {"needs": ["prompt", "num_images"]},
    "an endless bound": {"guidance_scale": {"type": "integer", "maximum": float("inf"), "default": 4}},
    "a bound of many digits": {"guidance_scale": {"type": "number", "maximum": 10**400, "default": 4}},
    "a bound that is a text": {"guidance_scale": {"type": "number", "minimum": "low", "default": 4}},
    "no bound at all": {"guidance_scale": {"type": "number", "minimum": float("nan"), "default": 4}},
    "a choice that is empty": {"output_format": {"type": "string", "enum": ["", "png"]}},
    "half of a character": {"turbo": {"type": "boolean", "default": True, "description": "\ud800"}},
    "very many choices": {"output_format": {"type": "string", "enum": [f"choice {n}" for n in range(9000)]}},
    "very many fields": {f"field{n}": {"type": "string"} for n in range(1500)},
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_cannot_be_used_is_told_in_one_sentence(name: str) -> None:
    with pytest.raises(BadSpec, match=r"a-later-model|input_images") as told:
        file_of(later(**REFUSED[name]))
    assert len(str(told.value)) < 600


@pytest.mark.parametrize(
    "rule",
    [
        {"type": "integer", "enum": [1, 2]},
        {"type": {"a": 1}},
        {"type": [["integer"]], "default": 1},
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        {"anyOf": "x", "oneOf": 5},
        {"type": "seed", "x-order": float("nan"), "description": 7},
        {"type": "string", "enum": [], "default": {}},
        {"type": "boolean", "default": "false"},
    ],
)
def test_a_field_of_which_too_little_is_said_is_never_sent(rule: dict[str, Any]) -> None:
    spec = spec_of(file_of(later(seed=rule, odd=rule)))
    assert {"odd", "seed"} <= set(spec.never)


def file_with(**more: Any) -> str:
    whole = {"id": "x", "name": "x", "about": "x", "pictures": {"field": "input_image", "form": "one"}, "fields": {}}
    return json.dumps({**whole, **more})


BROKEN = [
    "[" * 100_000,
    "[]",
    "7",
    "\ufeff\x00",
    file_with(price={"flat": "much"}),
    file_with(fields={"steps": {"whole": [1], "default": 1}}),
    file_with(fields={"steps": {"whole": [1, 0.5], "default": 1}}).replace("0.5", "1e999"),
    file_with(fields={"keep": {"switch": True}}),
    file_with(route="../../user"),
]


def test_whatever_is_wrong_with_a_file_of_the_users_comfyui_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / models.FOLDER).mkdir()
    for number, text in enumerate(BROKEN):
        (tmp_path / models.FOLDER / f"{number}.json").write_text(text, encoding="utf-8")
    (tmp_path / models.FOLDER / "folder.json").mkdir()
    assert models.added(tmp_path) == {} and len(caplog.messages) == len(BROKEN) + 1


def test_a_models_file_has_a_name_that_every_system_takes_and_no_other_model_has() -> None:
    assert _file_name("a-later-model_2.1") == "a-later-model_2.1.json"
    odd = ["a/b", "a:b", "..\\..\\x", "a\0b", "\ud800", "a" * 4000, "é", "", "a?b"]
    names = {_file_name(one) for one in odd}
    assert len(names) == len(odd) and all(len(name) < 120 and name.isascii() for name in names)
    assert not any(set(name) & set("/\\:?*\0") for name in names)
