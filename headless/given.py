"""The inputs of a node as one flat list, the way a workflow file names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfy_api.latest import io

AUTOGROW = "COMFY_AUTOGROW_V3"
COMBO = "COMBO"
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
# The types whose inputs have a widget, so that a value may stand in the workflow itself.
WIDGETS = frozenset({"BOOLEAN", COMBO, DYNAMIC_COMBO, "FLOAT", "INT", "STRING"})


@dataclass(frozen=True)
class InputSpec:
    """One input: its name in the workflow file, its type, and its options as `/object_info` has them.

    path: where its value goes in the arguments of `execute`, through dicts. grows: whether it is a socket of an
    Autogrow input, whose dict is there even where nothing is connected; of a DynamicCombo's choice it is None then.
    """

    name: str
    type: str
    options: Mapping[str, Any]
    required: bool
    path: tuple[str, ...]
    grows: bool = False

    @property
    def choices(self) -> list[Any] | None:
        """What a COMBO or a DynamicCombo offers, None for every other input."""
        if self.type == DYNAMIC_COMBO:
            return [one["key"] for one in self.options["options"]]
        return list(self.options.get("options", ())) if self.type == COMBO else None


def input_specs(node_class: type[io.ComfyNode], given: Mapping[str, Any]) -> dict[str, InputSpec]:
    """The node's inputs by name, in their order. given: the workflow's values, of which a DynamicCombo's decides.

    An Autogrow input stands as its sockets, `refs.image_0`; a DynamicCombo with the inputs of its choice after it,
    `model.quality`.
    """
    return {spec.name: spec for spec in _specs(node_class.GET_NODE_INFO_V1()["input"], given, ())}


def _specs(declared: Mapping[str, Any], given: Mapping[str, Any], within: tuple[str, ...]) -> Iterator[InputSpec]:
    for kind in ("required", "optional"):
        for own_name, (type_, options) in declared.get(kind, {}).items():
            path = (*within, own_name)
            name = ".".join(path)
            if type_ == AUTOGROW:
                yield from _sockets(path, options["template"])
            elif type_ == DYNAMIC_COMBO:
                yield InputSpec(name, type_, options, kind == "required", (*path, own_name))
                chosen = given.get(name)
                for one in options["options"]:
                    if one["key"] == chosen:
                        yield from _specs(one["inputs"], given, path)
            else:
                yield InputSpec(name, type_, options, kind == "required", path)


def _sockets(group: tuple[str, ...], template: Mapping[str, Any]) -> Iterator[InputSpec]:
    for kind, inputs in template["input"].items():
        for type_, options in inputs.values():
            for index in range(template["max"]):
                path = (*group, f"{template['prefix']}{index}")
                required = kind == "required" and index < template["min"]
                yield InputSpec(".".join(path), type_, options, required, path, grows=True)


def is_link(value: object) -> bool:
    """Whether an input's value in a workflow file is [node id, output index]."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )
