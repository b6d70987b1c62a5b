"""Bodies on their way: requests that may be large, answers that arrive in their time or not at all.

A request's body goes out in blocks, each under a timeout of its own, so that a slow connection is no broken one. No
server can have taken a request whose last block it has not got: that block, and no kind of error, tells whether a
request was sent. An answer's body is handed on as it arrives, so that its reader can look at the clock.
"""

from __future__ import annotations

import http.client
import io
from collections.abc import Callable, Iterator

import requests
import urllib3.exceptions

from ..control import Control
from .codings import PackedBadly, Unpacker

_CHUNK = 1 << 16


class Outgoing(io.BytesIO):
    """A request's body, read block by block while it is sent.

    all_out: whether the last block was handed to the socket, so that the server may have the request; an empty body
    is not told by it. before_last: called just before that; what it raises ends the request, and is kept in `refusal`.
    Raises Interrupted where the run is stopped before all of it is out, which leaves a request that is none.
    """

    def __init__(self, data: bytes, control: Control, before_last: Callable[[], None] | None = None) -> None:
        super().__init__(data)
        self.all_out = False
        self.refusal: BaseException | None = None
        self.length = len(data)
        self._control = control
        self._before_last = before_last

    def read(self, size: int | None = -1, /) -> bytes:
        at = self.tell()
        if at >= self.length:
            return b""
        self._control.check()
        block = super().read(size)
        if at + len(block) < self.length:
            return block
        if self._before_last is not None:
            try:
                self._before_last()
            except BaseException as error:
                self.refusal = error
                raise
        # in this order: whoever stops the run either finds the body out, or is found here
        self.all_out = True
        if self._control.stopped:
            self.all_out = False
            self._control.check()
        return block


def chunks(response: requests.Response) -> Iterator[bytes]:
    """The decoded body of a streamed response in pieces of at most 64 KB, each as soon as it is there.

    Raises requests.RequestException where the connection breaks, where the body ends before its coding does, and for
    a content coding that was not asked for.
    """
    try:
        unpacker = Unpacker(response.headers.get("Content-Encoding", ""))
        for chunk in raw_chunks(response):
            yield from unpacker.feed(chunk)
        yield from unpacker.end()
    except PackedBadly as error:
        raise requests.exceptions.ContentDecodingError(str(error)) from None


def raw_chunks(response: requests.Response) -> Iterator[bytes]:
    """The body of a streamed response as it comes over the network, in pieces of at most 64 KB.

    urllib3 before 2.1 waits until 64 KB are together.
    """
    read1 = getattr(response.raw, "read1", None)
    try:
        if read1 is None:
            yield from response.raw.stream(_CHUNK, decode_content=False)
            return
        while chunk := read1(_CHUNK, decode_content=False):
            yield chunk
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
        raise requests.exceptions.ConnectionError(error) from None
