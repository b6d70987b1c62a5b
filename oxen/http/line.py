"""The way of one request over the network: what bounds the bytes that come, in number and in time, and who may end it.

A socket's own timeout starts again with every byte, and Python's HTTP reader goes on by itself through status lines,
headers, chunk sizes and trailers for as long as any come. So every byte of an answer passes a `Line`, whatever part of
it the reader takes it for; and as the line knows the socket, another thread can end the request in any of its phases.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from ..control import Deadline

# Of a status line, headers and interim answers, all together; also what a body's framing may take on top of it.
HEADER_BYTES = 1 << 19
# What may still be taken once the time is over, if it is there already: an answer that has come is not thrown away.
LATE_BYTES = 4 << 20
_NO_WAIT = 0.001
# Two numbers: whether to linger, and for how many seconds.
_LINGER = "HH" if sys.platform == "win32" else "ii"


class Cut(ConnectionAbortedError):
    """The request was ended from outside."""


class TooLong(http.client.HTTPException):
    """More came than an answer of its kind may have."""


class Line:
    """One request; a context manager for the thread that makes it, whose connections find it by `current`.

    seconds: for the status line and headers of the answer, and for its body as well unless `until` is changed
    between the two. overall: bounds everything from connecting on. stall: the longest wait for a next byte.
    drops: what the system has not delivered when the request is given up, or its program killed, it never delivers:
    by itself it would go on for minutes, once a line that is down is up again.
    begun: whether a byte of the request was handed to the network.
    """

    def __init__(self, seconds: float, overall: Deadline | None = None, *, drops: bool = False) -> None:
        self.seconds = seconds
        self.overall = overall
        self.stall = seconds
        self.until: Deadline | None = None
        self.room: int | None = None
        self.begun = False
        self._drops = drops
        self._late = 0
        self._guard = threading.Lock()
        self._sock: socket.socket | None = None
        self._cut = False
        self._outer: Line | None = None

    def __enter__(self) -> Line:
        self._outer = current()
        _here.line = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _here.line = self._outer
        self._drops &= error is None  # the connection of one that failed is closed, now or when it is forgotten
        self.hold(None)  # its connection may be another request's from here on

    @property
    def was_cut(self) -> bool:
        return self._cut

    def cut(self) -> None:
        """End the request, from any thread; its own finds the connection broken, and `was_cut` true."""
        with self._guard:
            self._cut = True
            _shut(self._sock)

    def hold(self, sock: Any) -> None:
        """Note the socket that is in use now."""
        with self._guard:
            held, self._sock = self._sock, _plain(sock)
            if self._drops and held is not self._sock:
                _set_to_drop(held, False)
                _set_to_drop(self._sock, True)
            if self._cut:
                _shut(self._sock)

    def check(self) -> None:
        """Raise Cut where the request was ended."""
        if self._cut:
            raise Cut("the request was ended")

    def answer_begins(self) -> None:
        """Give the status line and headers that come now their time and their room."""
        self.until = Deadline(self.seconds)
        self.room = HEADER_BYTES

    def wait(self) -> float:
        """Seconds that the next bytes may take; raises TimeoutError where there are none left."""
        self.check()
        left = min([self.stall, *(bound.left for bound in (self.until, self.overall) if bound is not None)])
        if left > 0.0:
            return left
        if self._late > LATE_BYTES:
            raise TimeoutError("timed out")
        return _NO_WAIT

    def took(self, count: int) -> None:
        """Count bytes that came; raises TooLong where they were too many."""
        self.check()
        if any(bound is not None and bound.passed for bound in (self.until, self.overall)):
            self._late += count
        if self.room is not None:
            self.room -= count
            if self.room < 0:
                raise TooLong("more came than an answer may have")


_here = threading.local()


def current() -> Line | None:
    """The line of the request that this thread is making."""
    found: Line | None = getattr(_here, "line", None)
    return found


@contextlib.contextmanager
def line_here(seconds: float) -> Iterator[Line]:
    """The line of this thread's request, or one of its own for an answer's headers where nobody made any."""
    found = current()
    if found is not None:
        yield found
        return
    with Line(seconds) as line:
        yield line
        line.until = None


class Incoming(io.RawIOBase):
    """The bytes that come over a socket, as its line allows."""

    def __init__(self, sock: Any, line: Line) -> None:
        self._sock = sock
        self._line = line
        self._file = sock.makefile("rb", buffering=0)  # by which a socket counts who still uses it

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._line.wait())
        count: int = self._sock.recv_into(buffer)
        self._line.took(count)
        return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _plain(sock: Any) -> socket.socket | None:
    """The socket below TLS within TLS."""
    while sock is not None and not isinstance(sock, socket.socket):
        sock = getattr(sock, "socket", None)
    return sock


def _set_to_drop(sock: socket.socket | None, drops: bool) -> None:
    """Whether closing a socket, as the end of its program does, resets its connection: what is not out stays here."""
    if sock is not None:
        with contextlib.suppress(OSError):  # closed already, or of a kind that has no such thing
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(_LINGER, drops, 0))


def _shut(sock: socket.socket | None) -> None:
    if sock is not None:
        with contextlib.suppress(OSError):
            # past a TLS socket's own method, which would take its state away under the reading thread
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
