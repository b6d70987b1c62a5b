"""Inputs, outputs and socket types that carry no widget of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias


def prune(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `values` that say something: all but those that are None."""
    return {key: value for key, value in values.items() if value is not None}


class Input:
    """One input of a node: a link socket, with a widget or without."""

    Parent: ClassVar[type[ComfyTypeI]]

    def __init__(
        self,
        id: str,
        *,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        extra_dict: dict[str, Any] | None = None,
        raw_link: bool | None = None,
        advanced: bool | None = None,
    ) -> None:
        self.id = id
        self.display_name = display_name
        self.optional = optional
        self.tooltip = tooltip
        self.lazy = lazy
        self.extra_dict = extra_dict if extra_dict is not None else {}
        self.rawLink = raw_link
        self.advanced = advanced

    @property
    def io_type(self) -> str:
        return self.Parent.io_type

    @property
    def Type(self) -> Any:
        return self.Parent.Type

    def get_io_type(self) -> str:
        return self.io_type

    def get_all(self) -> list[Input]:
        return [self]

    def validate(self) -> None:
        return None

    def as_dict(self) -> dict[str, Any]:
        """The input's options as `/object_info` words them, in its order."""
        options = {
            "display_name": self.display_name,
            "optional": self.optional,
            "tooltip": self.tooltip,
            "lazy": self.lazy,
            "rawLink": self.rawLink,
            "advanced": self.advanced,
        }
        return prune(options) | prune(self.extra_dict)


class WidgetInput(Input):
    """An input that the front end draws a widget for."""

    def __init__(
        self,
        id: str,
        *,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        default: Any = None,
        socketless: bool | None = None,
        widget_type: str | None = None,
        force_input: bool | None = None,
        extra_dict: dict[str, Any] | None = None,
        raw_link: bool | None = None,
        advanced: bool | None = None,
    ) -> None:
        super().__init__(
            id,
            display_name=display_name,
            optional=optional,
            tooltip=tooltip,
            lazy=lazy,
            extra_dict=extra_dict,
            raw_link=raw_link,
            advanced=advanced,
        )
        self.default = default
        self.socketless = socketless
        self.widget_type = widget_type
        self.force_input = force_input

    def get_io_type(self) -> str:
        return self.widget_type if self.widget_type is not None else self.io_type

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | prune(
            {
                "default": self.default,
                "socketless": self.socketless,
                "widgetType": self.widget_type,
                "forceInput": self.force_input,
            }
        )


class Output:
    """One output of a node."""

    Parent: ClassVar[type[ComfyTypeI]]

    def __init__(
        self,
        id: str | None = None,
        display_name: str | None = None,
        tooltip: str | None = None,
        is_output_list: bool = False,
    ) -> None:
        self.id = id
        self.display_name = display_name or id
        self.tooltip = tooltip
        self.is_output_list = is_output_list

    @property
    def io_type(self) -> str:
        return self.Parent.io_type

    @property
    def Type(self) -> Any:
        return self.Parent.Type

    def get_io_type(self) -> str:
        return self.io_type

    def validate(self) -> None:
        return None


_Input = Input
_Output = Output


class ComfyTypeI:
    """A socket type that only inputs have. A subclass names its `io_type` as a class keyword."""

    io_type: ClassVar[str]
    Type: TypeAlias = Any

    class Input(_Input):
        pass

    def __init_subclass__(cls, io_type: str | None = None) -> None:
        if io_type is None:
            return
        cls.io_type = io_type
        for side in ("Input", "Output"):
            shared = getattr(cls, side, None)
            if shared is not None:
                # A class of its own for each type, so that one type's parent is not another's.
                setattr(cls, side, type(side, (shared,), {"Parent": cls, "__module__": cls.__module__}))


class ComfyTypeIO(ComfyTypeI):
    """A socket type that inputs and outputs have."""

    class Output(_Output):
        pass


def Custom(io_type: str) -> type[ComfyTypeIO]:
    """An opaque link type of the pack's own."""

    class CustomComfyType(ComfyTypeIO, io_type=io_type):
        pass

    return CustomComfyType
