"""What a node says about itself, and how `/object_info` words it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from typing import Any

from ._base import Input, Output


class Hidden(str, Enum):
    """Values a node may ask the host for, beside its inputs."""

    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"
    dynprompt = "DYNPROMPT"


@dataclass
class HiddenHolder:
    """The hidden values a run gave to a node; what was not asked for is None."""

    unique_id: str | None = None
    prompt: Any = None
    extra_pnginfo: Any = None
    dynprompt: Any = None


@dataclass
class NodeInfoV1:
    """One entry of `/object_info`."""

    input: dict[str, Any]
    input_order: dict[str, list[str]]
    is_input_list: bool
    output: list[str]
    output_is_list: list[bool]
    output_name: list[str]
    output_tooltips: list[str | None]
    output_matchtypes: list[str | None] | None
    name: str
    display_name: str | None
    description: str
    python_module: Any
    category: str
    output_node: bool
    deprecated: bool
    experimental: bool
    dev_only: bool
    api_node: bool
    price_badge: dict[str, Any] | None
    search_aliases: list[str] | None
    essentials_category: str | None
    has_intermediate_output: bool


@dataclass
class Schema:
    """The definition of a node."""

    node_id: str
    _: KW_ONLY
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    description: str = ""
    search_aliases: list[str] = field(default_factory=list)
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_dev_only: bool = False
    not_idempotent: bool = False
    essentials_category: str | None = None
    has_intermediate_output: bool = False

    def validate(self) -> None:
        """Refuses a node whose inputs or outputs share an id. Raises ValueError."""
        issues = [
            f"{side} ids must be unique, but {repeated} are not."
            for side, ids in (
                ("Input", [one.id for one in self.inputs]),
                ("Output", [one.id for one in self.outputs]),
            )
            if (repeated := [id for id, count in Counter(ids).items() if count > 1])
        ]
        if issues:
            raise ValueError("\n".join(issues))
        for one in self.inputs:
            one.validate()
        for out in self.outputs:
            out.validate()

    def finalize(self) -> None:
        """Adds what the host adds: an output node's hidden values, and names for nameless outputs."""
        if self.is_output_node:
            for value in (Hidden.prompt, Hidden.extra_pnginfo):
                if value not in self.hidden:
                    self.hidden.append(value)
        for index, output in enumerate(self.outputs):
            if output.id is None:
                output.id = f"_{index}_{output.io_type}_"

    def get_v1_info(self, node: type) -> NodeInfoV1:
        """The node's entry in `/object_info`."""
        inputs = input_dict(self.inputs)
        if self.hidden:
            inputs["hidden"] = {value.name: (value.value,) for value in self.hidden}
        return NodeInfoV1(
            input=inputs,
            input_order={kind: list(named) for kind, named in inputs.items()},
            is_input_list=self.is_input_list,
            output=[one.io_type for one in self.outputs],
            output_is_list=[one.is_output_list for one in self.outputs],
            output_name=[one.display_name or one.io_type for one in self.outputs],
            output_tooltips=[one.tooltip or None for one in self.outputs],
            output_matchtypes=None,
            name=self.node_id,
            display_name=self.display_name,
            description=self.description,
            python_module=getattr(node, "RELATIVE_PYTHON_MODULE", "nodes"),
            category=self.category,
            output_node=self.is_output_node,
            deprecated=self.is_deprecated,
            experimental=self.is_experimental,
            dev_only=self.is_dev_only,
            api_node=False,
            price_badge=None,
            search_aliases=self.search_aliases or None,
            essentials_category=self.essentials_category,
            has_intermediate_output=self.has_intermediate_output,
        )


def input_dict(inputs: Iterable[Input]) -> dict[str, Any]:
    """Inputs as {"required": {id: (type, options)}, "optional": {...}}, in their order."""
    result: dict[str, Any] = {"required": {}}
    for one in inputs:
        options = one.as_dict()
        options.pop("optional", None)
        result.setdefault("optional" if one.optional else "required", {})[one.id] = (
            one.get_io_type(),
            options,
        )
    return result
