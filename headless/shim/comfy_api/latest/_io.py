"""`comfy_api.latest.io`: the names a node is written with. A type without a widget is one line, an option one field."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from ._autogrow import Autogrow as Autogrow
from ._dynamic import DynamicCombo as DynamicCombo
from ._inputs import ComfyType, unknown
from ._inputs import Custom as Custom
from ._inputs import Input as Input
from ._inputs import Output as Output
from ._inputs import WidgetInput as WidgetInput
from ._node import ComfyNode as ComfyNode
from ._node import NodeOutput as NodeOutput
from ._schema import Hidden as Hidden
from ._schema import HiddenHolder as HiddenHolder
from ._schema import Schema as Schema

AnyType = Custom("*")
Clip = Custom("CLIP")
# A list of (token embeddings (B, N, D), options such as `pooled_output` and `guidance`).
Conditioning = Custom("CONDITIONING")
# (B, H, W, C) float, 0 to 1; C is 3, and 1 or 4 do occur.
Image = Custom("IMAGE")
# {"samples": tensor, ...}
Latent = Custom("LATENT")
# (B, H, W) float, 0 to 1; 1 is masked.
Mask = Custom("MASK")
Model = Custom("MODEL")
Vae = Custom("VAE")


class NumberDisplay(str, Enum):
    number = "number"
    slider = "slider"


class ControlAfterGenerate(str, Enum):
    fixed = "fixed"
    increment = "increment"
    decrement = "decrement"
    randomize = "randomize"


class Boolean(ComfyType, io_type="BOOLEAN"):
    @dataclass(kw_only=True)
    class Input(WidgetInput):
        label_on: str | None = None
        label_off: str | None = None


class Int(ComfyType, io_type="INT"):
    @dataclass(kw_only=True)
    class Input(WidgetInput):
        min: int | None = None
        max: int | None = None
        step: int | None = None
        control_after_generate: bool | ControlAfterGenerate | None = None
        display_mode: NumberDisplay | None = None


class Float(ComfyType, io_type="FLOAT"):
    @dataclass(kw_only=True)
    class Input(WidgetInput):
        min: float | None = None
        max: float | None = None
        step: float | None = None
        round: float | None = None
        display_mode: NumberDisplay | None = None


class String(ComfyType, io_type="STRING"):
    @dataclass(kw_only=True)
    class Input(WidgetInput):
        multiline: bool = False
        placeholder: str | None = None
        dynamic_prompts: bool | None = None


class Combo(ComfyType, io_type="COMBO"):
    @dataclass(kw_only=True)
    class Input(WidgetInput):
        force_input: bool | None = field(default=None, init=False)
        multiselect: bool = field(default=False, init=False)
        options: list[str] | list[int] | type[Enum] = field(kw_only=False)
        control_after_generate: bool | ControlAfterGenerate | None = None

        def __post_init__(self) -> None:
            if isinstance(self.options, type):
                self.options = [one.value for one in self.options]
            if isinstance(self.default, Enum):
                self.default = self.default.value


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        raise unknown("io", name)
