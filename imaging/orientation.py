"""Which way up a picture belongs, 1 to 8 as Exif counts, from the notes that cameras and editors leave in a file.

Exif (JEITA CP-3451, tag 0x0112) comes first; XMP (tiff:Orientation) is asked only where Exif says nothing. So does
Pillow's `exif_transpose`, and so do viewers.
"""

from __future__ import annotations

import re
import struct

UPRIGHT = 1

_ORIENTATION = 0x0112
# Exif's types of whole numbers, with how each is read: SHORT, LONG, SBYTE, SSHORT, SLONG.
_NUMBERS = {3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """The orientation by an Exif block and an XMP packet; 1 (upright) where neither tells one, or is broken."""
    stated = _from_exif(exif)
    if stated is None and (found := _XMP.search(xmp)):
        stated = int(found[1])
    return stated if stated is not None and 1 <= stated <= 8 else UPRIGHT


def _from_exif(exif: bytes) -> int | None:
    """What the block's first directory says, 0 where that is no number; None where it says nothing."""
    for _ in range(2):
        exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(order + "HHI", exif, entry)
            if tag == _ORIENTATION and values > 0:
                return _number(exif, order, kind, values, entry + 8)
    except struct.error:
        pass
    return None


def _number(exif: bytes, order: str, kind: int, values: int, at: int) -> int:
    """The first of some values, which lie elsewhere in the block where four bytes do not hold them."""
    if kind not in _NUMBERS:
        return 0
    layout = order + _NUMBERS[kind]
    if values * struct.calcsize(layout) > 4:
        (at,) = struct.unpack_from(order + "I", exif, at)
    return int(struct.unpack_from(layout, exif, at)[0])
