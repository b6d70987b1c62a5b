"""ComfyUI's own socket types and widgets."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias, TypedDict

import torch
from typing_extensions import NotRequired

from ._base import ComfyTypeIO, Output, WidgetInput, prune

_Output = Output


class FolderType(str, Enum):
    input = "input"
    output = "output"
    temp = "temp"


class UploadType(str, Enum):
    image = "image_upload"
    audio = "audio_upload"
    video = "video_upload"
    model = "file_upload"


class NumberDisplay(str, Enum):
    number = "number"
    slider = "slider"
    gradient_slider = "gradientslider"


class ControlAfterGenerate(str, Enum):
    fixed = "fixed"
    increment = "increment"
    decrement = "decrement"
    randomize = "randomize"


class Boolean(ComfyTypeIO, io_type="BOOLEAN"):
    Type: TypeAlias = bool

    class Input(WidgetInput):
        def __init__(
            self,
            id: str,
            *,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: bool | None = None,
            label_on: str | None = None,
            label_off: str | None = None,
            socketless: bool | None = None,
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
                default=default,
                socketless=socketless,
                force_input=force_input,
                extra_dict=extra_dict,
                raw_link=raw_link,
                advanced=advanced,
            )
            self.label_on = label_on
            self.label_off = label_off

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | prune(
                {
                    "label_on": self.label_on,
                    "label_off": self.label_off,
                }
            )


class Int(ComfyTypeIO, io_type="INT"):
    Type: TypeAlias = int

    class Input(WidgetInput):
        def __init__(
            self,
            id: str,
            *,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: int | None = None,
            min: int | None = None,
            max: int | None = None,
            step: int | None = None,
            control_after_generate: bool | ControlAfterGenerate | None = None,
            display_mode: NumberDisplay | None = None,
            socketless: bool | None = None,
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
                default=default,
                socketless=socketless,
                force_input=force_input,
                extra_dict=extra_dict,
                raw_link=raw_link,
                advanced=advanced,
            )
            self.min = min
            self.max = max
            self.step = step
            self.control_after_generate = control_after_generate
            self.display_mode = display_mode

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | prune(
                {
                    "min": self.min,
                    "max": self.max,
                    "step": self.step,
                    "control_after_generate": self.control_after_generate,
                    "display": self.display_mode,
                }
            )


class Float(ComfyTypeIO, io_type="FLOAT"):
    Type: TypeAlias = float

    class Input(WidgetInput):
        def __init__(
            self,
            id: str,
            *,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: float | None = None,
            min: float | None = None,
            max: float | None = None,
            step: float | None = None,
            round: float | None = None,
            display_mode: NumberDisplay | None = None,
            socketless: bool | None = None,
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
                default=default,
                socketless=socketless,
                force_input=force_input,
                extra_dict=extra_dict,
                raw_link=raw_link,
                advanced=advanced,
            )
            self.min = min
            self.max = max
            self.step = step
            self.round = round
            self.display_mode = display_mode

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | prune(
                {
                    "min": self.min,
                    "max": self.max,
                    "step": self.step,
                    "round": self.round,
                    "display": self.display_mode,
                }
            )


class String(ComfyTypeIO, io_type="STRING"):
    Type: TypeAlias = str

    class Input(WidgetInput):
        def __init__(
            self,
            id: str,
            *,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            multiline: bool = False,
            placeholder: str | None = None,
            default: str | None = None,
            dynamic_prompts: bool | None = None,
            socketless: bool | None = None,
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
                default=default,
                socketless=socketless,
                force_input=force_input,
                extra_dict=extra_dict,
                raw_link=raw_link,
                advanced=advanced,
            )
            self.multiline = multiline
            self.placeholder = placeholder
            self.dynamic_prompts = dynamic_prompts

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | prune(
                {
                    "multiline": self.multiline,
                    "placeholder": self.placeholder,
                    "dynamicPrompts": self.dynamic_prompts,
                }
            )


class Combo(ComfyTypeIO, io_type="COMBO"):
    Type: TypeAlias = str

    class Input(WidgetInput):
        def __init__(
            self,
            id: str,
            options: list[str] | list[int] | type[Enum],
            *,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: str | int | Enum | None = None,
            control_after_generate: bool | ControlAfterGenerate | None = None,
            upload: UploadType | None = None,
            image_folder: FolderType | None = None,
            socketless: bool | None = None,
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
                default=default.value if isinstance(default, Enum) else default,
                socketless=socketless,
                extra_dict=extra_dict,
                raw_link=raw_link,
                advanced=advanced,
            )
            self.options = [option.value for option in options] if isinstance(options, type) else options
            self.control_after_generate = control_after_generate
            self.upload = upload
            self.image_folder = image_folder

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | prune(
                {
                    "multiselect": False,
                    "options": self.options,
                    "control_after_generate": self.control_after_generate,
                    **({self.upload.value: True} if self.upload else {}),
                    "image_folder": self.image_folder.value if self.image_folder else None,
                }
            )

    class Output(_Output):
        def __init__(
            self,
            id: str | None = None,
            display_name: str | None = None,
            options: list[str] | None = None,
            tooltip: str | None = None,
            is_output_list: bool = False,
        ) -> None:
            super().__init__(id, display_name, tooltip, is_output_list)
            self.options = options if options is not None else []


class Image(ComfyTypeIO, io_type="IMAGE"):
    """(B, H, W, C) float, 0 to 1; C is 3, and 1 or 4 do occur."""

    Type: TypeAlias = torch.Tensor


class Mask(ComfyTypeIO, io_type="MASK"):
    """(B, H, W) float, 0 to 1; 1 is masked."""

    Type: TypeAlias = torch.Tensor


class Latent(ComfyTypeIO, io_type="LATENT"):
    class LatentDict(TypedDict):
        samples: torch.Tensor
        noise_mask: NotRequired[torch.Tensor]
        batch_index: NotRequired[list[int]]
        type: NotRequired[str]

    Type: TypeAlias = LatentDict


class Conditioning(ComfyTypeIO, io_type="CONDITIONING"):
    """A list of (token embeddings (B, N, D), options such as `pooled_output` and `guidance`)."""

    CondList: TypeAlias = list[tuple[torch.Tensor, dict[str, Any]]]
    Type: TypeAlias = CondList


class Model(ComfyTypeIO, io_type="MODEL"):
    pass


class Clip(ComfyTypeIO, io_type="CLIP"):
    pass


class Vae(ComfyTypeIO, io_type="VAE"):
    pass


class ClipVision(ComfyTypeIO, io_type="CLIP_VISION"):
    pass


class Sampler(ComfyTypeIO, io_type="SAMPLER"):
    pass


class Sigmas(ComfyTypeIO, io_type="SIGMAS"):
    Type: TypeAlias = torch.Tensor


class Noise(ComfyTypeIO, io_type="NOISE"):
    pass


class Guider(ComfyTypeIO, io_type="GUIDER"):
    pass


class AnyType(ComfyTypeIO, io_type="*"):
    pass
