"""Bodies on their way: requests that may be large, answers that arrive in their time or not at all.

A request's body goes out in blocks, each under a timeout of its own, so that a slow connection is no broken one.
For an answer that is too little, as a socket's timeout starts again with every byte: the status line and the headers
get one read timeout in all, and a body is handed on as it arrives, so that its reader can look at the clock.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import io
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import requests
import requests.adapters
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions
import urllib3.response

from .control import Control, Deadline

ACCEPTED_CODINGS = "gzip, deflate"
_CODINGS = frozenset(["", "identity", "gzip", "x-gzip", "deflate"])
_CHUNK = 1 << 16
_OLD_URLLIB3 = importlib.metadata.version("urllib3").startswith("1.")


class Outgoing(io.BytesIO):
    """A request's body, read block by block while it is sent; `answer_by` is counted from the last block.

    before_last: called when all but the last block is out. Raises Interrupted where the run is stopped before all of
    it is out, which leaves a request that is none.
    """

    def __init__(
        self, data: bytes, seconds: float, control: Control, before_last: Callable[[], None] | None = None
    ) -> None:
        super().__init__(data)
        self.answer_by = Deadline(seconds)
        self.all_out = False
        self._length = len(data)
        self._control = control
        self._before_last = before_last

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() < self._length:
            self._control.check()
        self.answer_by = Deadline(self.answer_by.seconds)
        block = super().read(size)
        if not self.all_out and self.tell() >= self._length:
            if self._before_last is not None:
                self._before_last()
            self.all_out = True
        return block


def chunks(response: requests.Response) -> Iterator[bytes]:
    """The decoded body of a streamed response in pieces of at most 64 KB, each as soon as it is there.

    urllib3 before 2.1 waits until 64 KB are together. Raises requests.RequestException where the connection breaks,
    and for a content coding that was not asked for: what unpacks without bounds is not unpacked.
    """
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding not in _CODINGS:
        raise requests.exceptions.ContentDecodingError("the answer is packed in a way that was not asked for")
    read1 = getattr(response.raw, "read1", None)
    if read1 is None:
        yield from response.iter_content(_CHUNK)
        return
    try:
        while chunk := read1(_CHUNK, decode_content=True):
            yield chunk
    except urllib3.exceptions.DecodeError as error:
        raise requests.exceptions.ContentDecodingError(error) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise requests.exceptions.ConnectionError(error) from None


class HeadersInTime(urllib3.connection.HTTPConnection):
    """A connection whose status line and headers, all together, get one read timeout; also a mixin for HTTPS."""

    def getresponse(self) -> urllib3.response.HTTPResponse:  # type: ignore[override]
        # where the read timeout is by now; the other one belongs to the connect, or to the request before
        limit = self.sock.gettimeout() if _OLD_URLLIB3 else self.timeout
        if not isinstance(limit, int | float):
            return super().getresponse()
        late = threading.Event()
        timer = threading.Timer(limit, _shut, (self.sock, late))
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()
        except (OSError, http.client.HTTPException):
            if not late.is_set():
                raise
        else:
            if not late.is_set():
                return response
            response.close()  # the headers may be cut off where they have no end
        finally:
            timer.cancel()
        raise TimeoutError("timed out")


def _shut(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        # past a TLS socket's own method, which would take its state away under the reading thread
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _HTTPSConnection(HeadersInTime, urllib3.connection.HTTPSConnection):
    pass


class _HTTPPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = HeadersInTime


class _HTTPSPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class InTimeAdapter(requests.adapters.HTTPAdapter):
    """A requests adapter whose answers' headers come in time."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
