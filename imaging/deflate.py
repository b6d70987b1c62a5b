"""A zlib stream made of whole arrays at once: of single bytes or of runs, whichever suits a strip.

Filtered photographs hold next to no repeats, so zlib's search for them is wasted, and its bit-by-bit output is
the rest of the time. Here one Huffman code serves the whole picture, and pairs of bytes are looked up at once. Strips
that do repeat themselves, as those of drawings, are taken as runs of one byte: to find them takes one look at each, and
little remains to be coded. Either way whole arrays of codes are shifted into 64-bit words.
Formats: RFC 1950 (zlib), RFC 1951 (deflate).
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .pixels import UInt8

UInt64 = NDArray[np.uint64]

# What is made of a strip on the way stays in a core's cache, and outweighs the calls that it takes.
_STRIP_BYTES = 1 << 18
# Runs are taken as many at a time.
_RUNS_AT_ONCE = 1 << 15
# So many of these are counted, and a few more.
_RUNS_COUNTED = 1 << 13
# Every 23rd byte is enough to make a code from.
_SAMPLED = 23
# So many bytes are looked at in every so many, to tell whether a strip repeats itself.
_LOOKED_AT, _OF = 512, 2053
# One in so many that differs from the byte before it is where runs and single bytes take equally long.
_BREAKS = 5
# RFC 1950: deflate with a 32 KiB window, fastest.
_ZLIB_HEADER = b"\x78\x01"
_END = 256
# Four codes at a time must fit a 64-bit word; deflate itself allows 15.
_LONGEST = 15
_LENGTHS_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
# RFC 1951, 3.2.5: how far a repeat goes. The symbols of that follow the end mark, each with so many bits behind it; the
# last stands for the farthest alone.
_NEAREST, _FARTHEST = 3, 258
_BITS_BEHIND = (*[0] * 8, *[bits for bits in range(1, 6) for _ in range(4)], 0)
_SYMBOLS = _END + 1 + len(_BITS_BEHIND)
# An entry of a table is a code, and below it in so many bits its size.
_SIZE_BITS = np.uint64(6)
_SIZE = np.uint64(63)

# A byte in the lowest bits, and above it what follows: a length of a repeat, or an index of one byte more or of two. A
# byte of _NONE is none: a long run goes on.
Runs: TypeAlias = "NDArray[np.intp]"
_VALUE_BITS = 9
_VALUE = 511
_NONE = 256
_ONE_MORE = _FARTHEST + 1
_TWO_MORE = _ONE_MORE + 256


def compress(raw: UInt8) -> bytes:
    """The bytes of an array of any shape as one zlib stream, which any inflater reads."""
    raw = np.ascontiguousarray(raw).reshape(-1)
    whole = len(raw) // 4 * 4
    strips = [raw[at : min(at + _STRIP_BYTES, whole)] for at in range(0, whole, _STRIP_BYTES)]
    kinds = list(map(_repeats_itself, strips))
    pairs = None if all(kinds) else _Pairs(list(itertools.compress(strips, (not repeats for repeats in kinds))))
    bits = _Bits()
    for repeats, alike in itertools.groupby(zip(kinds, strips, strict=True), lambda one: one[0]):
        group = (strip for _, strip in alike)
        if repeats or pairs is None:
            _put_runs(group, bits)
        else:
            pairs.put(group, bits)
    rest = raw[whole:].tobytes()
    bits.put_number(1, 3)  # the last block, and stored
    last = struct.pack("<HH", len(rest), len(rest) ^ 0xFFFF) + rest
    return b"".join((_ZLIB_HEADER, *bits.ended(), last, struct.pack(">I", zlib.adler32(raw.data))))


def _repeats_itself(raw: UInt8) -> bool:
    """Whether a strip is sooner packed as runs, by a look at a quarter of it."""
    looked_at = raw[: len(raw) // _OF * _OF].reshape(-1, _OF)[:, :_LOOKED_AT] if len(raw) >= _OF else raw[None]
    breaks = np.count_nonzero(looked_at[:, 1:] != looked_at[:, :-1])
    return bool(breaks * _BREAKS < looked_at.size)


class _Bits:
    """A stream of bits, each byte's lowest first."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._begun = self._used = 0
        self._room = np.empty((2, 0), np.uint64)

    def put_number(self, value: int, size: int) -> None:
        """A number of no more than `size` bits."""
        value, size = self._begun | value << self._used, self._used + size
        whole = size // 64 * 8
        self._parts.append((value & ((1 << 8 * whole) - 1)).to_bytes(whole, "little"))
        self._begun, self._used = value >> 8 * whole, size % 64

    def put(self, codes: UInt64, sizes: UInt64) -> None:
        """Codes of 1 to 63 bits, one after the other; the sizes are overwritten."""
        if self._room.shape[1] <= len(codes):
            self._room = np.empty((2, len(codes) + 1), np.uint64)
        begins, words = self._room[:, : len(codes) + 1]
        sizes[0] += np.uint64(self._used)
        begins[0] = self._used
        np.cumsum(sizes, out=begins[1:])
        end = int(begins[-1])
        np.right_shift(begins, _SIZE_BITS, out=words)
        words[-1] += np.uint64(1)
        # No code fills a word, so one begins in each word and only a word's last one reaches into the next.
        lasts = np.flatnonzero(words[1:] != words[:-1])
        begins = np.bitwise_and(begins, _SIZE, out=begins)[:-1]
        # Codes lie side by side, so that what a word holds is their sum; summed up all at once, the words differ by it.
        sums = np.cumsum(np.left_shift(codes, begins, out=sizes), out=words[:-1]).take(lasts)
        packed = np.zeros(len(lasts) + 1, np.uint64)
        packed[0] = sums[0] + np.uint64(self._begun)
        np.subtract(sums[1:], sums[:-1], out=packed[1:-1])
        packed[1:] |= codes.take(lasts) >> np.uint64(1) >> (_SIZE - begins.take(lasts))
        self._parts.append(packed[: end >> 6].astype("<u8", copy=False).tobytes())
        self._begun, self._used = int(packed[end >> 6]), end & 63

    def ended(self) -> list[bytes]:
        """All of it, the last byte filled up."""
        return [*self._parts, self._begun.to_bytes((self._used + 7) // 8, "little")]


@dataclass(frozen=True)
class _Code:
    """A Huffman code of bytes, the end mark and perhaps of repeats.

    sizes: bits of each symbol's code, 0 for one that has none. entries: codes and sizes in one.
    """

    sizes: list[int]
    entries: UInt64

    @classmethod
    def of(cls, sizes: list[int]) -> _Code:
        """The canonical code (RFC 1951, 3.2.2), its bits reversed because deflate sends a code's top bit first."""
        size = np.array(sizes, np.uint64)
        order = np.argsort(size, kind="stable")[np.count_nonzero(size == 0) :]
        takes = np.uint64(1) << np.uint64(16) - size[order]
        topmost = (np.cumsum(takes) - takes).astype(">u2")
        entries = np.zeros(len(sizes), np.uint64)
        entries[order] = np.packbits(np.unpackbits(topmost.view(np.uint8)), bitorder="little").view("<u2")
        return cls(sizes, entries << _SIZE_BITS | size)

    def put_header(self, bits: _Bits) -> None:
        """What a dynamic block starts with: every size in 4 bits, no repeats."""
        fields = [(0, 1), (2, 2), (len(self.sizes) - 257, 5), (1, 5), (len(_LENGTHS_ORDER) - 4, 4)]
        fields += [(4 if symbol <= _LONGEST else 0, 3) for symbol in _LENGTHS_ORDER]
        # Two distances of one bit: a complete code is what every inflater accepts. The first means the byte before.
        fields += [(_REVERSED[size], 4) for size in (*self.sizes, 1, 1)]
        header, at = 0, 0
        for value, size in fields:
            header |= value << at
            at += size
        bits.put_number(header, at)

    def put_end(self, bits: _Bits) -> None:
        bits.put_number(int(self.entries[_END]) >> int(_SIZE_BITS), self.sizes[_END])


_REVERSED = [int(f"{number:04b}"[::-1], 2) for number in range(16)]


def code_lengths(counts: list[int]) -> list[int]:
    """Huffman code lengths, 1 to 15 bits, one for each count of two or more."""
    # What was not seen gets a code too: the counts may be a sample, and the end mark is in no count.
    least = max(1, sum(counts) >> _LONGEST)
    weights = [max(least, count) for count in counts]
    leaves = len(weights)
    while True:
        order = sorted(range(leaves), key=weights.__getitem__)
        # Both lists ascend, so that the lightest two stand in front; nodes are numbered as they come, leaves first.
        light = [*(weights[symbol] for symbol in order), math.inf]
        joined: list[float] = []
        parents = [0] * (2 * leaves - 1)
        leaf = inner = 0
        for node in range(leaves, 2 * leaves - 1):
            weight = 0.0
            for _ in range(2):
                if inner == len(joined) or light[leaf] <= joined[inner]:
                    weight += light[leaf]
                    parents[leaf] = node
                    leaf += 1
                else:
                    weight += joined[inner]
                    parents[leaves + inner] = node
                    inner += 1
            joined.append(weight)
        depths = [0] * len(parents)
        for node in range(len(parents) - 2, -1, -1):
            depths[node] = depths[parents[node]] + 1
        if max(depths) <= _LONGEST:
            lengths = [0] * leaves
            for symbol, depth in zip(order, depths, strict=False):
                lengths[symbol] = depth
            return lengths
        weights = [(weight + 1) // 2 for weight in weights]


class _Pairs:
    """Blocks of single bytes: by one code, made from a look at all of them. Two are looked up at once."""

    def __init__(self, strips: Sequence[UInt8]) -> None:
        seen = np.concatenate([strip[::_SAMPLED] for strip in strips])
        self._code = _Code.of(code_lengths(np.bincount(seen, minlength=_END + 1).tolist()))
        one = self._code.entries[:_END]
        size = one & _SIZE
        # The first of two bytes is the lower half of the index.
        two = (one >> _SIZE_BITS)[:, None] << (size + _SIZE_BITS)[None, :]
        two += one[None, :]
        two += size[:, None]
        self._two = two.reshape(-1)

    def put(self, strips: Iterable[UInt8], bits: _Bits) -> None:
        """A block of strips of up to _STRIP_BYTES, each a multiple of 4."""
        self._code.put_header(bits)
        room, indices = np.empty((3, _STRIP_BYTES // 4), np.uint64), np.empty(_STRIP_BYTES // 4, np.intp)
        for strip in strips:
            twos = strip.view("<u2").reshape(-1, 2)
            first, second, sizes = room[:, : len(twos)]
            index = indices[: len(twos)]
            for half, entries in enumerate((first, second)):
                index[:] = twos[:, half]
                self._two.take(index, out=entries, mode="wrap")  # without a mode it would go by way of a copy
            np.add(first, second, out=sizes)
            sizes &= _SIZE
            bits.put(_joined(first, second), sizes)
        self._code.put_end(bits)


def _joined(first: UInt64, second: UInt64) -> UInt64:
    """The codes of two arrays of entries as one each, in the place of the first; the second is overwritten."""
    second >>= _SIZE_BITS
    second <<= first & _SIZE
    first >>= _SIZE_BITS
    first |= second
    return first


def _put_runs(strips: Iterable[UInt8], bits: _Bits) -> None:
    """A block of strips as runs, by a code of what occurs in them."""
    runs = list(_runs(strips))
    code = _Code.of(code_lengths(np.sum(list(map(_counts, runs)), axis=0).tolist()))
    code.put_header(bits)
    values, follows = np.append(code.entries[:_END], np.uint64(0)), _follows(code.entries)
    for some in runs:
        first, second = values.take(some & _VALUE), follows.take(some >> _VALUE_BITS)
        sizes = first + second
        sizes &= _SIZE
        bits.put(_joined(first, second), sizes)
    code.put_end(bits)


def _runs(strips: Iterable[UInt8]) -> Iterator[Runs]:
    """The runs of all strips, many at a time; none goes on from one strip to the next."""
    found: list[Runs] = []
    for strip in strips:
        begins = _begins(strip)
        lengths = np.empty_like(begins)
        np.subtract(begins[1:], begins[:-1], out=lengths[:-1])
        lengths[-1] = len(strip) - begins[-1]
        lengths <<= _VALUE_BITS
        lengths += strip.take(begins)
        found.append(lengths)
        if sum(map(len, found)) >= _RUNS_AT_ONCE:
            yield _split(np.concatenate(found))
            found = []
    if found:
        yield _split(np.concatenate(found))


def _begins(strip: UInt8) -> NDArray[np.intp]:
    """Where runs begin: at 0, and where a byte differs from the one before. Eight are passed over at once."""
    differs = np.empty(-(-len(strip) // 8) * 8, bool)
    differs[len(strip) - 1 :] = False
    np.not_equal(strip[1:], strip[:-1], out=differs[: len(strip) - 1])
    eights = differs.view(np.uint64)
    some = np.flatnonzero(eights != 0)
    at = np.flatnonzero(eights.take(some).view(bool))
    begins = np.empty(len(at) + 1, np.intp)
    begins[0] = 0
    some <<= 3
    some += 1
    np.add(some.take(at >> 3), at & 7, out=begins[1:])
    return begins


def _split(runs: Runs) -> Runs:
    """Runs by their lengths, as bytes and what follows each."""
    more = runs >> _VALUE_BITS
    more -= 1
    long = np.flatnonzero(more > _FARTHEST)
    whole = (more[long] - 1) // _FARTHEST
    more[long] -= whole * _FARTHEST
    runs &= _VALUE
    short = np.flatnonzero((more - 1).view(np.uintp) < 2)
    more[short] = np.where(more[short] == 1, _ONE_MORE, _TWO_MORE) + runs[short]
    more <<= _VALUE_BITS
    runs |= more
    return np.insert(runs, np.repeat(long + 1, whole), _FARTHEST << _VALUE_BITS | _NONE) if len(long) else runs


def _counts(runs: Runs) -> NDArray[np.intp]:
    """About how often each symbol occurs in runs."""
    step = 1 + len(runs) // _RUNS_COUNTED
    runs = runs[::step]
    follows = np.bincount(runs >> _VALUE_BITS, minlength=_TWO_MORE + 256)
    counts = np.bincount(runs & _VALUE, minlength=_SYMBOLS)
    counts[_END] = 0
    counts[:_END] += follows[_ONE_MORE:_TWO_MORE] + 2 * follows[_TWO_MORE:]
    np.add.at(counts, _LENGTHS[:, 0], follows[_NEAREST:_ONE_MORE])
    return counts * step


def _follows(entries: UInt64) -> UInt64:
    """What may follow a byte, as entries: repeats by their length, each byte once, and each byte twice."""
    _, behind, bits = _LENGTHS.T.astype(np.uint64)
    length = entries[_LENGTHS[:, 0]]
    size = length & _SIZE
    # The bit above says where from: the byte before.
    lengths = (length >> _SIZE_BITS | behind << size) << _SIZE_BITS | size + bits + np.uint64(1)
    ones = entries[:_END]
    size = ones & _SIZE
    twos = (ones >> _SIZE_BITS << size + _SIZE_BITS) + ones + size
    return np.concatenate([np.zeros(_NEAREST, np.uint64), lengths, ones, twos])


def _lengths() -> NDArray[np.intp]:
    """Of each length of a repeat its symbol, and the number behind that with its bits."""
    rows = []
    for symbol, bits in enumerate(_BITS_BEHIND, _END + 1):
        rows += [(symbol, number, bits) for number in range(1 << bits)]
    return np.array([*rows[: _FARTHEST - _NEAREST], rows[-1]], np.intp)


_LENGTHS = _lengths()
