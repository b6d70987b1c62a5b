"""What a node says about itself, and how `/object_info` words it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from typing import Any

from ._inputs import Input, Output, input_dict


class Hidden(str, Enum):
    """Values a node may ask the host for, beside its inputs."""

    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"


@dataclass
class HiddenHolder:
    """The hidden values a run gave to a node; what was not asked for is None."""

    unique_id: str | None = None
    prompt: Any = None
    extra_pnginfo: Any = None


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
    # whatever a workflow names goes to the node, so that it can say what it does not have
    accept_all_inputs: bool = False

    def finalize(self) -> None:
        """Adds what the host adds: an output node's hidden values, and names for nameless outputs.

        Raises ValueError where inputs or outputs share an id.
        """
        if self.is_output_node:
            asked = (Hidden.prompt, Hidden.extra_pnginfo)
            self.hidden = [*self.hidden, *(one for one in asked if one not in self.hidden)]
        for index, output in enumerate(self.outputs):
            output.id = output.id or f"_{index}_{output.io_type}_"
        for ids in ([one.id for one in self.inputs], [str(one.id) for one in self.outputs]):
            if len(set(ids)) < len(ids):
                raise ValueError(f"{self.node_id}: two of {', '.join(ids)} have one id.")

    def as_info(self, python_module: str | None) -> dict[str, Any]:
        """The node's entry in `/object_info`."""
        inputs = input_dict(self.inputs)
        if self.hidden:
            inputs["hidden"] = {value.name: (value.value,) for value in self.hidden}
        return {
            "input": inputs,
            "input_order": {kind: list(named) for kind, named in inputs.items()},
            "is_input_list": self.is_input_list,
            "output": [one.io_type for one in self.outputs],
            "output_is_list": [one.is_output_list for one in self.outputs],
            "output_name": [one.display_name or one.io_type for one in self.outputs],
            "output_tooltips": [one.tooltip for one in self.outputs],
            "output_matchtypes": None,
            "name": self.node_id,
            "display_name": self.display_name,
            "description": self.description,
            "python_module": python_module,
            "category": self.category,
            "output_node": self.is_output_node,
            "deprecated": self.is_deprecated,
            "experimental": self.is_experimental,
            "dev_only": False,
            "api_node": False,
            "price_badge": None,
            "search_aliases": self.search_aliases or None,
            "essentials_category": None,
            "has_intermediate_output": False,
        }
