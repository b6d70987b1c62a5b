"""A picture's file made small, to be looked at."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from PIL import Image

from ..imaging.limits import Limits
from ..imaging.orientation import orientation
from .naming import inside
from .source_rows import RowError

# What Pillow raises of damaged files of one format or another.
_UNREADABLE = (
    *(OSError, ValueError, SyntaxError, EOFError, MemoryError, LookupError, TypeError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def thumbnail_of(path: Path, side: int) -> Image.Image | None:
    """A picture upright and at most `side` pixels a side, RGB or RGBA; None where the file cannot be read."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with Image.open(path) as picture:
            Limits().check_size(picture.width, picture.height, "picture")
            picture.draft("RGB", (2 * side, 2 * side))
            small = _of_8_bits(picture).convert("RGBA" if picture.has_transparency_data else "RGB")
            small.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
            return _upright(small)
    except _UNREADABLE:
        return None


def thumbnail_below(folder: Path, name: object, side: int) -> Image.Image | None:
    """The same of a file that a report names; None, too, for one outside of the folder: what a list may not have sent
    away, it may not have in a page either."""
    try:
        return thumbnail_of(inside(folder, str(name)), side)
    except RowError:
        return None


def _of_8_bits(picture: Image.Image) -> Image.Image:
    """Of grey of 16 bits the high byte, as it was sent; Pillow's own way makes it white."""
    if not picture.mode.startswith("I"):
        return picture
    return picture.convert("I").point(lambda level: level * (1 / 256)).convert("L")


def _upright(picture: Image.Image) -> Image.Image:
    """As the camera was held, which is how it was sent."""
    exif = picture.info.get("exif")
    turn = _TURNS.get(orientation(exif)) if isinstance(exif, bytes) else None
    return picture if turn is None else picture.transpose(turn)
