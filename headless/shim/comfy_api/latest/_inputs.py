"""What an input, an output and a type are. An option is a field; their order is that of `/object_info`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

_UNSAID = {"id", "optional"}
_WORDED = {"force_input": "forceInput", "display_mode": "display", "dynamic_prompts": "dynamicPrompts"}


@dataclass(kw_only=True)
class Input:
    """One input of a node: a socket for links."""

    io_type: ClassVar[str]
    id: str = field(kw_only=False)
    display_name: str | None = None
    optional: bool = False
    tooltip: str | None = None
    advanced: bool | None = None
    extra_dict: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The options that were given, as `/object_info` words them."""
        said: dict[str, Any] = {}
        for option in (one.name for one in fields(self) if one.name not in _UNSAID):
            value = getattr(self, option)
            said |= value if option == "extra_dict" else {_WORDED.get(option, option): value}
        return {option: value for option, value in said.items() if value is not None}


@dataclass(kw_only=True)
class WidgetInput(Input):
    """An input that the front end draws a widget for."""

    default: Any = None
    socketless: bool | None = None
    force_input: bool | None = None


@dataclass
class Output:
    """One output of a node."""

    io_type: ClassVar[str]
    id: str | None = None
    display_name: str | None = None
    _: KW_ONLY
    tooltip: str | None = None
    is_output_list: bool = False

    def __post_init__(self) -> None:
        self.display_name = self.display_name or self.id


_Input = Input
_Output = Output


class ComfyType:
    """A type of values: the name that its links have, and the classes of its inputs and outputs."""

    io_type: ClassVar[str]
    Type: TypeAlias = Any

    class Input(_Input):
        pass

    class Output(_Output):
        pass

    def __init_subclass__(cls, io_type: str) -> None:
        cls.io_type = io_type
        for side in (cls.Input, cls.Output):
            # Classes of its own for each type, so that one type's name is not another's.
            setattr(cls, side.__name__, type(side.__name__, (side,), {"io_type": io_type}))


def Custom(io_type: str) -> type[ComfyType]:
    """A type without a widget, of ComfyUI's or of the pack's own."""

    class CustomType(ComfyType, io_type=io_type):
        pass

    return CustomType


def input_dict(inputs: Iterable[Input]) -> dict[str, Any]:
    """Inputs as {"required": {id: (type, options)}, "optional": {...}}, in their order."""
    result: dict[str, Any] = {"required": {}}
    for one in inputs:
        kind = result.setdefault("optional" if one.optional else "required", {})
        kind[one.id] = (one.io_type, one.as_dict())
    return result


def unknown(module: str, name: str) -> AttributeError:
    """Says that a name of ComfyUI's is not here, and what to do."""
    return AttributeError(
        f'comfy_api.latest.{module} has no "{name}" in a run without ComfyUI. Set COMFYUI_PATH to a folder of ComfyUI '
        "to run with its own comfy_api, or add what is missing in headless/shim."
    )
