"""A PNG writer for speed: a filter chosen at a glance, and deflate.py instead of zlib.

Pillow's default spends its time on trying five filters for every row and on searching for repeats. Photographs
have none: the `up` filter and a Huffman code alone give files of the same size in less than a tenth of the time
(benchmarks/encoding.py). Drawings do, in rows like the one above, or in pixels like the one to the left where colours
run from top to bottom: those rows take the `sub` filter. Any PNG reader opens the result.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from . import deflate
from .pixels import UInt8

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_COLOUR_TYPE = {1: 0, 3: 2, 4: 6}
_FILTER_SUB, _FILTER_UP = 1, 2
# Every 37th byte of a row tells whether its pixels are like the ones above or to the left: of each channel as many.
_SAMPLED = 37
# One pixel in so many may differ from the one to the left.
_FEW = 4
# Rows are looked at in blocks that stay in a core's cache.
_LOOK_BYTES = 1 << 18
# Bytes of the signature and of the first chunk, after which a text is found before any pixel is read.
_FIRST = 33


def write_png(pixels: UInt8) -> bytes:
    """The pixels [H,W,C], C 1, 3 or 4, as a PNG of 8 bits a channel, losslessly (colour under alpha 0 too)."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPE[channels], 0, 0, 0)
    data = deflate.compress(_filtered(np.ascontiguousarray(pixels)))
    return b"".join((SIGNATURE, *chunk(b"IHDR", header), *chunk(b"IDAT", data), *chunk(b"IEND", b"")))


def with_text(data: bytes, keyword: str, text: str) -> bytes:
    """A PNG with a text chunk more, for programs that show such; what is no PNG is given back as it is.

    keyword: 1 to 79 characters of ASCII, as PNG registers them. text: what Latin-1 lacks becomes a question mark.
    """
    if not data.startswith(SIGNATURE):
        return data
    added = chunk(b"tEXt", keyword.encode("ascii") + b"\0" + text.encode("latin-1", "replace"))
    return b"".join((data[:_FIRST], *added, data[_FIRST:]))


def _filtered(pixels: UInt8) -> UInt8:
    """Each row less the row above it, or each pixel of it less the one to the left (modulo 256), led by the filter."""
    channels = pixels.shape[2]
    rows = pixels.reshape(len(pixels), -1)
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _FILTER_UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    for first, end in _sideways(rows, channels):
        filtered[first:end, 0] = _FILTER_SUB
        filtered[first:end, 1 : 1 + channels] = rows[first:end, :channels]
        np.subtract(rows[first:end, channels:], rows[first:end, :-channels], out=filtered[first:end, 1 + channels :])
    return filtered


def _sideways(rows: UInt8, channels: int) -> NDArray[np.intp]:
    """From where to where rows are nearly all like the pixel to the left, and more so than like the row above."""
    few = np.zeros(len(rows), bool)
    step = max(1, _LOOK_BYTES // rows.shape[1])
    for top in range(1, len(rows), step):
        block = rows[top : top + step]
        left = np.count_nonzero(block[:, channels::_SAMPLED] != block[:, :-channels:_SAMPLED], axis=1)
        if (left * _FEW < block.shape[1] // _SAMPLED).any():
            above = rows[top - 1 : top - 1 + len(block)]
            up = np.count_nonzero(block[:, channels::_SAMPLED] != above[:, channels::_SAMPLED], axis=1)
            few[top : top + step] = (left * _FEW < block.shape[1] // _SAMPLED) & (left < up)
    return np.flatnonzero(np.diff(few, prepend=False, append=False)).reshape(-1, 2)


def chunk(name: bytes, data: bytes | memoryview) -> tuple[bytes, bytes, bytes | memoryview, bytes]:
    """A chunk's length, name, body and checksum."""
    return struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
