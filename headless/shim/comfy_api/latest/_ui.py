"""`comfy_api.latest.ui`: what a node shows after it ran, and how pictures are saved."""

from __future__ import annotations

import io
import json
import os
import random
import string
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from PIL.PngImagePlugin import PngInfo

from . import _folders
from ._node import ComfyNode, UIOutput
from ._types import FolderType


class SavedResult(dict[str, str]):
    """One file that was written, as the front end fetches it."""

    def __init__(self, filename: str, subfolder: str, type: FolderType) -> None:
        super().__init__(filename=filename, subfolder=subfolder, type=type.value)

    @property
    def filename(self) -> str:
        return self["filename"]

    @property
    def subfolder(self) -> str:
        return self["subfolder"]

    @property
    def type(self) -> FolderType:
        return FolderType(self["type"])


class SavedImages(UIOutput):
    """Pictures on disk."""

    def __init__(self, results: list[SavedResult], is_animated: bool = False) -> None:
        self.results = results
        self.is_animated = is_animated

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.results} | ({"animated": (True,)} if self.is_animated else {})


class PreviewText(UIOutput):
    """A text on the node."""

    def __init__(self, value: str) -> None:
        self.value = value

    def as_dict(self) -> dict[str, Any]:
        return {"text": (self.value,)}


class ImageSaveHelper:
    """Saves pictures as ComfyUI does, its PNG metadata included."""

    @staticmethod
    def save_images(
        images: torch.Tensor,
        filename_prefix: str,
        folder_type: FolderType,
        cls: type[ComfyNode] | None,
        compress_level: int = 4,
    ) -> list[SavedResult]:
        """Writes each picture of `images` (B, H, W, C; 0 to 1) as PREFIX_00001_.png and so on.

        Values are cut to whole 255ths, not rounded: that is how ComfyUI saves, and the 8-bit grid comes
        through unchanged. With `cls`, its hidden prompt and extra_pnginfo become text chunks.
        Raises ValueError for pictures that hold NaN or infinity, which have no 8-bit value.
        """
        folders = _folders.current.get()
        root = folders.output if folder_type is FolderType.output else folders.temp
        height, width = images[0].shape[:2]
        place = _folders.next_place(filename_prefix, root, width, height)
        metadata = _png_metadata(cls)
        saved = []
        for index, image in enumerate(images):
            name = place.name.replace("%batch_num%", str(index))
            file = f"{name}_{place.counter + index:05}_.png"
            encoded = io.BytesIO()
            _as_picture(image, index).save(encoded, "PNG", pnginfo=metadata, compress_level=compress_level)
            _write_whole(place.folder / file, encoded.getvalue())
            saved.append(SavedResult(file, place.subfolder, folder_type))
        return saved

    @staticmethod
    def get_save_images_ui(
        images: torch.Tensor,
        filename_prefix: str,
        cls: type[ComfyNode] | None,
        compress_level: int = 4,
    ) -> SavedImages:
        """Saves to the output folder and shows the pictures on the node."""
        return SavedImages(ImageSaveHelper.save_images(images, filename_prefix, FolderType.output, cls, compress_level))


class PreviewImage(UIOutput):
    """Pictures shown on the node, saved to the temporary folder. Pass `cls` to embed the workflow."""

    def __init__(self, image: torch.Tensor, animated: bool = False, cls: type[ComfyNode] | None = None) -> None:
        suffix = "".join(random.choices(string.ascii_lowercase, k=5))
        self.values = ImageSaveHelper.save_images(
            image, f"ComfyUI_temp_{suffix}", FolderType.temp, cls, compress_level=1
        )
        self.animated = animated

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.values, "animated": (self.animated,)}


class PreviewMask(PreviewImage):
    """Masks (B, H, W) shown as grey pictures."""

    def __init__(self, mask: torch.Tensor, animated: bool = False, cls: type[ComfyNode] | None = None) -> None:
        height, width = mask.shape[-2:]
        super().__init__(mask.reshape(-1, height, width, 1).expand(-1, -1, -1, 3), animated, cls)


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, also where the folder went away meanwhile or the run is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _as_picture(image: torch.Tensor, index: int) -> PILImage.Image:
    values = image.detach().cpu().float().numpy()
    if not np.isfinite(values).all():
        raise ValueError(f"Picture {index + 1} holds NaN or infinity and cannot be saved.")
    grid = np.clip(255.0 * values, 0, 255).astype(np.uint8)
    return PILImage.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid)


def _png_metadata(cls: type[ComfyNode] | None) -> PngInfo | None:
    if cls is None or not cls.hidden:
        return None
    metadata = PngInfo()
    if cls.hidden.prompt:
        metadata.add_text("prompt", json.dumps(cls.hidden.prompt))
    for key, value in (cls.hidden.extra_pnginfo or {}).items():
        metadata.add_text(key, json.dumps(value))
    return metadata


__all__ = [
    "ImageSaveHelper",
    "PreviewImage",
    "PreviewMask",
    "PreviewText",
    "SavedImages",
    "SavedResult",
]
