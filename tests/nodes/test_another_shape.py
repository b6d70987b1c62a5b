"""A picture that came back in another shape than the one sent is told, with what brings it back: a stretch of a few
hundredths is easily overlooked, and spoils a face.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

KEEP = "keep: auto lays what changed onto your picture, unpaid."


def told(bench: Any, height: int, width: int, node: str = "KontextEdit", count: int = 1, **inputs: Any) -> list[str]:
    """What info notes of the shape, and what the node says."""
    image = torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(1))
    result = bench.result(node, image=image, prompt="make it red", **inputs).nodes["node"]
    note = json.loads(result.outputs[1][0]).get("note", "")
    said = result.ui.get("text", ("",))[0]
    return [text for text in (note, said) if "another shape" in text]


# The service makes 1104x944 of 5:4, and 1568x672 of what is longer; here in a small measure.
@pytest.mark.parametrize(("height", "width", "count", "more"), [(128, 160, 1, ""), (40, 200, 3, ", and 2 more")])
def test_another_shape_is_told_with_what_brings_the_picture_back(
    bench: Any, height: int, width: int, count: int, more: str
) -> None:
    note, said = told(bench, height, width, count=count)
    assert note == said and f"{width}x{height} was sent, and " in said
    assert f"came back, another shape{more}: it may be stretched or cropped. {KEEP}" in said
    assert "Kontext Prepare and Kontext Restore" in said


def test_a_picture_that_came_back_in_its_shape_or_was_asked_for_in_another_needs_no_word(bench: Any) -> None:
    assert told(bench, 128, 128) == []
    assert told(bench, 128, 160, aspect_ratio="16:9") == []
    assert told(bench, 128, 160, "OxenEdit", model="nano-banana", **{"model.aspect_ratio": "16:9"}) == []


def test_keep_that_hands_an_edit_on_in_another_shape_leaves_the_other_way(bench: Any) -> None:
    note, said = told(bench, 128, 160, keep="auto")
    assert note in said and KEEP not in said and "Kontext Prepare and Kontext Restore" in said


def test_a_model_that_has_only_some_ratios_is_told_of_as_well(bench: Any) -> None:
    note, said = told(bench, 128, 150, "OxenEdit", model="nano-banana")
    assert note == said
