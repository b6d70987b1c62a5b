"""What a picture file says beside its pixels, carried over to the file of what was made of the picture.

PNG, JPEG and WebP hold Exif, XMP and a colour profile; PNG holds texts as well, which go to a PNG alone. The pixels'
own bytes are not touched. Never carried: workflows of ComfyUI, content credentials, which an edit makes void, and other
formats' ways to say the same.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from . import containers
from .containers import JPEG, PNG, WEBP, PngNotes, png_chunks, riff, webp_chunks
from .errors import ImageError
from .exif import exif_of, is_workflow, xmp_of
from .jpeg import segments
from .limits import Limits
from .png import SIGNATURE, chunk

# More than any camera or editor writes, and no bomb.
_MOST = 1 << 20
_MOST_PROFILE = 4 << 20
_MOST_TEXTS = 64
_LONGEST_KEYWORD = 80
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# What ComfyUI calls its own, and texts that hold what is carried otherwise, or is of the file that was.
_NOT_TEXTS = (b"prompt", b"workflow", b"XML:com.adobe.xmp", b"exif", b"Raw profile type ")
_SPACES = (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP")
_EXIF, _XMP, _PROFILE = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_SEGMENT = 0xFFFF - 2
_APP0, _APP1, _APP2, _SCAN = 0xE0, 0xE1, 0xE2, 0xDA
_WEBP_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
_ALPHA = 0x10


@dataclass(frozen=True)
class FileNotes:
    """exif: a TIFF block; xmp: a packet; profile: of ICC, for RGB; texts: a PNG's chunks, name and body."""

    exif: bytes = b""
    xmp: bytes = b""
    profile: bytes = b""
    texts: tuple[tuple[bytes, bytes], ...] = ()

    def of_result(self, width: int, height: int, *, own_space: bool) -> FileNotes:
        """What of it is true of a result of this size. own_space: whether its pixels are in the picture's own colours;
        otherwise they are in sRGB."""
        return FileNotes(
            exif_of(self.exif, width, height, own_space=own_space),
            xmp_of(self.xmp, width, height, own_space=own_space),
            self.profile if own_space else b"",
            self.texts,
        )


def read_notes(data: bytes) -> FileNotes:
    """What a file says beside its pixels; what is broken or beyond all measure is left out."""
    try:
        kind = containers.sniff(data)
        if kind == PNG:
            return _of_png(data)
        if kind == JPEG:
            return _of_jpeg(data)
        return _of_webp(data) if kind == WEBP else FileNotes()
    except ImageError:
        return FileNotes()


def with_notes(data: bytes, notes: FileNotes) -> bytes:
    """A file with these notes in place of its own; as it is where there is nothing to note. Raises ImageError."""
    if notes == FileNotes():
        return data
    kind = containers.sniff(data)
    if kind == PNG:
        return b"".join(_png_with(data, notes))
    if kind == JPEG:
        return b"".join(_jpeg_with(data, notes))
    return _webp_with(data, notes) if kind == WEBP else data


def _of_png(data: bytes) -> FileNotes:
    found, profile = PngNotes(), b""
    texts: list[tuple[bytes, bytes]] = []
    for name, body in png_chunks(data):
        found.read(name, body)
        if name == b"iCCP" and not profile:
            packed = bytes(body[:_LONGEST_KEYWORD]).find(b"\0") + 2
            with contextlib.suppress(zlib.error):
                profile = zlib.decompressobj().decompress(body[packed:], _MOST_PROFILE)
        elif name in _TEXTS and len(body) <= _MOST and len(texts) < _MOST_TEXTS and _is_harmless(name, body):
            texts.append((name, bytes(body)))
    return FileNotes(_bounded(found.exif), _bounded(found.xmp), _for_rgb(profile), tuple(texts))


def _is_harmless(name: bytes, body: memoryview) -> bool:
    keyword = bytes(body[:_LONGEST_KEYWORD]).partition(b"\0")[0]
    if not keyword or keyword.startswith(_NOT_TEXTS):
        return False
    return not is_workflow(containers.png_text(name, body[len(keyword) + 1 :]))


def _of_jpeg(data: bytes) -> FileNotes:
    exif, xmp = b"", b""
    parts: dict[int, bytes] = {}
    for marker, _, body in segments(data):
        if marker == _SCAN:
            break
        if marker == _APP1 and body.startswith(_EXIF):
            exif = exif or body
        elif marker == _APP1 and body.startswith(_XMP):
            xmp = xmp or body.removeprefix(_XMP)
        elif marker == _APP2 and body.startswith(_PROFILE) and len(body) > len(_PROFILE) + 2:
            parts.setdefault(body[len(_PROFILE)], body[len(_PROFILE) + 2 :])
    return FileNotes(_bounded(exif), _bounded(xmp), _for_rgb(b"".join(parts[number] for number in sorted(parts))))


def _of_webp(data: bytes) -> FileNotes:
    (kind, first), *chunks = webp_chunks(data)
    if kind != b"VP8X" or not first:
        return FileNotes()
    found: dict[bytes, bytes] = {}
    for name, body in chunks:
        if first[0] & _WEBP_FLAGS.get(name, 0):
            found.setdefault(name, bytes(body[: _MOST_PROFILE + 1]))
    return FileNotes(
        _bounded(found.get(b"EXIF", b"")), _bounded(found.get(b"XMP ", b"")), _for_rgb(found.get(b"ICCP", b""))
    )


def _bounded(note: bytes) -> bytes:
    return note if len(note) <= _MOST else b""


def _for_rgb(profile: bytes) -> bytes:
    """A profile whose header says that it is whole and for RGB; a printer's or a grey one is not true of a result."""
    whole = len(profile) >= 128 and len(profile) <= _MOST_PROFILE and profile[36:40] == b"acsp"
    stated = int.from_bytes(profile[:4], "big")
    return profile if whole and stated == len(profile) and profile[16:20] == b"RGB " else b""


def _png_with(data: bytes, notes: FileNotes) -> Iterator[bytes | memoryview]:
    yield SIGNATURE
    own = set()
    dropped = (*((b"eXIf",) if notes.exif else ()), *(_SPACES if notes.profile else ()))
    chunks = list(png_chunks(data))
    for name, body in chunks:
        if name in _TEXTS:
            own.add(bytes(body[:_LONGEST_KEYWORD]).partition(b"\0")[0])
    for name, body in chunks:
        is_xmp = name == b"iTXt" and bytes(body[:18]) == b"XML:com.adobe.xmp\0"
        if name not in dropped and not (is_xmp and notes.xmp):
            yield from chunk(name, body)
        if name == b"IHDR":
            yield from _png_notes(notes, own)
    yield from chunk(b"IEND", b"")


def _png_notes(notes: FileNotes, own: set[bytes]) -> Iterator[bytes | memoryview]:
    if notes.profile:
        yield from chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(notes.profile))
    if notes.exif:
        yield from chunk(b"eXIf", notes.exif)
    if notes.xmp:
        yield from chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + notes.xmp)
    for name, body in notes.texts:
        if body.partition(b"\0")[0] not in own:
            yield from chunk(name, body)


def _jpeg_with(data: bytes, notes: FileNotes) -> Iterator[bytes]:
    mine = list(_jpeg_notes(notes))
    dropped = ((notes.exif, _EXIF), (notes.xmp, _XMP), (notes.xmp, _EXTENDED_XMP), (notes.profile, _PROFILE))
    starts = tuple(start for note, start in dropped if note)
    yield data[:2]
    is_first = True
    for marker, at, body in segments(data):
        if is_first and marker != _APP0:
            yield from mine
        if marker == _SCAN:
            yield data[at:]
            return
        if not (marker in (_APP1, _APP2) and body.startswith(starts)):
            yield from _segment(marker, body)
        if is_first and marker == _APP0:
            yield from mine
        is_first = False


def _jpeg_notes(notes: FileNotes) -> Iterator[bytes]:
    for start, note in ((_EXIF, notes.exif), (_XMP, notes.xmp)):
        if note and len(start) + len(note) <= _SEGMENT:
            yield from _segment(_APP1, start + note)
    room = _SEGMENT - len(_PROFILE) - 2
    parts = [notes.profile[at : at + room] for at in range(0, len(notes.profile), room)]
    if len(parts) <= 255:
        for number, part in enumerate(parts, 1):
            yield from _segment(_APP2, _PROFILE + bytes((number, len(parts))) + part)


def _segment(marker: int, body: bytes) -> tuple[bytes, bytes, bytes]:
    return bytes((0xFF, marker)), struct.pack(">H", len(body) + 2), body


def _webp_with(data: bytes, notes: FileNotes) -> bytes:
    chunks = webp_chunks(data)
    given = {b"ICCP": notes.profile, b"EXIF": notes.exif, b"XMP ": notes.xmp}
    mine = {name: memoryview(note) for name, note in given.items() if note}
    head = _webp_head(chunks)
    rest = [(name, body) for name, body in chunks if name != b"VP8X" and name not in mine]
    flags = head[0]
    for name in mine:
        flags |= _WEBP_FLAGS[name]
    first = [(b"VP8X", memoryview(bytes((flags,)) + head[1:]))]
    before = [(name, body) for name, body in mine.items() if name == b"ICCP"]
    after = [(name, body) for name, body in mine.items() if name != b"ICCP"]
    return riff([*first, *before, *rest, *after], b"\0")


def _webp_head(chunks: list[tuple[bytes, memoryview]]) -> bytes:
    """The body of the part that says what others there are, made where the file has none."""
    kind, first = chunks[0]
    if kind == b"VP8X":
        return bytes(first)
    parts = containers.read_webp(riff(chunks[:1], b"\0"), Limits())
    has_alpha = kind == b"VP8L" and struct.unpack_from("<I", first, 1)[0] >> 28 & 1
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (parts.width, parts.height))
    return bytes((_ALPHA if has_alpha else 0, 0, 0, 0)) + sides
