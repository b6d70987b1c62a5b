from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kontext_bridge.editing.words import AspectRatio
from kontext_bridge.oxen.api.models import FLUX_KONTEXT_DEV
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.errors import InvalidParameters
from kontext_bridge.oxen.jobs.record import request_key

BASE = "https://hub.oxen.ai"


def test_the_least_request_still_sends_aspect_ratio_and_output_format() -> None:
    body = EditParameters(prompt="x", seed=0).body()
    assert body["aspect_ratio"] == "match_input_image"
    assert body["output_format"] == "png"


def test_a_body_has_only_fields_that_the_service_documents() -> None:
    body = EditParameters(prompt="x", seed=0, namespace="me").body()
    assert set(body) == {
        *("model", "prompt", "aspect_ratio", "num_inference_steps", "guidance", "seed"),
        *("output_format", "output_quality", "disable_safety_checker", "target_namespace"),
    }


@pytest.mark.parametrize("namespace", [None, "", "  "])
def test_no_namespace_is_not_sent_at_all(namespace: str | None) -> None:
    assert "target_namespace" not in EditParameters(prompt="x", seed=0, namespace=namespace).body()


def test_values_of_the_widgets_and_members_go_out_as_the_service_spells_them() -> None:
    parameters = EditParameters(prompt="x", seed=0, aspect_ratio=AspectRatio.TALL_9_21, output_format="jpg")
    assert (parameters["aspect_ratio"], parameters["output_format"]) == ("9:21", "jpg")
    assert (parameters.body()["aspect_ratio"], parameters.body()["output_format"]) == ("9:21", "jpg")


@pytest.mark.parametrize(
    ("seed", "sent"),
    [(0, 0), (2**31 - 1, 2**31 - 1), (2**31, 0), (2**31 + 5, 5), (2**32 + 6, 6), (2**64 - 1, 2**31 - 1)],
)
def test_a_seed_is_reduced_to_what_the_service_takes(seed: int, sent: int) -> None:
    parameters = EditParameters(prompt="x", seed=seed)
    assert parameters.seed_sent == sent == parameters.body()["seed"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", ""),
        ("prompt", " \n\t"),
        ("prompt", "half a character \ud83d"),
        ("prompt", "a NUL\0"),
        ("prompt", "\x07 a bell"),
        ("prompt", "a hat \x1b[31m"),
        ("prompt", "rub \x7f out"),
        ("prompt", "the ox\x92s hat"),
        ("prompt", "very " * 1_000_000),
        ("prompt", None),
        ("prompt", ["a hat"]),
        ("prompt", 7),
        ("prompt", b"a hat"),
        ("namespace", "me\0"),
        ("namespace", "me\ud83d"),
        ("namespace", "me" * 1000),
        ("namespace", ["me"]),
        ("steps", "28"),
        ("steps", [28]),
        ("steps", 28.5),
        ("steps", None),
        ("guidance", "2.5"),
        ("guidance", [2.5]),
        ("seed", "1"),
        ("seed", 1.5),
        ("seed", math.inf),
        ("seed", [1]),
        ("output_quality", [95]),
        ("disable_safety_checker", "false"),
        ("disable_safety_checker", []),
        ("seed", -1),
        ("aspect_ratio", "16:10"),
        ("aspect_ratio", ""),
        ("output_format", "jpeg"),
        ("steps", 3),
        ("steps", 51),
        ("guidance", -0.1),
        ("guidance", 10.01),
        ("guidance", math.nan),
        ("guidance", math.inf),
        ("output_quality", -1),
        ("output_quality", 101),
    ],
)
def test_what_cannot_be_sent_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidParameters, match=rf"\b{field}\b.*Nothing was sent"):
        EditParameters(**{"prompt": "x", "seed": 0, field: value})


def test_a_prompt_of_every_script_and_of_many_lines_is_sent_as_it_is() -> None:
    prompt = "Zeile\r\n\tπ → 牛 🐂 \u200d \ufeff"
    assert EditParameters(prompt=prompt, seed=0).body()["prompt"] == prompt


def test_a_control_character_is_named_with_its_place() -> None:
    with pytest.raises(InvalidParameters, match=r"control character U\+0000 at place 6"):
        EditParameters(prompt="a hat\0", seed=0)


def test_a_refusal_is_short_however_long_what_it_refuses() -> None:
    for prompt in ("x" * 3_000_000, ["x" * 3_000_000], "\0" * 3_000_000):
        with pytest.raises(InvalidParameters) as raised:
            EditParameters(prompt=prompt, seed=0)  # type: ignore[arg-type]
        assert len(str(raised.value)) < 300


def test_numbers_that_are_whole_are_sent_as_whole_whatever_their_type() -> None:
    body = EditParameters(
        prompt="x", seed=5.0, steps=np.int64(20), output_quality=90.0, guidance=np.float32(2.5)
    ).body()
    assert json.dumps([body[name] for name in ("seed", "num_inference_steps", "output_quality", "guidance")]) == (
        "[5, 20, 90, 2.5]"
    )


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 4), ("steps", 50), ("guidance", 0), ("guidance", 10.0), ("output_quality", 0)]
)
def test_the_ends_of_a_range_belong_to_it(field: str, value: Any) -> None:
    assert EditParameters(**{"prompt": "x", "seed": 0, field: value})[field] == value


def key(pixels: str = "p", base: str = BASE, **fields: Any) -> str:
    return request_key(base, EditParameters(**{"prompt": "x", "seed": 1, **fields}), pixels)


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "y"},
        {"seed": 2},
        {"aspect_ratio": "1:1"},
        {"steps": 27},
        {"guidance": 2.6},
        {"output_format": "webp"},
        {"disable_safety_checker": True},
        {"namespace": "team"},
        {"model": replace(FLUX_KONTEXT_DEV, id="another")},
        {"pixels": "q"},
        {"base": "http://127.0.0.1:80"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_request_that_would_give_another_picture_has_another_key(other: dict[str, Any]) -> None:
    assert key(**other) != key()


def test_a_request_that_would_give_the_same_picture_has_the_same_key() -> None:
    assert key(seed=1 + 2**31) == key()
    assert key(output_quality=10) == key(), "quality has no effect on png"
    assert key(output_format="webp", output_quality=10) != key(output_format="webp")


def test_a_number_without_a_fraction_is_one_request_however_it_is_written() -> None:
    """A list of rows in JSON has 3 where a widget gives 3.0."""
    assert key(guidance=3) == key(guidance=3.0) == key(guidance=np.int64(3))
    assert key(guidance=0) == key(guidance=0.0) == key(guidance=-0.0)
