"""The blueprints as files: what ComfyUI's front end inserts fits the nodes as they are declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from editor import WIDGETS
from pack import INFO, REPOSITORY, inputs_of, outputs_of, read

BLUEPRINTS = sorted((REPOSITORY / "subgraphs").glob("*.json"))
INSIDE, OUTSIDE = -10, -20  # the ends of a subgraph


@pytest.fixture(params=BLUEPRINTS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def inner(path: Path) -> Any:
    (subgraph,) = read(path)["definitions"]["subgraphs"]
    return subgraph


def test_the_two_blueprints_are_there() -> None:
    assert [path.stem for path in BLUEPRINTS] == ["Image Edit (Kontext)", "Inpaint (Kontext)"]


def test_a_blueprint_whose_node_is_not_its_subgraphs_is_noticed(path: Path, inner: Any) -> None:
    (node,) = read(path)["nodes"]
    assert node["type"] == inner["id"] and node["title"] == inner["name"] == path.stem
    for side in ("inputs", "outputs"):
        assert [(one["name"], one["type"]) for one in node[side]] == [(one["name"], one["type"]) for one in inner[side]]
    assert len(node["widgets_values"]) == sum("widget" in one for one in node["inputs"])


def test_a_node_in_it_that_is_not_as_it_is_declared_is_noticed(inner: Any) -> None:
    for node in inner["nodes"]:
        assert {one["name"] for one in node["inputs"]} == set(inputs_of(node["type"]))
        assert [one["name"] for one in node["outputs"]] == [name for name, _ in outputs_of(node["type"])]
        standard = []
        for kind in ("required", "optional"):
            for spec in INFO[node["type"]]["input"].get(kind, {}).values():
                if isinstance(spec[0], list) or spec[0] in WIDGETS:
                    standard.append(spec[1].get("default", ""))
                    standard += ["fixed"] if spec[1].get("control_after_generate") else []
        changed = [(old, new) for old, new in zip(standard, node["widgets_values"], strict=True) if old != new]
        assert changed in ([], [("off", "auto")]), "only keep is set"


def test_a_link_in_it_whose_ends_do_not_know_of_it_is_noticed(inner: Any) -> None:
    nodes = {node["id"]: node for node in inner["nodes"]}
    for link in inner["links"]:
        if link["origin_id"] == INSIDE:
            origin = inner["inputs"][link["origin_slot"]]
            assert link["id"] in origin["linkIds"]
        else:
            origin = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert link["id"] in origin["links"]
        if link["target_id"] == OUTSIDE:
            target = inner["outputs"][link["target_slot"]]
            assert link["id"] in target["linkIds"]
        else:
            target = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert link["id"] == target["link"]
        assert origin["type"] == target["type"] == link["type"]
    ends = [one["link"] for node in nodes.values() for one in node["inputs"]]
    assert {end for end in ends if end is not None} <= {link["id"] for link in inner["links"]}
