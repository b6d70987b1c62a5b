"""The file formats that pictures are written in. Light, so that a schema can name them without a codec."""

from __future__ import annotations

from enum import Enum


class ImageFormat(str, Enum):
    """How a picture is written. The two lossless ones keep every 8-bit pixel, colour under alpha 0 too."""

    PNG = "png"
    WEBP_LOSSLESS = "webp lossless"
    WEBP = "webp"
    JPEG = "jpg"


# The faster of the two lossless ones, and the one every service reads: benchmarks/encoding.py.
DEFAULT_FORMAT = ImageFormat.PNG
