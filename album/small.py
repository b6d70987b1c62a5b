"""A picture made small: for the grid, and for the half of the slider that is before the edit."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ..imaging.codec import decode
from ..imaging.pixels import UInt8

# A tile of the grid, on a screen of two pixels a point or in a panel that was made wide.
THUMBNAIL_SIDE = 256
# Kontext answers in about one megapixel; more is not seen beside its picture.
BEFORE_SIDE = 1568


def thumbnail(data: bytes) -> bytes:
    """A picture file's bytes as a small WebP; raises ImageError for what is no whole picture of a bearable size."""
    picture = Image.fromarray(decode(data).rgb)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=75, method=2)
    return out.getvalue()


def before(pixels: UInt8) -> bytes:
    """8-bit pixels [H,W,C], C 1, 3 or 4, as a JPEG of a size to be looked at; an alpha is left out."""
    colour = pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels[..., :3])
    picture = Image.fromarray(colour)
    picture.thumbnail((BEFORE_SIDE, BEFORE_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()
