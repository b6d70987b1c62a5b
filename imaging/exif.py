"""Exif and XMP of a picture made true of what an edit made of it.

Exif (JEITA CP-3451) is changed where it stands, byte for byte: what lies at the offsets of a camera's own notes stays
where these look for it. Changed are the orientation, which the pixels have been turned by, the sizes, the colour space,
and what holds a workflow of ComfyUI; the small picture of before goes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

# What the JSON of a workflow has, in either of ComfyUI's formats.
_WORKFLOW = re.compile(rb'"class_type"\s*:|"last_node_id"\s*:|"widgets_values"\s*:')
_WIDTH, _HEIGHT, _ORIENTATION, _EXIF, _INTEROP = 0x0100, 0x0101, 0x0112, 0x8769, 0xA005
_SPACE, _ACROSS, _DOWN = 0xA001, 0xA002, 0xA003
_THUMBNAIL, _THUMBNAIL_BYTES = 0x0201, 0x0202
_SRGB = 1
# Bytes of one value of each of Exif's types, and those that hold text.
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TEXTS = (1, 2, 7)
_SHORT, _LONG = 3, 4


def is_workflow(text: bytes) -> bool:
    """Whether a text, in whatever encoding, holds a workflow of ComfyUI."""
    return bool(_WORKFLOW.search(text.replace(b"\0", b"")))


@dataclass(frozen=True)
class _Entry:
    at: int
    tag: int
    kind: int
    count: int


class _Block:
    """A TIFF block that is being changed; all raise struct.error where it ends too early."""

    def __init__(self, exif: bytes) -> None:
        self.data = bytearray(exif)
        self._order = {b"II": "<", b"MM": ">"}[exif[:2]]

    def number(self, at: int, layout: str = "I") -> int:
        return int(struct.unpack_from(self._order + layout, self.data, at)[0])

    def entries(self, directory: int) -> Iterator[_Entry]:
        for place in range(self.number(directory, "H")):
            at = directory + 2 + 12 * place
            yield _Entry(at, self.number(at, "H"), self.number(at + 2, "H"), self.number(at + 4))

    def after(self, directory: int) -> int:
        """Where it is said which directory follows."""
        return directory + 2 + 12 * self.number(directory, "H")

    def set_number(self, entry: _Entry, value: int) -> None:
        kind = _SHORT if entry.kind == _SHORT and value < 1 << 16 else _LONG
        self.data[entry.at + 8 : entry.at + 12] = bytes(4)
        layout = "HIH" if kind == _SHORT else "HII"
        struct.pack_into(self._order + layout, self.data, entry.at + 2, kind, 1, value)

    def set_pointer(self, at: int, value: int) -> None:
        struct.pack_into(self._order + "I", self.data, at, value)

    def text(self, entry: _Entry) -> slice:
        """Where the bytes of a value stand."""
        length = _BYTES.get(entry.kind, 0) * entry.count
        at = entry.at + 8 if length <= 4 else self.number(entry.at + 8)
        return slice(at, at + length)


def exif_of(exif: bytes, width: int, height: int, *, own_space: bool) -> bytes:
    """An Exif block as it is true of a result of this size; empty where it is broken.

    own_space: the result is in the colour space that the block tells of; otherwise in sRGB.
    """
    for _ in range(2):
        exif = exif.removeprefix(b"Exif\0\0")
    if exif[:2] not in (b"II", b"MM"):
        return b""
    block = _Block(exif)
    try:
        first = block.number(4)
        for entry in list(block.entries(first)):
            _mend(block, entry, width, height, own_space=own_space)
            if entry.tag == _EXIF:
                for inner in list(block.entries(block.number(entry.at + 8))):
                    _mend(block, inner, width, height, own_space=own_space)
        _without_thumbnail(block, first)
    except struct.error:
        return b""
    return bytes(block.data)


def _mend(block: _Block, entry: _Entry, width: int, height: int, *, own_space: bool) -> None:
    numbers = {_ORIENTATION: 1, _WIDTH: width, _HEIGHT: height, _ACROSS: width, _DOWN: height}
    if entry.tag in numbers:
        block.set_number(entry, numbers[entry.tag])
    elif entry.tag == _SPACE and not own_space:
        block.set_number(entry, _SRGB)
    elif entry.tag == _INTEROP and not own_space:
        for inner in block.entries(block.number(entry.at + 8)):
            if inner.tag == 1 and block.data[inner.at + 8 : inner.at + 11] == b"R03":  # Adobe RGB
                block.data[inner.at + 8 : inner.at + 11] = b"R98"
    elif entry.kind in _TEXTS and is_workflow(bytes(block.data[(place := block.text(entry))])):
        block.data[place] = bytes(len(block.data[place]))


def _without_thumbnail(block: _Block, first: int) -> None:
    after = block.after(first)
    second = block.number(after)
    if not second:
        return
    found = {entry.tag: block.number(entry.at + 8) for entry in block.entries(second)}
    begin, length = found.get(_THUMBNAIL, 0), found.get(_THUMBNAIL_BYTES, 0)
    small = slice(begin, begin + length)
    block.data[small] = bytes(len(block.data[small]))
    block.set_pointer(after, 0)


def xmp_of(xmp: bytes, width: int, height: int, *, own_space: bool) -> bytes:
    """An XMP packet as it is true of a result of this size; empty where it holds what cannot be taken out."""
    if is_workflow(xmp):
        return b""
    told = {
        b"tiff:Orientation": b"1",
        b"tiff:ImageWidth": b"%d" % width,
        b"tiff:ImageLength": b"%d" % height,
        b"exif:PixelXDimension": b"%d" % width,
        b"exif:PixelYDimension": b"%d" % height,
        b"xmpNote:HasExtendedXMP": b"",
    }
    if not own_space:
        told |= {b"exif:ColorSpace": b"1", b"photoshop:ICCProfile": b"sRGB IEC61966-2.1"}
    for name, value in told.items():
        xmp = re.sub(rb"""(\s%s\s*=\s*)(["'])[^"'<>]*\2""" % name, rb"\g<1>\g<2>%s\g<2>" % value, xmp)
        xmp = re.sub(rb"(<%s(?:\s[^<>]*)?>)[^<>]*(?=</%s>)" % (name, name), rb"\g<1>%s" % value, xmp)
    return _without_thumbnails(xmp)


def _without_thumbnails(xmp: bytes) -> bytes:
    begin, end = b"<xmp:Thumbnails", b"</xmp:Thumbnails>"
    kept = []
    at = 0
    while (start := xmp.find(begin, at)) >= 0:
        stop = xmp.find(end, start)
        if stop < 0:
            return b""
        kept.append(xmp[at:start])
        at = stop + len(end)
    return b"".join((*kept, xmp[at:]))
