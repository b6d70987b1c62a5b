"""Server-sent events from bytes, with no I/O in it.

Feed it whatever the socket gave; it yields whole events. Follows the HTML standard's event stream format:
UTF-8, lines ended by LF, CR or CRLF, comments, multi-line data. Fields that Oxen does not use (`id`, `retry`)
are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import UnexpectedReply

MAX_EVENT_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class ServerEvent:
    """One dispatched event: its name ("message" where none was given) and its data lines joined by newlines."""

    name: str
    data: str


class Decoder:
    """An incremental event-stream decoder.

    `max_bytes` bounds a single event, so that a hostile line cannot fill the memory.
    """

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._after_cr = False
        self._first_line = True
        self._name = ""
        self._data: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """The events that `chunk` completes, in order.

        Raises UnexpectedReply when one event grows beyond `max_bytes`.
        """
        for piece in self._lines(chunk):
            event = self._take(piece)
            if event is not None:
                yield event

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        parts = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for part in parts[:-1]:
            self._hold(part)
            line = bytes(self._line)
            self._line.clear()
            yield line
        self._hold(parts[-1])

    def _hold(self, part: bytes) -> None:
        if self._held + len(self._line) + len(part) > self._max_bytes:
            raise UnexpectedReply(f"The event stream sent an event of more than {self._max_bytes} bytes.")
        self._line += part

    def _take(self, line: bytes) -> ServerEvent | None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._held += len(value) + 1
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> ServerEvent | None:
        name, data = self._name or "message", self._data
        self._name, self._data, self._held = "", [], 0
        if not data:
            return None
        return ServerEvent(name, b"\n".join(data).decode("utf-8", "replace"))
