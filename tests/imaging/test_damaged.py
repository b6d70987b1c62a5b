"""Files that end early or were changed: an error or the whole picture, never a half-grey one."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from kontext_bridge.imaging.codec import decode
from kontext_bridge.imaging.errors import ImageError
from PIL import Image, ImageFile

KINDS = [
    "png",
    "png alpha",
    "png palette",
    "png interlaced",
    "png animated",
    "jpeg",
    "jpeg progressive",
    "jpeg grey",
    "jpeg cmyk",
    "webp",
    "webp lossless alpha",
    "webp animated",
    "gif",
    "gif animated",
]


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_cut_anywhere_is_refused_or_whole(
    kind: str, lenient: bool, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    data = files[kind]
    whole = decode(data)
    refused = 0
    for end in sorted({*range(0, 64), *range(64, len(data), 13), *range(len(data) - 64, len(data))}):
        try:
            picture = decode(data[:end])
        except ImageError:
            refused += 1
            continue
        assert np.array_equal(picture.rgb, whole.rgb)
        assert (picture.alpha is None) == (whole.alpha is None)
    assert refused > 40


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif"])
def test_a_truncated_picture_is_called_truncated(kind: str, files: dict[str, bytes]) -> None:
    with pytest.raises(ImageError, match=f"image/{kind} picture is truncated"):
        decode(files[kind][: len(files[kind]) // 2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_byte_gives_a_picture_or_an_image_error(kind: str, files: dict[str, bytes]) -> None:
    draw = random.Random(kind)
    for _ in range(150):
        data = bytearray(files[kind])
        for _ in range(draw.choice([1, 1, 3, 20])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            picture = decode(bytes(data))
        except ImageError:
            continue
        assert picture.rgb.ndim == 3 and picture.rgb.shape[2] == 3


@pytest.mark.parametrize("lenient", [False, True])
def test_png_pixels_with_a_wrong_checksum_are_refused(
    lenient: bool, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    data = bytearray(files["png"])
    data[data.index(b"IDAT") + 200] ^= 1
    with pytest.raises(ImageError, match="checksum of its IDAT"):
        decode(bytes(data))


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("shade", [b"\0", b"\xc8"])
def test_a_png_with_too_few_rows_is_refused_though_its_checksums_are_right(
    shade: bytes, interlace: int, lenient: bool, png_of: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    header = struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, interlace)
    rows = zlib.compress((b"\0" + shade * 30) * 5) if not interlace else zlib.compress(b"\0" * 155)
    with pytest.raises(ImageError, match="truncated"):
        decode(png_of((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")))


def test_a_whole_png_that_ends_in_black_is_not_taken_for_a_short_one(saved: Callable[..., bytes]) -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        assert not decode(saved(Image.new(mode, (9, 11)), "PNG")).rgb.any()


@pytest.mark.parametrize("kind", ["jpeg", "jpeg grey", "jpeg cmyk", "jpeg progressive"])
def test_a_jpeg_that_was_cut_and_then_closed_is_not_filled_up(kind: str, files: dict[str, bytes]) -> None:
    data = files[kind]
    start = data.index(b"\xff\xda") + 20
    # Of a progressive file the first scan is the picture; the later ones only refine it.
    stop = data.index(b"\xff\xc4", start) if kind == "jpeg progressive" else len(data)
    for end in range(start, stop - 16, 7):
        with pytest.raises(ImageError, match="truncated"):
            decode(data[: end - (data[end - 1] == 0xFF)] + b"\xff\xd9")


def test_what_follows_a_jpegs_end_does_not_matter(files: dict[str, bytes]) -> None:
    longer = files["jpeg"] + files["jpeg progressive"] + b"trailer"
    assert np.array_equal(decode(longer).rgb, decode(files["jpeg"]).rgb)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>sign in</html>", "HTML"),
        (b'  {"error": "not found"}', "JSON"),
        (b"not a picture at all", "no picture"),
        (b"\0" * 100, "no picture"),
    ],
)
def test_what_is_no_picture_is_named_with_its_start(data: bytes, named: str) -> None:
    with pytest.raises(ImageError, match=named):
        decode(data)


@pytest.mark.parametrize("format", ["TIFF", "BMP", "ICO", "JPEG2000", "AVIF", "PDF", "EPS"])
def test_other_formats_are_refused_by_name(format: str, saved: Callable[..., bytes]) -> None:
    data = saved(Image.new("RGB", (16, 16)), format)
    name = {"JPEG2000": "JPEG 2000", "EPS": "PostScript"}.get(format, format)
    with pytest.raises(ImageError, match=f"This is {name}; PNG, JPEG, WebP and GIF"):
        decode(data)


@pytest.mark.parametrize("format", ["PPM", "PCX", "SGI", "TGA", "DDS", "XBM"])
def test_formats_that_pillow_would_open_but_we_do_not_are_refused(format: str, saved: Callable[..., bytes]) -> None:
    data = saved(Image.new("1" if format == "XBM" else "RGB", (16, 16)), format)
    with pytest.raises(ImageError, match="accepted"):
        decode(data)


def test_a_psd_is_refused_by_name() -> None:
    with pytest.raises(ImageError, match="PSD"):
        decode(b"8BPS\0\1" + b"\0" * 40)
