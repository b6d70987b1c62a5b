"""Saves pictures as ComfyUI does: its names and numbers, its PNG metadata, whole or not at all."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..oxen.private_files import put_in_place

if TYPE_CHECKING:
    from comfy_api.latest import io

# Windows takes these for no name; after a colon it writes a second stream of a file, which no folder shows.
_NO_NAME = '<>:"|?*' if sys.platform == "win32" else ""


def save_pictures(
    images: torch.Tensor, prefix: str, root: Path, hidden: io.HiddenHolder, compress_level: int = 4
) -> list[Path]:
    """Writes each picture of `images` (B, H, W, C; 0 to 1) under `root` as PREFIX_00001_.png and so on.

    `prefix` may name a subfolder, and %batch_num%, %width%, %height%, %year%, %month%, %day%, %hour%, %minute%,
    %second%. Values are cut to whole 255ths, not rounded: that is how ComfyUI saves, and the 8-bit grid comes
    through unchanged. The hidden prompt and extra_pnginfo become text chunks.
    Raises ValueError where the prefix leads outside `root` or is no name here, and for pictures that hold NaN or
    infinity, which have no 8-bit value.
    """
    height, width = images[0].shape[:2]
    subfolder, start = os.path.split(os.path.normpath(_filled(prefix, width, height)))
    folder = root / subfolder
    if not folder.resolve().is_relative_to(root.resolve()):
        raise ValueError(f'The file name prefix "{prefix}" leads outside the output folder {root}.')
    if any(character in _NO_NAME for character in subfolder + start):
        raise ValueError(f'The file name prefix "{prefix}" has one of {" ".join(_NO_NAME)} in it. Leave it out.')
    folder.mkdir(parents=True, exist_ok=True)
    first = 1 + max((_number(path.name, f"{start}_") for path in folder.iterdir()), default=0)
    metadata = _metadata(hidden)
    saved = []
    for index, image in enumerate(images):
        name = start.replace("%batch_num%", str(index))
        encoded = BytesIO()
        _as_picture(image, index).save(encoded, "PNG", pnginfo=metadata, compress_level=compress_level)
        saved.append(folder / f"{name}_{first + index:05}_.png")
        _write_whole(saved[-1], encoded.getvalue())
    return saved


def _filled(prefix: str, width: int, height: int) -> str:
    names = ("width", "height", "year", "month", "day", "hour", "minute", "second")
    for name, value in zip(names, (width, height, *time.strftime("%Y %m %d %H %M %S").split()), strict=True):
        prefix = prefix.replace(f"%{name}%", str(value))
    return prefix


def _number(name: str, start: str) -> int:
    """The number of a file that was saved with the prefix before, 0 for any other file."""
    digits = name.removeprefix(start).split(".")[0].split("_")[0]
    return int(digits) if name.startswith(start) and digits.isdecimal() else 0


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, also where the folder went away meanwhile or the run is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_bytes(data)
        put_in_place(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _as_picture(image: torch.Tensor, index: int) -> Image.Image:
    values = image.detach().cpu().float().numpy()
    if not np.isfinite(values).all():
        raise ValueError(f"Picture {index + 1} holds NaN or infinity and cannot be saved.")
    grid = np.clip(255.0 * values, 0, 255).astype(np.uint8)
    return Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid)


def _metadata(hidden: io.HiddenHolder) -> PngInfo:
    metadata = PngInfo()
    if hidden.prompt:
        metadata.add_text("prompt", json.dumps(hidden.prompt))
    for key, value in (hidden.extra_pnginfo or {}).items():
        metadata.add_text(key, json.dumps(value))
    return metadata
