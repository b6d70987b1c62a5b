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
    declared = node_class.INPUT_TYPES()
    specs: dict[str, InputSpec] = {}
    for kind in ("required", "optional"):
        for name, (type_, options) in declared.get(kind, {}).items():
            if type_ == AUTOGROW:
                specs |= _sockets(name, options["template"])
            else:
                specs[name] = InputSpec(name, type_, options, kind == "required")
    return specs


def groups(node_class: type[io.ComfyNode]) -> list[str]:
    """The names of the node's Autogrow inputs."""
    declared = node_class.INPUT_TYPES()
    both = {**declared.get("required", {}), **declared.get("optional", {})}
    return [name for name, (type_, *_) in both.items() if type_ == AUTOGROW]


def hidden_names(node_class: type[io.ComfyNode]) -> list[str]:
    """The hidden values the node asks for: "UNIQUE_ID", "PROMPT", ..."""
    return [value for (value,) in node_class.INPUT_TYPES().get("hidden", {}).values()]


def _sockets(group: str, template: Mapping[str, Any]) -> dict[str, InputSpec]:
    names = template.get("names") or [f"{template['prefix']}{i}" for i in range(template["max"])]
    ((kind, (type_, options)),) = [(kind, pair) for kind, named in template["input"].items() for pair in named.values()]
    return {
        (full := f"{group}.{name}"): InputSpec(
            full, type_, options, kind == "required" and index < template["min"], group
        )
        for index, name in enumerate(names)
    }


def is_link(value: object) -> bool:
    """Whether an input's value in a workflow file is [node id, output index]."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )


def overrides(node_class: type[io.ComfyNode], name: str) -> bool:
    """Whether the node defines the class method `name` itself."""
    own = getattr(node_class, name).__func__
    return own is not getattr(node_class.GET_BASE_CLASS(), name).__func__
