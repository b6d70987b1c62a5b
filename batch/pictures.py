"""A row's picture read, and what came of it looked at."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..imaging.codec import DecodedImage, decode, encode, to_tensors
from ..imaging.errors import ImageError
from ..imaging.formats import ImageFormat
from ..imaging.keep.engine import keep
from ..imaging.keep.switch import keep_edits
from ..imaging.keep.verdict import Verdict
from ..imaging.limits import Limits
from ..imaging.metadata import FileNotes, read_notes, with_notes
from ..imaging.pixels import to_uint8

_FORMATS = {"png": ImageFormat.PNG, "webp": ImageFormat.WEBP_LOSSLESS, "jpg": ImageFormat.JPEG}
_MEDIA = {"png": "image/png", "webp": "image/webp", "jpg": "image/jpeg"}
# Of 255: a picture without any level apart from another by more shows nothing.
_FLAT = 2


@dataclass(frozen=True)
class RowPicture:
    """A row's picture, and what its file says beside it."""

    picture: DecodedImage
    notes: FileNotes


def read_picture(path: Path) -> RowPicture:
    """A picture from a file; raises ImageError for what is none, and OSError."""
    return picture_in(picture_bytes(path))


def picture_in(data: bytes) -> RowPicture:
    """A picture from a file's bytes; raises ImageError for what is none."""
    return RowPicture(decode(data), read_notes(data))


def picture_bytes(path: Path) -> bytes:
    """A picture's file, of a size that a picture may have; raises ImageError, OSError. Nothing is read but a file."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ImageError(f"{path} is no file.")
    Limits().check_bytes(about.st_size)
    return path.read_bytes()


def size_of(picture: DecodedImage) -> str:
    return f"{picture.width}x{picture.height}"


def as_file(pixels: torch.Tensor, output_format: str, quality: int) -> bytes:
    """One picture [H,W,C] 0..1 as a file's bytes; lossless but for jpg."""
    if not bool(torch.isfinite(pixels).all()):
        raise ImageError("The result holds values that are no numbers.")
    return encode(to_uint8(pixels), _FORMATS[output_format], max(1, quality)).data


def noted(
    data: bytes, notes: FileNotes, image: torch.Tensor | DecodedImage, told: dict[str, Any] | None = None
) -> bytes:
    """A result's file with what its picture's file said. told: what Keep found where it was laid back: only then are
    its pixels in the picture's own colours, and not in the service's, which are sRGB."""
    width, height = (image.width, image.height) if isinstance(image, DecodedImage) else (image.shape[2], image.shape[1])
    own = told is not None and told.get("verdict") in (Verdict.NONE.value, Verdict.LOCAL.value)
    return with_notes(data, notes.of_result(width, height, own_space=own))


def is_as_asked(picture: DecodedImage, output_format: str) -> bool:
    """Whether a picture's file is of the format that its name will say."""
    return picture.media_type == _MEDIA[output_format]


def tensor_of(picture: DecodedImage) -> torch.Tensor:
    """IMAGE [1,H,W,3]."""
    return to_tensors([picture]).image


def laid_back(
    before: DecodedImage, edited: torch.Tensor, raw: torch.Tensor | None = None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """An edit [1,h,w,C] laid back onto its picture: [1,H,W,C], and what was found.

    raw: what is handed on where it cannot be laid back, by default the edit itself.
    """
    kept = keep_edits([tensor_of(before)[0]], [edited[0]], edited if raw is None else raw, check=lambda: None)
    return kept.image, kept.told[0]


def measured(before: DecodedImage, edited: torch.Tensor) -> dict[str, Any]:
    """What Keep finds of an edit [1,h,w,C], without laying it back."""
    with torch.inference_mode():
        found = keep(tensor_of(before)[0], edited[0]).report.numbers()
    del found["says"]  # it tells of laying back
    return found


def facts_of_keep(told: dict[str, Any]) -> dict[str, Any]:
    """Keep's findings as the report has them: the share that changed, the shift in pixels, the rest's difference."""
    if "changed" not in told:
        return {"keep": told.get("says")}
    shift = told["shift"]
    return {
        "keep": told.get("says"),
        "changed_area": round(told["changed"], 4),
        "shift": round((shift[0] ** 2 + shift[1] ** 2) ** 0.5, 2),
        "outside": None if told["before"] is None else round(told["before"]["delta"], 3),
    }


def health(before: DecodedImage, after: DecodedImage) -> list[str]:
    """What a look at the pixels finds wrong: `black`, `flat` (one colour) and `same` (as the picture was)."""
    rgb = after.rgb
    found = []
    if int(rgb.max()) <= _FLAT:
        found.append("black")
    elif all(int(np.ptp(rgb[..., channel])) <= _FLAT for channel in range(rgb.shape[2])):
        found.append("flat")
    if rgb.shape == before.rgb.shape and np.array_equal(rgb, before.rgb):
        found.append("same")
    return found
