"""Autogrow: an input that shows one more socket each time one is connected."""

from __future__ import annotations

import copy
from typing import Any, TypeAlias

from ._base import ComfyTypeI, Input, WidgetInput, prune
from ._schema import input_dict

_Input = Input
_MAX_NAMES = 100


class _Template:
    def __init__(self, input: Input, names: list[str], min: int) -> None:
        if isinstance(input, Autogrow.Input):
            raise ValueError("An Autogrow input cannot be the template of another one.")
        if min < 0 or len(names) > _MAX_NAMES:
            raise ValueError(f"An Autogrow input takes 0 to {_MAX_NAMES} names.")
        self.input = copy.copy(input)
        if isinstance(self.input, WidgetInput):
            self.input.force_input = True
        self.names = names
        self.min = min

    def get_all(self) -> list[Input]:
        grown = []
        for name in self.names:
            one = copy.copy(self.input)
            one.id = name
            grown.append(one)
        return grown

    def as_dict(self) -> dict[str, Any]:
        return {"input": input_dict([self.input])}


class Autogrow(ComfyTypeI, io_type="COMFY_AUTOGROW_V3"):
    """The node receives one dict, {name: value}, with the connected names only."""

    Type: TypeAlias = dict[str, Any]

    class TemplatePrefix(_Template):
        """Sockets PREFIX0, PREFIX1, ... of one kind."""

        def __init__(self, input: _Input, prefix: str, min: int = 1, max: int = 10) -> None:
            if max < 1:
                raise ValueError("An Autogrow input needs room for at least one socket.")
            super().__init__(input, [f"{prefix}{i}" for i in range(max)], min)
            self.prefix = prefix
            self.max = max

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | {"prefix": self.prefix, "min": self.min, "max": self.max}

    class TemplateNames(_Template):
        """Sockets of one kind with names of their own."""

        def __init__(self, input: _Input, names: list[str], min: int = 1) -> None:
            super().__init__(input, names[:_MAX_NAMES], min)

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | {"names": self.names, "min": self.min}

    class Input(_Input):
        def __init__(
            self,
            id: str,
            template: Autogrow.TemplatePrefix | Autogrow.TemplateNames,
            *,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
        ) -> None:
            super().__init__(
                id,
                display_name=display_name,
                optional=optional,
                tooltip=tooltip,
                lazy=lazy,
                extra_dict=extra_dict,
            )
            self.template = template

        def get_all(self) -> list[_Input]:
            return [self, *self.template.get_all()]

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | prune({"template": self.template.as_dict()})
