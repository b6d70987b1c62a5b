"""A second picture model: its own schema decides what is asked of it and what it is told back, on every route."""

from __future__ import annotations

import pytest
from kontext_bridge.standin import models, parameters

from .conftest import data_uri

NAME = "an-upscaler"
SCHEMA = {
    "type": "object",
    "required": ["image_url"],
    "properties": {
        "image_url": {"type": "string", "format": "uri"},
        "upscale_factor": {"type": "integer", "minimum": 1, "maximum": 4, "default": 2},
    },
}


@pytest.fixture
def upscaler(api, monkeypatch):
    monkeypatch.setitem(parameters.SCHEMAS, NAME, SCHEMA)
    monkeypatch.setitem(models.MODELS, NAME, models._model(NAME, "An upscaler", "image", models._PER_IMAGE, SCHEMA))
    api.params = {"model": NAME, "image_url": data_uri(), "upscale_factor": 3}
    return api


def test_it_needs_no_prompt_and_is_told_by_its_own_name(upscaler):
    reply = upscaler.edit().json()
    assert reply["model"] == NAME and reply["images"][0]["url"]
    assert len(upscaler.server.billed) == 1


def test_its_own_bounds_hold(upscaler):
    reply = upscaler.edit(upscale_factor=9)
    assert reply.status_code == 400 and "upscale_factor must be between 1 and 4" in reply.text
    assert not upscaler.server.billed


def test_a_job_of_it_ends_with_a_picture(upscaler):
    generation = upscaler.submit()
    assert upscaler.ended(generation)["status"] == "succeeded"
    assert upscaler.result(generation).content[:4] == b"RIFF"


def test_the_list_of_models_has_its_schema(upscaler):
    assert upscaler.call("GET", f"/api/ai/models/{NAME}").json()["request_schema"] == SCHEMA
