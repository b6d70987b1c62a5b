"""A picture's file made small, to be looked at."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

from ..imaging.limits import Limits


def thumbnail_of(path: Path, side: int) -> Image.Image | None:
    """A picture upright and at most `side` pixels a side, RGB or RGBA; None where the file cannot be read."""
    try:
        with Image.open(path) as picture:
            Limits().check_size(picture.width, picture.height, "picture")
            picture.draft("RGB", (2 * side, 2 * side))
            upright = ImageOps.exif_transpose(picture)
            small = upright.convert("RGBA" if "A" in upright.getbands() else "RGB")
            small.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError):
        return None
    return small
