"""Decompression bombs in every format: refused from the header, or read without unpacking the bomb."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kontext_bridge.imaging.codec import decode
from kontext_bridge.imaging.errors import ImageError, ImageTooLarge
from kontext_bridge.imaging.limits import Limits
from PIL import Image

LID_MIB = 64

# Address space is capped just above what the imports took, so unpacking a bomb fails with MemoryError.
CHILD = f"""
import resource, sys
from pathlib import Path
import numpy as np
from kontext_bridge.imaging.codec import decode
from kontext_bridge.imaging.errors import ImageError
pages = int(Path("/proc/self/statm").read_text().split()[0])
lid = pages * resource.getpagesize() + {LID_MIB} * 2**20
resource.setrlimit(resource.RLIMIT_AS, (lid, lid))
try:
    np.ones(2 * {LID_MIB} * 2**20, np.uint8)
    sys.exit("the lid does not hold")
except MemoryError:
    pass
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        picture = decode(path.read_bytes())
        print(path.name, picture.width, picture.height)
    except ImageError as error:
        print(path.name, type(error).__name__)
"""

HEADER_8X8 = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
PIXELS_8X8 = zlib.compress(b"\0" * 25 * 8)


def riff(kind: bytes, body: bytes) -> bytes:
    inner = b"WEBP" + kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)
    return b"RIFF" + struct.pack("<I", len(inner)) + inner


def gif(screen: tuple[int, int], frame: tuple[int, int]) -> bytes:
    small = io.BytesIO()
    Image.new("L", (1, 1)).save(small, "GIF")
    data = bytearray(small.getvalue())
    data[6:10] = struct.pack("<HH", *screen)
    at = data.index(b"\x2c")
    data[at + 5 : at + 9] = struct.pack("<HH", *frame)
    return bytes(data)


def jpeg(width: int, height: int, **options: object) -> bytes:
    small = io.BytesIO()
    Image.new("RGB", (16, 16)).save(small, "JPEG", **options)
    data = bytearray(small.getvalue())
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.fixture(scope="module")
def too_large(png_of: Callable[..., bytes]) -> dict[str, bytes]:
    huge = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    end = (b"IEND", b"")
    return {
        "png 60000": png_of((b"IHDR", huge), (b"IDAT", zlib.compress(b"\0" * 2**22)), end),
        "png 2 billion": png_of((b"IHDR", struct.pack(">II", 2**31 - 1, 1) + HEADER_8X8[8:]), end),
        "png long side": png_of((b"IHDR", struct.pack(">II", 40000, 1) + HEADER_8X8[8:]), end),
        "jpeg": jpeg(65500, 65500),
        "jpeg progressive": jpeg(65500, 65500, progressive=True),
        "gif screen": gif((65535, 65535), (1, 1)),
        "gif frame": gif((1, 1), (65535, 65535)),
        "webp extended": riff(b"VP8X", b"\x10\0\0\0" + b"\xff\xff\xff" * 2 + b"\0" * 10),
        "webp lossless": riff(b"VP8L", b"\x2f" + struct.pack("<I", 16382 | 16382 << 14) + b"\0" * 20),
        "webp lossy": riff(b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + b"\0" * 20),
    }


@pytest.fixture(scope="module")
def harmless_in_the_end(png_of: Callable[..., bytes]) -> dict[str, bytes]:
    """Files whose picture is small but that carry a bomb beside it."""
    header, pixels, end = (b"IHDR", HEADER_8X8), (b"IDAT", PIXELS_8X8), (b"IEND", b"")
    zeros_256_mib = zlib.compress(b"\0" * 2**28, 9)
    frames = [Image.new("L", (8, 8), i % 256) for i in range(3000)]
    many = io.BytesIO()
    frames[0].save(many, "GIF", save_all=True, append_images=frames[1:])
    return {
        "png text": png_of(header, (b"zTXt", b"note\0\0" + zeros_256_mib), pixels, end),
        "png utf8": png_of(header, (b"iTXt", b"note\0\1\0\0\0" + zeros_256_mib), pixels, end),
        "png profile": png_of(header, (b"iCCP", b"icc\0\0" + zeros_256_mib), pixels, end),
        "png surplus": png_of(header, (b"IDAT", zeros_256_mib), end),
        "png after": png_of(header, pixels, (b"zTXt", b"note\0\0" + zeros_256_mib), end),
        "gif frames": many.getvalue(),
    }


def test_a_huge_picture_is_refused_by_its_header(too_large: dict[str, bytes]) -> None:
    for name, data in too_large.items():
        assert len(data) < 8192, name
        with pytest.raises(ImageTooLarge, match="at most"):
            decode(data)


def test_a_bomb_beside_the_picture_does_not_harm_it(harmless_in_the_end: dict[str, bytes]) -> None:
    for name, data in harmless_in_the_end.items():
        assert decode(data).rgb.shape == (8, 8, 3), name


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_bomb_takes_more_memory_than_a_small_picture(
    too_large: dict[str, bytes], harmless_in_the_end: dict[str, bytes], tmp_path: Path
) -> None:
    bombs = {**too_large, **harmless_in_the_end}
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert child.returncode == 0, child.stderr
    answers = {line.rsplit(" ", 1)[0] for line in child.stdout.splitlines()}
    assert answers == {*too_large, *(f"{name} 8" for name in harmless_in_the_end)}


def test_a_progressive_jpeg_of_endless_scans_is_refused() -> None:
    data = jpeg(16, 16, progressive=True)
    scan = data[data.index(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match="scans"):
        decode(data[:-2] + scan * 300 + b"\xff\xd9")


def test_a_png_of_endless_parts_is_refused(png_of: Callable[..., bytes]) -> None:
    data = png_of((b"IHDR", HEADER_8X8), *[(b"tEXt", b"")] * 70_000, (b"IDAT", PIXELS_8X8), (b"IEND", b""))
    with pytest.raises(ImageError, match="parts"):
        decode(data)


def test_a_second_size_in_a_jpeg_cannot_overrule_the_checked_one() -> None:
    data = jpeg(16, 16)
    at = data.index(b"\xff\xc0")
    frame = data[at : at + 19]
    large = frame[:5] + struct.pack(">HH", 4000, 4000) + frame[9:]
    with pytest.raises(ImageError, match="twice"):
        decode(data[:at] + frame + large + data[at + 19 :])


def test_junk_between_jpeg_segments_cannot_hide_another_size() -> None:
    data = jpeg(16, 16)
    at = data.index(b"\xff\xc0")
    frame = data[at : at + 19]
    large = frame[:5] + struct.pack(">HH", 65500, 65500) + frame[9:]
    with pytest.raises(ImageTooLarge):
        decode(data[:at] + b"junk" + b"\xff\xff" + large[1:] + data[at:])


def test_a_file_over_the_byte_limit_is_refused_unread(files: dict[str, bytes]) -> None:
    with pytest.raises(ImageTooLarge, match="MiB"):
        decode(files["png"], Limits(max_bytes=len(files["png"]) - 1))
    assert decode(files["png"], Limits(max_bytes=len(files["png"]))).width == 53


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "webp lossless alpha"])
def test_the_pixel_limits_hold_to_the_pixel(kind: str, files: dict[str, bytes]) -> None:
    assert decode(files[kind], Limits(max_pixels=53 * 37, max_side=53)).height == 37
    for limits in (Limits(max_pixels=53 * 37 - 1), Limits(max_side=52)):
        with pytest.raises(ImageTooLarge):
            decode(files[kind], limits)


def test_pillows_own_bomb_warning_neither_guards_nor_escapes(
    saved: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for format in ("PNG", "JPEG", "GIF"):
        assert decode(saved(Image.new("RGB", (64, 64)), format)).width == 64


def test_zero_pixels_are_refused(png_of: Callable[..., bytes]) -> None:
    header = struct.pack(">IIBBBBB", 0, 8, 8, 2, 0, 0, 0)
    with pytest.raises(ImageError, match="0x8"):
        decode(png_of((b"IHDR", header), (b"IDAT", PIXELS_8X8), (b"IEND", b"")))


def test_the_largest_allowed_picture_still_decodes() -> None:
    side = 2048
    out = io.BytesIO()
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(out, "PNG")
    assert decode(out.getvalue(), Limits(max_pixels=side * side, max_side=side)).rgb.shape == (side, side, 3)
