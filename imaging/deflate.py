"""A zlib stream by Huffman coding alone, vectorised: all that filtered photographs need, and twice as fast.

Filtered photographs hold next to no repeats, so zlib's search for them is wasted, and its bit-by-bit output is
the rest of the time. Here one code serves the whole picture, pairs of bytes are looked up at once, and whole
arrays of codes are shifted into 64-bit words. Strips that do repeat themselves, as those of drawings, go to zlib's
run-length strategy, which is fast on such data and packs it far better. Formats: RFC 1950 (zlib), RFC 1951 (deflate).
"""

from __future__ import annotations

import heapq
import itertools
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .pixels import UInt8

UInt64 = NDArray[np.uint64]

# Small enough for a core's cache, large enough for the 139 bytes of a header not to matter.
_STRIP_BYTES = 1 << 18
# Every 23rd byte is enough to make a code from.
_SAMPLED = 23
# So many bytes are looked at in every so many, to tell whether a strip repeats itself.
_LOOKED_AT, _OF = 512, 2053
# One in so many that differs from the byte before it is where zlib's run length and a code take equally long.
_BREAKS = 4
# RFC 1950: deflate with a 32 KiB window, fastest.
_ZLIB_HEADER = b"\x78\x01"
_END = 256
# Four codes at a time must fit a 64-bit word; deflate itself allows 15.
_LONGEST = 15
# Ends a strip on a byte: an empty stored block (3 bits of type, padding, then this).
_EMPTY_STORED = b"\0\0\xff\xff"
_LENGTH_AT = np.uint64(32)
_CODE_BITS = np.uint64(0xFFFFFFFF)
_LENGTHS_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)


@dataclass(frozen=True)
class _Code:
    """One Huffman code, shared by all strips.

    pairs: for each two bytes (the first in the low half of the index) their codes in bits 0-29 and the codes'
    summed length from bit 32 up. header, header_bits: a dynamic block's header as a number.
    """

    pairs: UInt64
    header: int
    header_bits: int
    end: int
    end_bits: int


def compress(raw: UInt8) -> bytes:
    """The bytes of an array of any shape as one zlib stream, which any inflater reads."""
    raw = np.ascontiguousarray(raw).reshape(-1)
    whole = len(raw) // 4 * 4
    strips = [raw[at : min(at + _STRIP_BYTES, whole)] for at in range(0, whole, _STRIP_BYTES)]
    packed: list[bytes] = []
    code: _Code | None = None
    for repeats, alike in itertools.groupby(strips, _repeats_itself):
        if repeats:
            packed.append(_run_lengths(list(alike)))
            continue
        for strip in alike:
            code = code or _make_code(raw)
            packed.append(_finish(*_pack(strip, code.pairs, code.header_bits), code))
    rest = raw[whole:].tobytes()
    last = struct.pack("<BHH", 1, len(rest), len(rest) ^ 0xFFFF) + rest
    return b"".join((_ZLIB_HEADER, *packed, last, struct.pack(">I", zlib.adler32(raw.data))))


def _repeats_itself(raw: UInt8) -> bool:
    """Whether zlib's run lengths are the faster way to pack a strip, by a look at a quarter of it."""
    looked_at = raw[: len(raw) // _OF * _OF].reshape(-1, _OF)[:, :_LOOKED_AT] if len(raw) >= _OF else raw[None]
    breaks = np.count_nonzero(looked_at[:, 1:] != looked_at[:, :-1])
    return bool(breaks * _BREAKS < looked_at.size)


def _run_lengths(strips: Sequence[UInt8]) -> bytes:
    """Deflate blocks, none of them final, ending on a byte."""
    deflater = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return b"".join((*(deflater.compress(strip.data) for strip in strips), deflater.flush(zlib.Z_SYNC_FLUSH)))


def _make_code(raw: UInt8) -> _Code:
    counts = np.bincount(raw[::_SAMPLED], minlength=_END + 1)
    lengths = code_lengths(counts.tolist())
    codes = _codes(lengths)
    header, header_bits = _block_header(lengths)
    code, length = np.array(codes[:_END], np.uint64), np.array(lengths[:_END], np.uint64)
    pairs = code[None, :] | code[:, None] << length[None, :] | (length[None, :] + length[:, None]) << _LENGTH_AT
    return _Code(pairs.reshape(-1), header, header_bits, codes[_END], lengths[_END])


def code_lengths(counts: list[int]) -> list[int]:
    """Huffman code lengths, 1 to 15 bits, for 256 byte values and the end mark."""
    # A byte that was not seen gets a code too: the counts may be a sample, and the end mark is in no count.
    weights = [max(1, count) for count in counts]
    while True:
        heap: list[tuple[int, int]] = [(weight, symbol) for symbol, weight in enumerate(weights)]
        parents = [0] * (2 * len(weights) - 1)
        heapq.heapify(heap)
        for node in range(len(weights), len(parents)):
            left, a = heapq.heappop(heap)
            right, b = heapq.heappop(heap)
            parents[a] = parents[b] = node
            heapq.heappush(heap, (left + right, node))
        depths = [0] * len(parents)
        for node in range(len(parents) - 2, -1, -1):
            depths[node] = depths[parents[node]] + 1
        if max(depths) <= _LONGEST:
            return depths[: len(weights)]
        weights = [(weight + 1) // 2 for weight in weights]


def _codes(lengths: list[int]) -> list[int]:
    """Canonical codes (RFC 1951, 3.2.2), bits reversed because deflate sends a code's top bit first."""
    code, previous = 0, 0
    codes = [0] * len(lengths)
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths)):
        code <<= length - previous
        codes[symbol] = int(f"{code:0{length}b}"[::-1], 2)
        code, previous = code + 1, length
    return codes


def _block_header(lengths: list[int]) -> tuple[int, int]:
    """A dynamic block's header as a number and its length in bits: every code length in 4 bits, no repeats."""
    fields = [(0, 1), (2, 2), (len(lengths) - 257, 5), (1, 5), (len(_LENGTHS_ORDER) - 4, 4)]
    fields += [(4 if symbol <= _LONGEST else 0, 3) for symbol in _LENGTHS_ORDER]
    # Two distance codes of one bit, never used: a complete code is what every inflater accepts.
    fields += [(int(f"{length:04b}"[::-1], 2), 4) for length in (*lengths, 1, 1)]
    header, bits = 0, 0
    for value, size in fields:
        header |= value << bits
        bits += size
    return header, bits


def _pack(raw: UInt8, pairs: UInt64, start: int) -> tuple[UInt64, int]:
    """The codes of all bytes as 64-bit words, the first of them `start` bits in, and where they end."""
    twos = pairs.take(raw.view("<u2"))
    sizes = twos >> _LENGTH_AT
    twos &= _CODE_BITS
    fours = twos[1::2] << sizes[::2]
    fours |= twos[::2]
    ends = np.cumsum(sizes[::2] + sizes[1::2]) + np.uint64(start)
    begins = np.empty_like(ends)
    begins[0], begins[1:] = start, ends[:-1]
    word = begins >> np.uint64(6)
    begins &= np.uint64(63)
    # No four codes fill a word, so one begins in each word and only a word's last one reaches into the next.
    lasts = np.append(np.flatnonzero(word[1:] != word[:-1]), len(fours) - 1)
    words = np.zeros(int(ends[-1] >> np.uint64(6)) + 2, np.uint64)
    at = start >> 6
    # Codes lie side by side, so that what a word holds is their sum; summed up all at once, the words differ by it.
    sums = np.cumsum(fours << begins)[lasts]
    words[at : at + len(lasts)] = np.diff(sums, prepend=np.uint64(0))
    words[at + 1 : at + 1 + len(lasts)] |= fours[lasts] >> np.uint64(1) >> (np.uint64(63) - begins[lasts])
    return words, int(ends[-1])


def _finish(words: UInt64, bits: int, code: _Code) -> bytes:
    """The words with the header in front, the end mark behind, and the strip's byte-aligned end."""
    size = (bits + code.end_bits + 3 + 7) // 8
    packed = np.zeros(size, np.uint8)
    used = words.astype("<u8", copy=False).view(np.uint8)[:size]
    packed[: len(used)] = used
    for at, value in ((0, code.header), (bits >> 3, code.end << (bits & 7))):
        patch = np.frombuffer(value.to_bytes((value.bit_length() + 7) // 8, "little"), np.uint8)
        packed[at : at + len(patch)] |= patch
    return packed.tobytes() + _EMPTY_STORED
