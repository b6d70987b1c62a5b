"""Reads the editor's workflow format back into the API format, by the order of each node's declared inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kontext_bridge.headless.given import DYNAMIC_COMBO, input_specs
from pack import TABLE

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", DYNAMIC_COMBO}
COMMENTS = {"Note", "MarkdownNote"}
MISSING = object()


def to_api(document: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt that the editor would queue for this document, without the nodes' titles."""
    links = {link[0]: link for link in document["links"]}
    return {
        str(node["id"]): {"class_type": node["type"], "inputs": _inputs(node, links)}
        for node in document["nodes"]
        if node["type"] not in COMMENTS
    }


def _by_name(node: Mapping[str, Any], linked: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of one of ComfyUI's own nodes, whose widgets the editor has named."""
    links = {name: [str(link[1]), link[2]] for name, link in linked.items()}
    return {**(node.get("widgets_values_named") or {}), **links}


def _inputs(node: Mapping[str, Any], links: Mapping[int, list[Any]]) -> dict[str, Any]:
    linked = {one["name"]: links[one["link"]] for one in node["inputs"] if one["link"] is not None}
    if node["type"] not in TABLE:
        return _by_name(node, linked)
    values = iter(node.get("widgets_values", []))
    inputs: dict[str, Any] = {}
    chosen = {name: value for name, value in (node.get("widgets_values_named") or {}).items() if name == "model"}
    for name, spec in input_specs(TABLE[node["type"]], chosen).items():
        if spec.type in WIDGETS:
            value = next(values, MISSING)
            if value is MISSING:  # a file saved before the input was appended
                assert not spec.required, f"node {node['id']} has too few widget values for {node['type']}"
                continue
            inputs[name] = value
            if spec.options.get("control_after_generate"):
                assert next(values) == "fixed", "a template that changes its seed pays on every run"
            elif (node["type"], name) == ("LoadImage", "image"):
                assert next(values) == "image", "the upload button has a value of its own"
        for place in (one for one in linked if one == name or one.startswith(f"{name}.")):
            _, source, slot, *_ = linked[place]
            inputs[place] = [str(source), slot]
    assert list(values) == [], f"node {node['id']} has more widget values than {node['type']} has widgets"
    return inputs
