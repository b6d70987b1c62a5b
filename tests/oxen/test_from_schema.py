"""A model that came later is brought in from what the service says of it, and nothing is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.models import main
from kontext_bridge.oxen.api import models
from kontext_bridge.oxen.api.models.from_schema import disagreements, file_of
from kontext_bridge.oxen.api.models.spec import Form, Marks
from kontext_bridge.oxen.api.models.spec_files import BadSpec, spec_of
from kontext_bridge.oxen.api.replies import read_model
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
    assert "after the next start of ComfyUI" in told and "none is sent" in told
    assert list(models.added(tmp_path)) == ["a-later-model"]
    assert main(["update", "no-such-model", "--folder", str(tmp_path)]) == 1
    assert "Oxen.ai has no model named" in capsys.readouterr().err


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
