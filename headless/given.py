"""The inputs of a node as one flat list, the way a workflow file names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfy_api.latest import io

AUTOGROW = "COMFY_AUTOGROW_V3"
COMBO = "COMBO"
# The types whose inputs have a widget, so that a value may stand in the workflow itself.
WIDGETS = frozenset({"BOOLEAN", COMBO, "FLOAT", "INT", "STRING"})


@dataclass(frozen=True)
class InputSpec:
    """One input: its name in the workflow file, its type, and its options as `/object_info` has them.

    `group` is the name of the dict argument that collects it, for the sockets of an Autogrow input.
    """

    name: str
    type: str
    options: Mapping[str, Any]
    required: bool
    group: str | None = None

    @property
    def choices(self) -> list[Any] | None:
        """What a COMBO offers, None for every other input."""
        return list(self.options.get("options", ())) if self.type == COMBO else None


def input_specs(node_class: type[io.ComfyNode]) -> dict[str, InputSpec]:
    """The node's inputs by name, in their order; an Autogrow input stands as its sockets, `refs.image_0`."""
    declared = node_class.GET_NODE_INFO_V1()["input"]
    specs: dict[str, InputSpec] = {}
    for kind in ("required", "optional"):
        for name, (type_, options) in declared.get(kind, {}).items():
            if type_ == AUTOGROW:
                specs |= _sockets(name, options["template"])
            else:
                specs[name] = InputSpec(name, type_, options, kind == "required")
    return specs


def _sockets(group: str, template: Mapping[str, Any]) -> dict[str, InputSpec]:
    specs = {}
    for kind, inputs in template["input"].items():
        for type_, options in inputs.values():
            for index in range(template["max"]):
                name = f"{group}.{template['prefix']}{index}"
                required = kind == "required" and index < template["min"]
                specs[name] = InputSpec(name, type_, options, required, group)
    return specs


def is_link(value: object) -> bool:
    """Whether an input's value in a workflow file is [node id, output index]."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )
