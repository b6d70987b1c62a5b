"""Pictures and files that several of these tests need."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def save(picture: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def interlaced_png(pixels: Pixels) -> bytes:
    """Adam7, which Pillow reads but cannot write."""
    raw = b""
    for left, top, across, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        for row in pixels[top::down, left::across]:
            raw += b"\0" + row.tobytes() if row.size else b""
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def picture_pixels(height: int = 37, width: int = 53, channels: int = 3, seed: int = 0) -> Pixels:
    """Smooth with some noise, so that lossy formats keep it recognisable."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(x / 9 + y / (7 + i) + i) for i in range(channels)]
    noise = np.random.default_rng(seed).normal(0, 3, (height, width, channels))
    return np.clip(np.rint(np.stack(waves, -1) + noise), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """One whole file of every kind that is read."""
    rgb = Image.fromarray(picture_pixels())
    rgba = Image.fromarray(picture_pixels(channels=4))
    more = [Image.fromarray(picture_pixels(seed=seed)) for seed in (1, 2)]
    return {
        "png": save(rgb, "PNG"),
        "png alpha": save(rgba, "PNG"),
        "png palette": save(rgb.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        "png interlaced": interlaced_png(np.asarray(rgb)),
        "png animated": save(rgb, "PNG", save_all=True, append_images=more),
        "jpeg": save(rgb, "JPEG"),
        "jpeg progressive": save(rgb, "JPEG", progressive=True),
        "jpeg grey": save(rgb.convert("L"), "JPEG"),
        "jpeg cmyk": save(rgb.convert("CMYK"), "JPEG"),
        "webp": save(rgb, "WEBP"),
        "webp lossless alpha": save(rgba, "WEBP", lossless=True),
        "webp animated": save(rgb, "WEBP", save_all=True, append_images=more),
        "gif": save(rgb.quantize(), "GIF"),
        "gif animated": save(rgb, "GIF", save_all=True, append_images=more),
    }


@pytest.fixture
def picture() -> Callable[..., Pixels]:
    return picture_pixels


@pytest.fixture
def saved() -> Callable[..., bytes]:
    return save


@pytest.fixture(scope="session")
def png_of() -> Callable[..., bytes]:
    """A PNG from chunks (name, body) that need not make sense."""

    def build(*chunks: tuple[bytes, bytes]) -> bytes:
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in chunks)

    return build
