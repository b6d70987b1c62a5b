"""The few of ComfyUI's own nodes that a picture workflow cannot do without."""

from __future__ import annotations

import os
import random
import string
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from .folders import current

if TYPE_CHECKING:
    import torch
    from PIL import Image

_LARGEST_SIDE = 16384
# Most file systems take 255 bytes, the number and .png among them.
_LONGEST_NAME = 240


class LoadImage(io.ComfyNode):
    """Here `image` is a path, absolute, beside the workflow or in the folder above; in ComfyUI a file of its input
    folder.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadImage",
            display_name="Load Image",
            category="image",
            inputs=[
                io.String.Input(
                    "image", tooltip="Path of the picture, absolute or beside the workflow, or a folder above it."
                )
            ],
            outputs=[io.Image.Output(), io.Mask.Output()],
        )

    @classmethod
    def validate_inputs(cls, image: str | None) -> bool | str:
        if image is None or _path(image).is_file():
            return True
        return f"there is no picture {_path(image)}."

    @classmethod
    def execute(cls, image: str) -> io.NodeOutput:
        import torch
        from PIL import Image, ImageOps, ImageSequence

        try:
            with Image.open(_path(image)) as file:
                frames = [_tensors(ImageOps.exif_transpose(frame)) for frame in ImageSequence.Iterator(file)]
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"The picture {_path(image)} cannot be read: {error}") from error
        # A batch has one size: frames of another are left out, as in ComfyUI.
        pictures, masks = zip(*(pair for pair in frames if pair[0].shape == frames[0][0].shape), strict=True)
        return io.NodeOutput(torch.stack(pictures), torch.stack(masks))


class SaveImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SaveImage",
            display_name="Save Image",
            category="image",
            inputs=[io.Image.Input("images"), io.String.Input("filename_prefix", default="ComfyUI")],
            outputs=[io.Image.Output(display_name="images")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        # Here and not where it is saved: what comes before may be paid for.
        return True if filename_prefix is None else _unusable(filename_prefix) or True

    @classmethod
    def execute(cls, images: torch.Tensor, filename_prefix: str = "ComfyUI") -> io.NodeOutput:
        from .saved import save_pictures

        folders = current.get()
        try:
            saved = save_pictures(images, filename_prefix, folders.output, cls.hidden)
        except (OSError, UnicodeError) as error:
            raise OSError(
                f"The pictures cannot be saved in {folders.output}: {error}. What was paid for is kept: run again with "
                "result: reuse, and it costs nothing."
            ) from error
        return io.NodeOutput(images, ui={"images": [folders.shown(path) for path in saved]})


class PreviewImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PreviewImage",
            display_name="Preview Image",
            category="image",
            inputs=[io.Image.Input("images")],
            outputs=[io.Image.Output(display_name="images")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images: torch.Tensor) -> io.NodeOutput:
        from .saved import save_pictures

        prefix = "ComfyUI_temp_" + "".join(random.choices(string.ascii_lowercase, k=5))
        folders = current.get()
        saved = save_pictures(images, prefix, folders.temp, cls.hidden, compress_level=1)
        return io.NodeOutput(images, ui={"images": [folders.shown(path) for path in saved]})


class EmptyImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyImage",
            display_name="EmptyImage",
            category="image",
            inputs=[
                io.Int.Input("width", default=512, min=1, max=_LARGEST_SIDE, step=1),
                io.Int.Input("height", default=512, min=1, max=_LARGEST_SIDE, step=1),
                io.Int.Input("batch_size", default=1, min=1, max=4096),
                io.Int.Input("color", default=0, min=0, max=0xFFFFFF, step=1),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int = 1, color: int = 0) -> io.NodeOutput:
        import torch

        channels = [(color >> shift & 0xFF) / 0xFF for shift in (16, 8, 0)]
        return io.NodeOutput(torch.tensor(channels).repeat(batch_size, height, width, 1))


BUILTIN_NODES: tuple[type[io.ComfyNode], ...] = (LoadImage, SaveImage, PreviewImage, EmptyImage)


def _unusable(prefix: str) -> str | None:
    """Why no file can be named so, None where one can."""
    try:
        name = len(os.fsencode(Path(prefix).name))
    except UnicodeError:
        return f"The file name prefix {prefix!a} holds a character that this machine's file names cannot have."
    if "\0" in prefix:
        return f"The file name prefix {prefix!a} holds a NUL, which no file name can have."
    if name > _LONGEST_NAME:
        return f"The file name prefix is {name} bytes long; file names take some {_LONGEST_NAME}."
    return None


def _path(image: str) -> Path:
    return picture_path(current.get().source, image)


def picture_path(source: Path, image: str) -> Path:
    """The file that LoadImage's `image` names: in the workflow's folder `source`, or in the one above."""
    # An exported workflow marks a file of ComfyUI's input folder so.
    name = image.removesuffix(" [input]")
    beside, above = source / name, source.parent / name
    return above if above.is_file() and not beside.is_file() else beside


def _tensors(frame: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
    """(H, W, 3) picture and mask, 0 to 1; the mask is (H, W), 1 where transparent, or (64, 64) zeros."""
    import numpy as np
    import torch

    if frame.mode.startswith("I"):
        grey = torch.from_numpy(np.array(frame, np.float32)).div(65535).clamp(0, 1)
        return grey.unsqueeze(-1).repeat(1, 1, 3), torch.zeros(64, 64)
    # ComfyUI gives a palette picture a mask of its own size even where nothing is transparent.
    if "A" in frame.getbands() or frame.mode == "P" or "transparency" in frame.info:
        rgba = torch.from_numpy(np.array(frame.convert("RGBA"), np.float32)).div(255)
        return rgba[..., :3], 1 - rgba[..., 3]
    return torch.from_numpy(np.array(frame.convert("RGB"), np.float32)).div(255), torch.zeros(64, 64)
