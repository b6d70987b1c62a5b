"""A model is data: what takes no prompt and no seed is asked for, kept and known again as well."""

from __future__ import annotations

from pathlib import Path

import pytest
from kontext_bridge.editing.fields import Field, Kind
from kontext_bridge.oxen.api.models import FLUX_KONTEXT_DEV, ModelSpec
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.errors import InvalidParameters
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.oxen.jobs.record import request_key
from kontext_bridge.standin import parameters as documented

UPSCALER = ModelSpec("an-upscaler", (Field("scale", "upscale_factor", Kind.WHOLE, "How much larger.", 2, (1, 4)),))


def test_a_model_without_prompt_and_seed_is_written_down_and_read_again(tmp_path: Path) -> None:
    parameters = EditParameters(UPSCALER, scale=3)
    assert parameters.body() == {"model": "an-upscaler", "upscale_factor": 3}
    ledger = Ledger(tmp_path)
    record = ledger.open(request_key("https://hub.oxen.ai", parameters, "p"), parameters, "data:,", None)
    ledger.close()
    ledger = Ledger(tmp_path)
    read = ledger.by_id(record.id)
    assert read is not None
    assert (read.prompt, read.seed, read.parameters) == (None, None, {"model": "an-upscaler", "upscale_factor": 3})
    ledger.leaving(read)
    assert [one.id for one in ledger.unnamed(None)] == [record.id]
    ledger.close()


def test_a_field_that_a_model_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(InvalidParameters, match=r"an-upscaler has no steps; it has scale\. Nothing was sent"):
        EditParameters(UPSCALER, steps=20)
    with pytest.raises(InvalidParameters, match=r"flux-kontext-dev needs a prompt\. Nothing was sent"):
        EditParameters(seed=1)


def test_the_key_of_a_request_is_the_one_that_ledgers_of_the_first_version_hold() -> None:
    parameters = EditParameters(
        prompt="make the boat red", seed=7, guidance=3.5, output_format="webp", namespace="team"
    )
    key = request_key("https://hub.oxen.ai", parameters, "pixels")
    assert key == "b7f46301e0250f0e42a0b491cded0dec098956d39e5b904988624fca5069d0df"
    key = request_key("https://hub.oxen.ai", EditParameters(prompt="x", seed=2**31), "p")
    assert key == "b2fe1a276f90d3ac29e7cc57033634d5a22a3420b80ac9c11650b8af288e6ab0"


def test_the_stand_ins_own_copy_of_the_services_facts_says_the_same() -> None:
    assert FLUX_KONTEXT_DEV.id == documented.MODEL
    properties = {name: rule for name, rule in documented.SCHEMA["properties"].items() if name != "input_image"}
    kinds = {"integer": Kind.WHOLE, "number": Kind.NUMBER, "boolean": Kind.SWITCH}
    assert {field.wire for field in FLUX_KONTEXT_DEV.fields} == set(properties)
    for field in FLUX_KONTEXT_DEV.fields:
        rule = properties[field.wire]
        assert field.kind is (Kind.CHOICE if "enum" in rule else kinds.get(rule["type"], Kind.TEXT)), field.name
        assert sorted(field.choices) == sorted(rule.get("enum", ())), field.name
        if "minimum" in rule:
            assert field.bounds == (rule["minimum"], rule["maximum"]), field.name
