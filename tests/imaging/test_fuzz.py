"""A few seconds of hostile files with a fixed seed: a picture or one of the pack's own errors, never anything else."""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from kontext_bridge.imaging.codec import decode
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.imaging.limits import Limits
from PIL import Image

# Small enough that no mutation is slow; a size in a header that was made larger is refused.
LIMITS = Limits(max_pixels=1 << 18, max_side=4096)
ROUNDS = 120
KINDS = [
    "png",
    "png palette",
    "png 16 bits with key",
    "png with notes",
    "jpeg",
    "jpeg restarts",
    "jpeg progressive",
    "jpeg cmyk",
    "gif",
    "gif interlaced",
    "webp",
    "webp lossless",
    "webp extended",
    "webp animated",
]


@pytest.fixture(scope="module")
def tiny() -> dict[str, bytes]:
    """A file of every kind, of a few hundred bytes."""
    from .conftest import chunk, picture_pixels, save

    rgb = Image.fromarray(picture_pixels(17, 19))
    rgba = Image.fromarray(picture_pixels(17, 19, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.random.default_rng(0).integers(0, 65536, (3, 4, 3)).astype(">u2")
    header = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    raw = zlib.compress(b"".join(b"\0" + row.tobytes() for row in deep))
    key = chunk(b"tRNS", deep[1, 1].tobytes())
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b'tiff:Orientation="6"'))
    png = save(rgb, "PNG")
    return {
        "png": png,
        "png palette": save(rgb.quantize(7), "PNG", transparency=bytes(range(7))),
        "png 16 bits with key": png[:8] + chunk(b"IHDR", header) + key + chunk(b"IDAT", raw) + chunk(b"IEND", b""),
        "png with notes": png[:33] + chunk(b"eXIf", exif.tobytes()[6:]) + xmp + png[33:],
        "jpeg": save(rgb, "JPEG", exif=exif),
        "jpeg restarts": save(rgb, "JPEG", restart_marker_blocks=1),
        "jpeg progressive": save(rgb, "JPEG", progressive=True),
        "jpeg cmyk": save(rgb.convert("CMYK"), "JPEG", subsampling=0),
        "gif": save(rgb.quantize(7), "GIF", transparency=3),
        "gif interlaced": save(rgb.quantize(7), "GIF", interlace=1),
        "webp": save(rgb, "WEBP"),
        "webp lossless": save(rgb, "WEBP", lossless=True),
        "webp extended": save(rgba, "WEBP", exif=exif, xmp=b"<x/>"),
        "webp animated": save(rgba, "WEBP", save_all=True, append_images=[rgb]),
    }


def with_right_checksums(png: bytes) -> bytes:
    """So that what was changed in a PNG reaches the decoder."""
    out, at = png[:8], 8
    while at + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        if at + 12 + length > len(png):
            break
        body = png[at + 4 : at + 8 + length]
        out += png[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return out + png[at:]


def flip_bits(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice([1, 1, 2, 8])):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def set_extremes(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data))
    data[at : at + draw.choice([1, 2, 4])] = draw.choice([b"\0" * 4, b"\xff" * 4, b"\x7f\xff", b"\xff\xd9", b"\0\1"])


def move_a_piece(data: bytearray, draw: random.Random) -> None:
    start, to = draw.randrange(len(data)), draw.randrange(len(data))
    data[to:to] = data[start : start + draw.choice([1, 4, 30, 200])]


def leave_a_piece_out(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data))
    del data[at : at + draw.choice([1, 2, 12, 100])]


CHANGES: list[Callable[[bytearray, random.Random], None]] = [
    flip_bits,
    set_extremes,
    move_a_piece,
    leave_a_piece_out,
]


def read(data: bytes) -> bool:
    """Whether it is read; any error but the pack's own fails the test, as does a picture that is none."""
    try:
        picture = decode(data, LIMITS)
    except ImageError as error:
        assert re.search(r"[a-z]{3}.*\.$", str(error), re.DOTALL)
        return False
    assert picture.rgb.dtype == np.uint8 and picture.rgb.shape == (picture.height, picture.width, 3)
    assert picture.alpha is None or picture.alpha.shape == picture.rgb.shape[:2]
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_spoilt_in_any_way_gives_a_picture_or_an_image_error(kind: str, tiny: dict[str, bytes]) -> None:
    draw = random.Random(kind)
    assert read(tiny[kind])
    refused = 0
    for number in range(ROUNDS):
        data = bytearray(tiny[kind])
        for _ in range(draw.choice([1, 1, 3])):
            draw.choice(CHANGES)(data, draw)
            data = data or bytearray(b"\0")
        spoilt = bytes(data)
        refused += not read(with_right_checksums(spoilt) if kind.startswith("png") and number % 2 else spoilt)
    assert refused


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_at_any_byte_is_refused_or_whole(kind: str, tiny: dict[str, bytes]) -> None:
    whole = decode(tiny[kind])
    for end in range(len(tiny[kind])):
        try:
            picture = decode(tiny[kind][:end], LIMITS)
        except ImageError:
            continue
        # Notes of the orientation may stand behind the pixels.
        assert np.array_equal(np.sort(picture.rgb, axis=None), np.sort(whole.rgb, axis=None)), end
        assert (picture.alpha is None) == (whole.alpha is None)
