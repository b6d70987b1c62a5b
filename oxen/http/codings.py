"""How an answer is packed (Content-Encoding), and unpacking it in bounded pieces. Pure: bytes in, bytes out."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

ACCEPTED = "gzip, deflate"
_PIECE = 1 << 16
_GZIP = frozenset(["gzip", "x-gzip"])
# Not codings at all, though servers and stores write them where one belongs: the bytes are the file's own.
_NONE = frozenset(["", "identity", "none", "binary", "raw", "7bit", "8bit", "utf-8", "utf8", "aws-chunked"])
_DEFLATE = 8
_GZIP_WINDOW = 31
_MAX_EMPTY = 100


class PackedBadly(ValueError):
    """The bytes are not what their coding says, end early, or are packed in a way that nobody asked for."""


def codings(header: str) -> tuple[str, ...]:
    """The codings that a Content-Encoding header names, those left out that change nothing."""
    named = (name.strip().lower() for name in header.split(","))
    return tuple(name for name in named if name not in _NONE)


def known(header: str) -> bool:
    """Whether `Unpacker` can undo what the header names."""
    found = codings(header)
    return not found or (len(found) == 1 and (found[0] in _GZIP or found[0] == "deflate"))


class Unpacker:
    """Undoes one coding, piece by piece; no piece is longer than 64 KB, whatever it was packed into."""

    def __init__(self, header: str) -> None:
        """Raises PackedBadly for a coding that was not asked for: what unpacks without bounds is not unpacked."""
        if not known(header):
            raise PackedBadly("the answer is packed in a way that was not asked for")
        self._coding = next(iter(codings(header)), None)
        self._start = b""
        self._zip: Any = None
        self._members = 0
        self._half = False  # a further member of a gzip file has given something and not ended
        self._empty = 0
        self._over = False

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """What `data` unpacks to; raises PackedBadly."""
        if self._coding is None:
            if data:
                yield bytes(data)
            return
        for start in range(0, len(data), _PIECE):  # zlib copies what it has not come to yet, once for each piece
            yield from self._unpack(bytes(data[start : start + _PIECE]))

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        if self._zip is None:
            data = self._start = self._start + data
            if len(data) < 2:
                return
            self._zip = zlib.decompressobj(self._window(data))
        while data and not self._over:
            try:
                piece = self._zip.decompress(data, _PIECE)
            except zlib.error:
                if not self._members or self._half:
                    raise PackedBadly("what the answer is packed in is damaged") from None
                self._over = True  # what stands behind a whole file is no part of it
                return
            if piece:
                self._half = True
                yield piece
            data = self._zip.unconsumed_tail
            if self._zip.eof:
                data = self._zip.unused_data
                self._members += 1
                self._empty += not self._half
                if self._empty > _MAX_EMPTY:
                    raise PackedBadly("the answer is packed as very many files with nothing in them")
                self._half = False
                self._over = self._coding not in _GZIP
                self._zip = zlib.decompressobj(_GZIP_WINDOW)

    def end(self) -> Iterator[bytes]:
        """The rest, once all is fed; raises PackedBadly where the coding is not at its end."""
        if self._coding is None or (self._members and not self._half) or not (self._start or self._zip):
            return
        if self._zip is not None and (rest := self._zip.flush()):
            yield rest
        if self._zip is None or not self._zip.eof:
            raise PackedBadly("the answer ended early")

    def _window(self, start: bytes) -> int:
        """zlib's own sign for the format: gzip or zlib are told by their first bytes, plain deflate has none."""
        if self._coding in _GZIP:
            return _GZIP_WINDOW
        wrapped = start[0] & 15 == _DEFLATE and int.from_bytes(start[:2], "big") % 31 == 0
        return 15 if wrapped else -15
