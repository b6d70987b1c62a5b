"""Whole PNG, WebP and GIF files of unusual build are read; what is no picture of these formats is named."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from kontext_bridge.imaging.codec import decode
from kontext_bridge.imaging.errors import ImageError
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
PngOf = Callable[..., bytes]


def riff(*chunks: tuple[bytes, bytes], size: int | None = None, padded: bool = True) -> bytes:
    """A RIFF file of chunks; its stated size and the last chunk's padding may be wrong."""
    inner = b"WEBP"
    for number, (name, body) in enumerate(chunks, 1):
        inner += name + struct.pack("<I", len(body)) + body
        inner += b"\0" * (len(body) & 1 if padded or number < len(chunks) else 0)
    return b"RIFF" + struct.pack("<I", len(inner) if size is None else size) + inner


def chunk_of(webp: bytes) -> bytes:
    return webp[20 : 20 + struct.unpack_from("<I", webp, 16)[0]]


@pytest.fixture
def lossless(saved: Callable[..., bytes]) -> tuple[bytes, Pixels]:
    """A VP8L chunk of odd length, and its pixels."""
    draw = np.random.default_rng(0)
    while True:
        pixels = draw.integers(0, 256, (9, 7, 3), dtype=np.uint8)
        body = chunk_of(saved(Image.fromarray(pixels), "WEBP", lossless=True))
        if len(body) % 2:
            return body, pixels


def vp8x(flags: int, width: int = 7, height: int = 9) -> tuple[bytes, bytes]:
    return b"VP8X", bytes((flags, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


@pytest.mark.parametrize(("colour", "length"), [((0, 0, 0), 28), ((1, 0, 1), 28), ((200, 100, 50), 32)])
def test_a_webp_of_less_than_30_bytes_is_read(colour: tuple[int, int, int], length: int) -> None:
    # A lossless 1x1: signature, sides less 1, no alpha, no transform, and five codes of one symbol each.
    red, green, blue = colour
    bits, at = 0x2F, 8 + 14 + 14 + 1 + 3 + 1 + 1 + 1
    for symbol in (green, red, blue, 0, 0):
        bits |= (0b001 if symbol < 2 else 0b101) << at
        bits |= symbol << at + 3
        at += 4 if symbol < 2 else 11
    data = riff((b"VP8L", bits.to_bytes((at + 7) // 8, "little")))
    assert len(data) == length
    assert np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).tolist() == [[[*colour]]]
    assert decode(data).rgb.tolist() == [[[*colour]]]


@pytest.mark.parametrize("length", range(21))
def test_a_webp_of_any_shortness_is_refused_in_words(length: int) -> None:
    for kind in (b"VP8L", b"VP8 ", b"VP8X"):
        body = b"\x2f" + b"\0" * 40
        with pytest.raises(ImageError, match=r"image/webp picture is (truncated|damaged)"):
            decode(riff((kind, body[:length])))
        with pytest.raises(ImageError):
            decode(riff((kind, body))[:length] or b"RIFF\0\0\0\0WEBP")


def test_a_webp_without_the_byte_that_evens_its_last_part_is_whole(lossless: tuple[bytes, Pixels]) -> None:
    body, pixels = lossless
    note = (b"EXIF", b"II*\0\x08\0\0\0\0")
    whole = len(riff((b"VP8L", body))) - 8
    for data in (
        riff((b"VP8L", body)),
        riff((b"VP8L", body), padded=False),
        riff((b"VP8L", body), padded=False, size=whole),
        riff((b"VP8L", body), size=whole - 1),
        riff((b"VP8L", body)) + b"trailing bytes",
        riff(vp8x(0x08), (b"VP8L", body), note, padded=False),
        riff(vp8x(0x2C), (b"ICCP", b"odd"), (b"VP8L", body), (b"XMP ", b"odd"), note),
        riff(vp8x(0), (b"abcd", b"12345"), (b"VP8L", body), (b"EXIF", b"?" * 3)),
        riff((b"VP8L", body), (b"EXIF", b"a note without VP8X")),
    ):
        assert np.array_equal(decode(data).rgb, pixels)


def test_a_webp_that_lacks_more_than_that_byte_is_refused(lossless: tuple[bytes, Pixels]) -> None:
    body, _ = lossless
    size = len(riff((b"VP8L", body))) - 8
    for wrong in (0, 8, size - 9, size - 2, size + 1, size + 9, 0xFFFFFFFE, 0xFFFFFFFF):
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            decode(riff((b"VP8L", body), size=wrong))
    for end in (12, 19, 20, 25, size, size + 6):
        with pytest.raises(ImageError, match="truncated"):
            decode(riff((b"VP8L", body))[:end])


@pytest.mark.parametrize("kind", ["still", "animated"])
def test_a_webps_alpha_and_frames_survive_beside_notes(
    kind: str, picture: Callable[..., Pixels], saved: Callable[..., bytes]
) -> None:
    first, second = (Image.fromarray(picture(channels=4, seed=seed)) for seed in (1, 2))
    more = {"save_all": True, "append_images": [second]} if kind == "animated" else {}
    data = saved(first, "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0", xmp=b"<x/>", icc_profile=b"none", **more)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    decoded = decode(data)
    assert decoded.alpha is not None
    assert np.array_equal(np.dstack([decoded.rgb, decoded.alpha]), expected)


def png_rows(
    png_of: PngOf, rows: Pixels, bits: int, colour_type: int, width: int, *chunks: tuple[bytes, bytes]
) -> bytes:
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    return png_of((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b""))


def test_a_key_colour_of_16_bits_is_compared_in_all_its_bits(png_of: PngOf) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (8, 9, 3)).astype(">u2")
    key = deep[3, 4].copy()
    deep[5, 6] = key
    deep[1, 2] = key ^ 1  # equal in the high bytes alone
    deep[2, 2] = key ^ 0x0100  # equal in the low bytes alone
    data = png_rows(png_of, deep, 16, 2, 9, (b"tRNS", key.tobytes()))
    decoded = decode(data)
    assert np.array_equal(decoded.rgb, deep >> 8)
    assert np.array_equal(decoded.alpha, np.where((deep == key).all(-1), 0, 255))
    assert np.argwhere(decoded.alpha == 0).tolist() == [[3, 4], [5, 6]]


def test_a_key_grey_of_16_bits_is_compared_in_all_its_bits(png_of: PngOf) -> None:
    deep = np.array([[0x1234, 0x1235, 0x1334], [0x1234, 0, 65535]]).astype(">u2")
    decoded = decode(png_rows(png_of, deep, 16, 0, 3, (b"tRNS", b"\x12\x34")))
    assert decoded.alpha is not None and decoded.alpha.tolist() == [[0, 255, 255], [0, 255, 255]]
    assert decoded.rgb[..., 0].tolist() == [[0x12, 0x12, 0x13], [0x12, 0, 255]]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_key_grey_of_few_bits_is_the_grey_of_the_file(bits: int, png_of: PngOf) -> None:
    levels = np.arange(1 << bits)[None].repeat(3, 0)
    packed = np.packbits((levels[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).reshape(3, -1), axis=1)
    for key in {0, 1, (1 << bits) - 1}:
        decoded = decode(png_rows(png_of, packed, bits, 0, 1 << bits, (b"tRNS", struct.pack(">H", key))))
        assert np.array_equal(decoded.alpha, np.where(levels == key, 0, 255))
        assert np.array_equal(decoded.rgb[..., 0], levels * 255 // ((1 << bits) - 1))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (struct.pack(">IIBBBBB", 8, 8, 8, 2, 1, 0, 0), "packed by ways that do not exist"),
        (struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 64, 0), "packed by ways that do not exist"),
        (struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 2), "packed by ways that do not exist"),
        (struct.pack(">IIBBBBB", 8, 8, 3, 2, 0, 0, 0), "3 bits with colour type 2 do not exist"),
        (struct.pack(">IIBBBBB", 8, 8, 8, 5, 0, 0, 0), "8 bits with colour type 5 do not exist"),
    ],
)
def test_a_png_packed_in_an_unknown_way_is_refused(header: bytes, words: str, png_of: PngOf) -> None:
    with pytest.raises(ImageError, match=words):
        decode(png_of((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 25 * 8)), (b"IEND", b"")))


def test_an_iphone_apps_png_is_named(png_of: PngOf) -> None:
    with pytest.raises(ImageError, match="iPhone"):
        decode(png_of((b"CgBI", b"\0\0\0\0"), (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)), (b"IEND", b"")))


def test_the_first_picture_of_an_animated_png_is_the_one_that_still_viewers_show(
    picture: Callable[..., Pixels], saved: Callable[..., bytes]
) -> None:
    default, *frames = (Image.fromarray(picture(seed=seed)) for seed in (1, 2, 3))
    data = saved(default, "PNG", save_all=True, append_images=frames, default_image=True)
    assert np.array_equal(decode(data).rgb, np.asarray(default))


def test_around_a_gifs_first_frame_is_its_transparent_colour(saved: Callable[..., bytes]) -> None:
    small = Image.fromarray(np.full((4, 5), 1, np.uint8), "L").convert("P")
    small.putpalette([9, 8, 7, 40, 50, 60, 70, 80, 90])
    data = saved(small, "GIF", transparency=2, optimize=False)
    at = data.index(b"\x2c", data.index(b"\x21\xf9"))
    moved = data[:6] + b"\x0c\0\x0a\0" + data[10 : at + 1] + b"\x03\0\x02\0" + data[at + 5 :]
    expected = np.asarray(Image.open(io.BytesIO(moved)).convert("RGBA"))
    decoded = decode(moved)
    assert decoded.alpha is not None and expected.shape == (10, 12, 4)
    assert np.array_equal(np.dstack([decoded.rgb, decoded.alpha]), expected)


def test_a_gif_with_codes_of_more_bits_than_it_has_colours_is_read() -> None:
    # Code size 11: clear (2048), 200, 100, end (2049), 12 bits each.
    codes = sum(code << 12 * place for place, code in enumerate((2048, 200, 100, 2049))).to_bytes(6, "little")
    palette = bytes(np.repeat(np.arange(256, dtype=np.uint8), 3))
    frame = b"\x2c\0\0\0\0\x02\0\x01\0\0\x0b" + bytes((len(codes),)) + codes + b"\0;"
    data = b"GIF89a\x02\0\x01\0\xf7\0\0" + palette + frame
    assert decode(data).rgb[0, :, 0].tolist() == [200, 100]
    with pytest.raises(ImageError, match="13 bits a pixel"):
        decode(data.replace(b"\0\0\x0b\x06", b"\0\0\x0d\x06"))


@pytest.mark.parametrize("kind", ["lossless", "lossy", "lossy alpha", "lossless alpha", "animated"])
def test_a_webp_that_lacks_its_last_bytes_is_refused_or_the_very_same_though_its_sizes_agree(
    kind: str, picture: Callable[..., Pixels], saved: Callable[..., bytes]
) -> None:
    refused = 0
    for seed in range(12):
        pixels = picture(31 + seed, 45, channels=4 if "alpha" in kind else 3, seed=seed)
        still = saved(Image.fromarray(pixels), "WEBP", lossless="lossless" in kind, quality=60 + seed, exact=True)
        chunks = chunks_of(still)
        for cut in range(4):
            name, body = chunks[-1]
            parts = [*chunks[:-1], (name, body[: len(body) - cut])]
            if kind == "animated":
                frame = b"\0" * 6 + (44).to_bytes(3, "little") + (30 + seed).to_bytes(3, "little") + b"\1\0\0\0"
                inner = b"".join(n + struct.pack("<I", len(b)) + b + b"\0" * (len(b) & 1) for n, b in parts)
                parts = [vp8x(0x02, 45, 31 + seed), (b"ANIM", b"\0" * 6), (b"ANMF", frame + inner)]
            data = riff(*parts)
            whole = np.asarray(Image.open(io.BytesIO(still)).convert("RGBA"))
            try:
                decoded = decode(data)
            except ImageError:
                refused += 1
                assert cut, "a whole one is read"
                continue
            alpha = np.full(whole.shape[:2], 255) if decoded.alpha is None else decoded.alpha
            assert np.array_equal(np.dstack([decoded.rgb, alpha]), whole), (seed, cut)
    assert refused


def chunks_of(webp: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 12
    while at < len(webp):
        name, length = struct.unpack_from("<4sI", webp, at)
        chunks.append((name, webp[at + 8 : at + 8 + length]))
        at += 8 + length + (length & 1)
    return chunks
