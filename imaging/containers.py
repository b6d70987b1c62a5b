"""What a picture file says of itself, read from its bytes without decoding a pixel.

Each reader walks one format's structure, checks the stated size against the limits, and gives just what the
pixel decoder needs. Colour profiles, further frames and other chunks are stepped over by their length, so a bomb in
one of them is never unpacked; of text no more is unpacked than tells the orientation. Formats: PNG (ISO 15948),
GIF89a, WebP (RFC 9649); JPEG has a file of its own.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .errors import ImageError
from .limits import Limits
from .orientation import UPRIGHT, orientation
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

# A real file has a few thousand chunks; more only serve to burn time.
_MAX_PNG_CHUNKS = 1 << 16
# More of a note than any camera or editor writes, and no bomb.
_MAX_NOTE = 1 << 20
_LONGEST_KEYWORD = 80
_MAX_WEBP_CHUNKS = 1 << 16
_WEBP_PICTURE = (b"ALPH", b"VP8 ", b"VP8L", b"ANIM", b"ANMF")
_WEBP_CODED = (b"ALPH", b"VP8 ", b"VP8L")
_FRAME_HEADER = 16
# Flags in the first byte of VP8X: notes that count only if they are announced there, and what is kept of it.
_WEBP_NOTES = {b"EXIF": 0x08, b"XMP ": 0x04}
_WEBP_ALPHA_AND_ANIMATION = 0x12


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
    """A WebP's canvas, and the file put together again from what libwebp needs of it.

    libwebp takes the byte that evens a part of an odd length for picture data, so that a part which lacks its last
    byte may look whole to it. data, other: with this byte of ones, and of zeros; a whole picture is the same by both.
    shorter: without the last byte of such a lossy picture, which most encoders write in vain; what can be decoded
    from it is whole. Both None where there is no such part.
    """

    width: int
    height: int
    orientation: int
    data: bytes
    other: bytes | None = None
    shorter: bytes | None = None


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
    raise ImageError(f"{seen}; PNG, JPEG, WebP and GIF are accepted. It starts with {data[:24]!r}.")


def truncated(media_type: str, where: str) -> ImageError:
    """The error for a file that ends early."""
    return ImageError(
        f"The {media_type} picture is truncated: it ends {where}. It was cut short when it was saved or sent."
    )


def damaged(media_type: str, what: str) -> ImageError:
    """The error for a file whose structure is broken."""
    return ImageError(f"The {media_type} picture is damaged: {what}.")


def read_png(data: bytes, limits: Limits) -> PngParts:
    """A PNG's parts. Checksums of every part used are verified; the file must reach its IEND chunk."""
    kept: dict[bytes, bytes] = {}
    pixels: list[memoryview] = []
    notes = PngNotes()
    for name, body in png_chunks(data):
        if name == b"IHDR" and not kept:
            kept[name] = _png_header(body, limits)
        elif name == b"CgBI" and not kept:
            raise ImageError("The picture is an iPhone app's own kind of PNG (CgBI), which nothing else reads.")
        elif not kept:
            raise damaged(PNG, "it does not begin with its header")
        elif name == b"IDAT":
            pixels.append(body)
        elif name in (b"PLTE", b"tRNS"):
            kept.setdefault(name, bytes(body[: 1 << 16]))
        else:
            notes.read(name, body)
    if not kept:
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
        orientation=notes.orientation,
        data=b"".join(pixels),
    )


def _png_header(body: memoryview, limits: Limits) -> bytes:
    if len(body) != 13:
        raise damaged(PNG, f"its header has {len(body)} bytes, not 13")
    width, height, _, _, packing, filtering, interlace = struct.unpack(">IIBBBBB", body)
    limits.check_size(width, height, PNG)
    if packing or filtering or interlace > 1:
        raise damaged(PNG, f"it is packed by ways that do not exist ({packing}, {filtering}, {interlace})")
    return bytes(body)


class PngNotes:
    """What chunks beside the pixels say of the orientation: eXIf, and text that editors keep Exif or XMP in."""

    def __init__(self) -> None:
        self._exif = b""
        self._profile = b""
        self.xmp = b""

    @property
    def orientation(self) -> int:
        return orientation(self.exif, self.xmp)

    @property
    def exif(self) -> bytes:
        return self._exif or self._profile

    def read(self, name: bytes, body: memoryview) -> None:
        if name == b"eXIf":
            self._exif = bytes(body[:_MAX_NOTE])
        if name not in (b"tEXt", b"zTXt", b"iTXt"):
            return
        keyword = bytes(body[:_LONGEST_KEYWORD]).partition(b"\0")[0]
        if keyword == b"XML:com.adobe.xmp":
            self.xmp = png_text(name, body[len(keyword) + 1 :])
        elif keyword == b"Raw profile type exif":
            lines = png_text(name, body[len(keyword) + 1 :]).split(b"\n")[3:]
            with contextlib.suppress(ValueError):
                self._profile = bytes.fromhex(b"".join(lines).decode("latin-1"))
        elif keyword == b"exif" and name == b"tEXt":
            self._exif = bytes(body[len(keyword) + 1 :][:_MAX_NOTE])


def png_text(name: bytes, body: memoryview) -> bytes:
    """The text behind a keyword, unpacked up to a length that serves; empty where it is broken."""
    text = bytes(body[:_MAX_NOTE])
    packed = name == b"zTXt"
    if name == b"iTXt":
        packed = text[:1] == b"\1"
        text = text[:2] + text[2:].split(b"\0", 2)[-1]
    if not packed:
        return text if name == b"tEXt" else text[2:]
    try:
        return zlib.decompressobj().decompress(text[1 if name == b"zTXt" else 2 :], _MAX_NOTE)
    except zlib.error:
        return b""


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """The chunks before IEND, each with its name; raises ImageError where they do not reach it."""
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
    """A WebP's canvas; every part that its RIFF header counts must be there, but for the byte that evens the last."""
    chunks = webp_chunks(data)
    kind, first = chunks[0] if chunks else (b"", b"")
    if kind == b"VP8X" and len(first) >= 10:
        width = int.from_bytes(first[4:7], "little") + 1
        height = int.from_bytes(first[7:10], "little") + 1
    elif kind == b"VP8L" and len(first) >= 5 and first[0] == 0x2F:
        bits = struct.unpack_from("<I", first, 1)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and len(first) >= 10 and first[3:6] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", first, 6))
    else:
        raise damaged(WEBP, f"its first part {kind!r} is not a picture")
    limits.check_size(width, height, WEBP)
    if kind != b"VP8X":
        return WebpParts(width, height, UPRIGHT, *_riffs(chunks[:1]))
    notes: dict[bytes, bytes] = {}
    for name, body in chunks[1:]:
        if first[0] & _WEBP_NOTES.get(name, 0):
            notes.setdefault(name, bytes(body[:_MAX_NOTE]))
    kept = [(name, body) for name, body in chunks[1:] if name in _WEBP_PICTURE]
    plain = bytes((first[0] & _WEBP_ALPHA_AND_ANIMATION,)) + bytes(first[1:])
    upright = orientation(notes.get(b"EXIF", b""), notes.get(b"XMP ", b""))
    return WebpParts(width, height, upright, *_riffs([(kind, memoryview(plain)), *kept]))


def webp_chunks(data: bytes) -> list[tuple[bytes, memoryview]]:
    """The parts of a WebP, each with its name; raises ImageError where they are not all there."""
    if len(data) < 12:
        raise truncated(WEBP, "inside its header")
    view = memoryview(data)
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    chunks: list[tuple[bytes, memoryview]] = []
    at = 12
    while at + 8 <= end:
        if at + 8 > len(data):
            raise truncated(WEBP, "before the length its header states")
        name, length = struct.unpack_from("<4sI", data, at)
        stop = at + 8 + length
        if stop > len(data):
            raise truncated(WEBP, f"inside its {name.decode('latin-1')!r} part")
        if stop > end:
            raise damaged(WEBP, f"its {name.decode('latin-1')!r} part is longer than the whole")
        chunks.append((name, view[at + 8 : stop]))
        if len(chunks) > _MAX_WEBP_CHUNKS:
            raise damaged(WEBP, f"it has more than {_MAX_WEBP_CHUNKS} parts")
        at = stop + (length & 1)
    if end > max(at, len(data)):
        raise truncated(WEBP, "before the length its header states")
    return chunks


def _riffs(chunks: Sequence[tuple[bytes, memoryview]]) -> tuple[bytes, bytes | None, bytes | None]:
    """The three files of a WebpParts."""
    frame = next((_within_frame(body) for name, body in chunks if name == b"ANMF"), [])
    odd = {name for name, body in (*chunks, *frame) if name in _WEBP_CODED and len(body) & 1}
    if not odd:
        return riff(chunks, b"\0"), None, None
    shorter = None
    if odd == {b"VP8 "} and not frame:
        shorter = riff([(name, body[: len(body) & ~1] if name in odd else body) for name, body in chunks], b"\0")
    return riff(chunks, b"\xff"), riff(chunks, b"\0"), shorter


def _within_frame(body: memoryview) -> list[tuple[bytes, memoryview]]:
    """The parts within a frame as far as they can be read; libwebp says what is wrong with the others."""
    inner: list[tuple[bytes, memoryview]] = []
    at = _FRAME_HEADER
    while at + 8 <= len(body):
        name, length = struct.unpack_from("<4sI", body, at)
        inner.append((name, body[at + 8 : at + 8 + length]))
        at += 8 + length + (length & 1)
    return inner


def riff(chunks: Sequence[tuple[bytes, memoryview]], even: bytes) -> bytes:
    """The file of some parts. even: the byte that evens those of an odd length, in a frame as well."""
    parts: list[bytes | bytearray | memoryview] = [b"WEBP"]
    for name, part in chunks:
        body: memoryview | bytearray = part
        if name == b"ANMF":
            body, at = bytearray(part), _FRAME_HEADER
            for _, inner in _within_frame(part):
                at += 8 + len(inner)
                body[at : at + (len(inner) & 1)] = even * (at < len(body) and len(inner) & 1)
                at += len(inner) & 1
        parts += (name, struct.pack("<I", len(body)), body, even * (len(body) & 1))
    return b"".join((b"RIFF", struct.pack("<I", sum(map(len, parts))), *parts))
