"""Autogrow: an input that shows one more socket each time one is connected."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from ._inputs import ComfyType, Input, WidgetInput, input_dict

_Input = Input
_MOST = 100


@dataclass
class TemplatePrefix:
    """Sockets PREFIX0, PREFIX1, ... of one kind, of which the first `min` must be connected."""

    input: Input
    prefix: str
    min: int = 1
    max: int = 10

    def __post_init__(self) -> None:
        if isinstance(self.input, Autogrow.Input) or self.min < 0 or not 1 <= self.max <= _MOST:
            raise ValueError(f"An Autogrow input has 1 to {_MOST} sockets, none of which grows itself.")
        self.input = copy.copy(self.input)
        if isinstance(self.input, WidgetInput):
            self.input.force_input = True

    def as_dict(self) -> dict[str, Any]:
        return {"input": input_dict([self.input]), "prefix": self.prefix, "min": self.min, "max": self.max}


class Autogrow(ComfyType, io_type="COMFY_AUTOGROW_V3"):
    """The node receives one dict, {name: value}, with the connected names only."""

    TemplatePrefix = TemplatePrefix

    @dataclass(kw_only=True)
    class Input(_Input):
        advanced: bool | None = field(default=None, init=False)
        template: TemplatePrefix = field(kw_only=False)

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | {"template": self.template.as_dict()}
