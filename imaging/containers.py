"""What a picture file says of itself, read from its bytes without decoding a pixel.

Each reader walks one format's structure, checks the stated size against the limits, and gives just what the
pixel decoder needs. Text, colour profiles, further frames and other chunks are stepped over by their length,
so a bomb in one of them is never unpacked. Formats: PNG (ISO 15948), JPEG (ITU T.81), GIF89a, WebP
(RFC 9649), Exif orientation (JEITA CP-3451, tag 0x0112).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import ImageError
from .limits import Limits
from .png import SIGNATURE as PNG_SIGNATURE

PNG, JPEG, GIF, WEBP = "image/png", "image/jpeg", "image/gif", "image/webp"

_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"BM", "BMP"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"\0\0\2\0", "CUR"),
    (0, b"8BPS", "PSD"),
    (0, b"\0\0\0\x0cjP", "JPEG 2000"),
    (0, b"\xffO\xffQ", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyp", "HEIC or MP4"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"PK\3\4", "ZIP"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML or SVG"),
    (0, b"<", "HTML"),
    (0, b"{", "JSON"),
)

# A real file has a few thousand chunks or a few dozen scans; more only serve to burn time.
_MAX_PNG_CHUNKS = 1 << 16
_MAX_JPEG_SCANS = 200
# Inside a scan 0xFF is followed by 0 (a byte of data) or by a restart mark; anything else ends the scan.
_JPEG_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


@dataclass(frozen=True)
class PngParts:
    """A PNG's essentials; `data` is the zlib stream of its first picture."""

    width: int
    height: int
    bits: int
    colour_type: int
    interlaced: bool
    palette: bytes
    transparency: bytes
    orientation: int
    data: bytes


@dataclass(frozen=True)
class JpegParts:
    """A JPEG's essentials; `data` is the file rebuilt from the segments that were seen, without metadata.

    end: where in `data` its end mark is. is_huffman: not arithmetically coded.
    """

    width: int
    height: int
    channels: int
    is_huffman: bool
    orientation: int
    data: bytes
    end: int


@dataclass(frozen=True)
class GifParts:
    """A GIF's first frame: its box (left, top, width, height) on the canvas, and its LZW data."""

    width: int
    height: int
    box: tuple[int, int, int, int]
    interlaced: bool
    palette: bytes
    transparent: int | None
    bits: int
    data: memoryview


@dataclass(frozen=True)
class WebpParts:
    """A WebP's canvas; libwebp reads the rest."""

    width: int
    height: int
    orientation: int


def sniff(data: bytes) -> str:
    """The media type of a PNG, JPEG, GIF or WebP, from its first bytes; ImageError names anything else."""
    if not data:
        raise ImageError("The picture is empty: not one byte arrived.")
    if data.startswith(PNG_SIGNATURE):
        return PNG
    if data.startswith(b"\xff\xd8\xff"):
        return JPEG
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return GIF
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WEBP
    start = data[:64].lstrip()
    name = next((name for at, magic, name in _OTHERS if start[at:].startswith(magic)), None)
    seen = f"This is {name}" if name else "This is no picture that can be read"
    raise ImageError(
        f"{seen}; PNG, JPEG, WebP and GIF are accepted. It starts with {data[:24]!r}. "
        "Convert it first, or check what the link really returns."
    )


def truncated(media_type: str, where: str) -> ImageError:
    """The error for a file that ends early."""
    return ImageError(
        f"The {media_type} picture is truncated: it ends {where}. The download or the file was cut short; get it again."
    )


def damaged(media_type: str, what: str) -> ImageError:
    """The error for a file whose structure is broken."""
    return ImageError(f"The {media_type} picture is damaged: {what}. Get it again, or save it anew.")


def read_png(data: bytes, limits: Limits) -> PngParts:
    """A PNG's parts. Checksums of every part used are verified; the file must reach its IEND chunk."""
    kept: dict[bytes, bytes] = {}
    pixels: list[memoryview] = []
    for name, body in _png_chunks(data):
        if name == b"IHDR" and not kept:
            if len(body) != 13:
                raise damaged(PNG, f"its header has {len(body)} bytes, not 13")
            width, height = struct.unpack(">II", body[:8])
            limits.check_size(width, height, PNG)
            kept[name] = bytes(body)
        elif not kept:
            raise damaged(PNG, "it does not begin with its header")
        elif name == b"IDAT":
            pixels.append(body)
        elif name in (b"PLTE", b"tRNS", b"eXIf"):
            kept.setdefault(name, bytes(body[: 1 << 16]))
    if b"IHDR" not in kept:
        raise damaged(PNG, "it has no header")
    width, height, bits, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", kept[b"IHDR"])
    return PngParts(
        width=width,
        height=height,
        bits=bits,
        colour_type=colour_type,
        interlaced=bool(interlace),
        palette=kept.get(b"PLTE", b""),
        transparency=kept.get(b"tRNS", b""),
        orientation=orientation(kept.get(b"eXIf", b"")),
        data=b"".join(pixels),
    )


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view = memoryview(data)
    at = len(PNG_SIGNATURE)
    for _ in range(_MAX_PNG_CHUNKS):
        if at + 8 > len(data):
            raise truncated(PNG, "before its end mark")
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise truncated(PNG, f"inside its {name.decode('latin-1')!r} part")
        if name == b"IEND":
            return
        if name in (b"IHDR", b"PLTE", b"IDAT", b"tRNS") and (
            zlib.crc32(view[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]
        ):
            raise damaged(PNG, f"the checksum of its {name.decode('latin-1')} part is wrong")
        yield name, view[at + 8 : end]
        at = end + 4
    raise damaged(PNG, f"it has more than {_MAX_PNG_CHUNKS} parts")


def read_jpeg(data: bytes, limits: Limits) -> JpegParts:
    """A JPEG's parts, with its segments walked as libjpeg does; the file must reach its end mark."""
    frame, exif, is_huffman = b"", b"", True
    kept = [b"\xff\xd8"]
    for marker, start, body in _jpeg_segments(data):
        if marker == 0xDA:
            if not frame:
                raise damaged(JPEG, "a scan comes before its size")
            end = _jpeg_end(data, start)
            kept.append(data[start : end + 2])
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame or len(body) < 6:
                raise damaged(JPEG, "its size is stated wrongly or twice")
            frame, is_huffman = body, marker < 0xC8
            limits.check_size(*_jpeg_size(frame), media_type=JPEG)
        if marker == 0xE1 and body.startswith(b"Exif\0\0") and not exif:
            exif = body[6:]
        is_metadata = marker == 0xFE or (0xE1 <= marker <= 0xEF and marker != 0xEE)
        if not is_metadata:
            kept += (bytes((0xFF, marker)), struct.pack(">H", len(body) + 2), body)
    width, height = _jpeg_size(frame)
    rebuilt = b"".join(kept)
    return JpegParts(width, height, frame[5], is_huffman, orientation(exif), rebuilt, len(rebuilt) - 2)


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    height, width = struct.unpack_from(">HH", frame, 1)
    return width, height


def _jpeg_end(data: bytes, start: int) -> int:
    """Where the end mark is, from the start of the first scan's header."""
    scans, at = 0, start
    while mark := _JPEG_SCAN_END.search(data, at):
        at = mark.start()
        if data[at + 1] == 0xD9:
            return at
        scans += data[at + 1] == 0xDA
        if scans > _MAX_JPEG_SCANS:
            raise damaged(JPEG, f"it has more than {_MAX_JPEG_SCANS} scans")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise truncated(JPEG, "before its end mark")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(marker, where it starts, its body) up to and with the first scan's header."""
    at = 2
    while True:
        start = data.find(b"\xff", at)
        at = start + 1
        while data[at : at + 1] == b"\xff":
            at += 1
        if start < 0 or at + 3 > len(data):
            raise truncated(JPEG, "before its pixels")
        marker = data[at]
        at += 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD7:
            continue
        if marker in (0xD8, 0xD9):
            raise damaged(JPEG, "it starts or ends again before its pixels")
        end = at + struct.unpack_from(">H", data, at)[0]
        if end > len(data):
            raise truncated(JPEG, "before its pixels")
        yield marker, at - 2, data[at + 2 : end]
        at = end


def read_gif(data: bytes, limits: Limits) -> GifParts:
    """The first frame of a GIF; a frame that reaches beyond the logical screen widens the canvas."""
    try:
        return _read_gif(data, limits)
    except (struct.error, IndexError) as error:
        raise truncated(GIF, "before its first frame") from error


def _read_gif(data: bytes, limits: Limits) -> GifParts:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at, palette = _gif_palette(data, 13, flags)
    transparent = None
    while data[at] == 0x21:
        if data[at + 1] == 0xF9 and data[at + 2] >= 4:
            transparent = data[at + 6] if data[at + 3] & 1 else None
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    if data[at] != 0x2C:
        raise damaged(GIF, "it has no frame")
    left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, at + 1)
    limits.check_size(frame_width, frame_height, GIF)
    width, height = max(width, left + frame_width), max(height, top + frame_height)
    limits.check_size(width, height, GIF)
    at, own_palette = _gif_palette(data, at + 10, flags)
    return GifParts(
        width=width,
        height=height,
        box=(left, top, frame_width, frame_height),
        interlaced=bool(flags & 0x40),
        palette=own_palette or palette,
        transparent=transparent,
        bits=data[at],
        data=memoryview(data)[at + 1 :],
    )


def _gif_palette(data: bytes, at: int, flags: int) -> tuple[int, bytes]:
    end = at + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    return end, data[at:end]


def read_webp(data: bytes, limits: Limits) -> WebpParts:
    """A WebP's canvas; the file must be as long as its RIFF header says."""
    if len(data) < 30:
        raise truncated(WEBP, "inside its header")
    if len(data) < 8 + struct.unpack_from("<I", data, 4)[0]:
        raise truncated(WEBP, "before the length its header states")
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L" and data[20] == 0x2F:
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise damaged(WEBP, f"its first part {kind!r} is not a picture")
    limits.check_size(width, height, WEBP)
    return WebpParts(width, height, _webp_orientation(data) if kind == b"VP8X" else 1)


def _webp_orientation(data: bytes) -> int:
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"EXIF":
            return orientation(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 8 + length + (length & 1)
    return 1


def orientation(exif: bytes) -> int:
    """The Exif orientation, 1 to 8; 1 (upright) where there is none or the block is broken."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", exif, entry)
            if tag == 0x0112 and kind == 3:
                (value,) = struct.unpack_from(order + "H", exif, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
