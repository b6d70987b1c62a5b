"""A server that answers with whatever bytes a path stands for; nothing in it is an honest HTTP library."""

from __future__ import annotations

import contextlib
import functools
import io
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from types import TracebackType
from urllib.parse import unquote

from PIL import Image

MIB = 1 << 20
_BLOCK = bytes(MIB)


def _answer(*headers: str, status: str = "200 OK") -> bytes:
    return ("\r\n".join([f"HTTP/1.1 {status}", *headers]) + "\r\n\r\n").encode("latin-1")


@functools.cache
def _bomb() -> bytes:
    """1 GB of zeros in 1 MB of gzip, from one packed block many times over: packing all of it takes ten seconds."""
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(_BLOCK) + packer.flush(zlib.Z_FULL_FLUSH)
    check = functools.reduce(lambda value, _: zlib.crc32(_BLOCK, value), range(1024), 0)
    head, end = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff", packer.flush()
    return head + packed * 1024 + end + struct.pack("<II", check, 1024 * MIB)


def _slowly(head: bytes, piece: bytes) -> Iterator[bytes]:
    """The head, and then a piece every tenth of a second, for ever: no read ever times out."""
    yield head
    while True:
        threading.Event().wait(0.1)
        yield piece


def _for_ever(head: bytes, piece: bytes) -> Iterator[bytes]:
    yield head
    while True:
        yield piece


def _times(head: bytes, piece: bytes, count: int) -> Iterator[bytes]:
    yield head
    for _ in range(count):
        yield piece


def _gzip_of_objects(mib: int) -> bytes:
    """A list of empty objects, which take a parser some twenty times the memory of their text."""
    packer, some = zlib.compressobj(9, wbits=31), b"{}," * (MIB // 3)
    pieces = [packer.compress(b'{"generations":['), *(packer.compress(some) for _ in range(mib))]
    return b"".join([*pieces, packer.compress(b"{}]}"), packer.flush()])


def _huge_png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(_BLOCK)) + chunk(b"IEND", b"")


def _patched(kind: str, patch: Callable[[bytearray], None]) -> bytes:
    """A small picture file whose header is made to say that it is huge."""
    small = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(small, kind)
    data = bytearray(small.getvalue())
    patch(data)
    return bytes(data)


def _huge_gif(data: bytearray) -> None:
    data[6:10] = struct.pack("<HH", 65535, 65535)
    frame = data.index(b"\x2c\0\0\0\0") + 5
    data[frame : frame + 4] = struct.pack("<HH", 65535, 65535)


def _huge_jpeg(data: bytearray) -> None:
    size = data.index(b"\xff\xc0") + 5
    data[size : size + 4] = struct.pack(">HH", 65500, 65500)


def _huge_webp(data: bytearray) -> None:
    size = data.index(b"\x9d\x01\x2a") + 3
    data[size : size + 4] = struct.pack("<HH", 16383, 16383)


_JSON = "Content-Type: application/json"
_EVENTS = "Content-Type: text/event-stream"
_CHUNKED = "Transfer-Encoding: chunked"
_AWAY = "Location: /elsewhere"
_TRAILERS = b"2\r\n{}\r\n0\r\n"

ANSWERS: dict[str, Callable[[], Iterator[bytes]]] = {
    "a reply of 1 GB": lambda: _times(_answer(f"Content-Length: {1024 * MIB}", _JSON), _BLOCK, 1024),
    "a body that never ends": lambda: _for_ever(_answer(_JSON), _BLOCK),
    "a body that never ends, in chunks": lambda: _for_ever(
        _answer(_JSON, "Transfer-Encoding: chunked"), b"%x\r\n" % MIB + _BLOCK + b"\r\n"
    ),
    "a body that drips for ever": lambda: _slowly(_answer(_JSON), b" "),
    "a chunk that drips for ever": lambda: _slowly(
        _answer(_JSON, "Transfer-Encoding: chunked") + b"7fffffff\r\n", b" "
    ),
    "a status line that drips for ever": lambda: _slowly(b"HTTP/1.1 200 ", b"O"),
    "headers that drip for ever": lambda: _slowly(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "100 Continue for ever": lambda: _for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "a flood of headers": lambda: _for_ever(b"HTTP/1.1 200 OK\r\n", b"X-Flood: x\r\n" * 1000),
    "a header of 100 MB": lambda: _times(b"HTTP/1.1 200 OK\r\nX: ", b"x" * MIB, 100),
    "a Content-Length of 5,000 digits": lambda: iter([_answer(f"Content-Length: {'9' * 5000}", _JSON), b"{}"]),
    "a Content-Length of 1 EB": lambda: _for_ever(_answer(f"Content-Length: {10**18}", _JSON), _BLOCK),
    "1 GB in 1 MB of gzip": lambda: iter(
        [_answer("Content-Encoding: gzip", f"Content-Length: {len(_bomb())}", _JSON), _bomb()]
    ),
    "gzip in gzip": lambda: iter([_answer("Content-Encoding: gzip, gzip", _JSON), zlib.compress(_bomb(), wbits=31)]),
    "a coding nobody asked for": lambda: iter([_answer("Content-Encoding: br", _JSON), b"\0" * 1000]),
    "JSON of depth 10,000": lambda: iter([_answer(_JSON), b"[" * 10_000 + b"]" * 10_000]),
    "JSON of depth 10,000,000": lambda: iter([_answer(_JSON), b"[" * 10_000_000]),
    "a number of a million digits": lambda: iter([_answer(_JSON), b'{"generations":[],"x":' + b"9" * MIB + b"}"]),
    "a PNG of 60000 x 60000": lambda: iter([_answer("Content-Type: image/png"), _huge_png(60_000)]),
    "a GIF of 65535 x 65535": lambda: iter([_answer("Content-Type: image/gif"), _patched("GIF", _huge_gif)]),
    "a JPEG of 65500 x 65500": lambda: iter([_answer("Content-Type: image/jpeg"), _patched("JPEG", _huge_jpeg)]),
    "a WebP of 16383 x 16383": lambda: iter([_answer("Content-Type: image/webp"), _patched("WEBP", _huge_webp)]),
    "tiny values in gzip": lambda: iter([_answer("Content-Encoding: gzip", _JSON), _gzip_of_objects(48)]),
    "tiny values": lambda: _times(_answer(_JSON) + b'{"generations":[', b"{}," * (MIB // 3), 48),
    "trailers that never end": lambda: _for_ever(_answer(_JSON, _CHUNKED) + _TRAILERS, b"X-More: x\r\n" * 10_000),
    "trailers that drip for ever": lambda: _slowly(_answer(_JSON, _CHUNKED) + _TRAILERS, b"X: x\r\n"),
    "a trailer that drips for ever": lambda: _slowly(_answer(_JSON, _CHUNKED) + _TRAILERS + b"X: ", b"x"),
    "a chunk's extension that drips for ever": lambda: _slowly(_answer(_JSON, _CHUNKED) + b"2;x=", b"x"),
    "102 Processing for ever": lambda: _for_ever(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 1000),
    "103 Early Hints, dripping for ever": lambda: _slowly(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "an error that never ends": lambda: _for_ever(_answer(_JSON, status="500 Oh"), _BLOCK),
    "an error of 1 GB in 1 MB of gzip": lambda: iter(
        [_answer("Content-Encoding: gzip", _JSON, status="502 Oh"), _bomb()]
    ),
    "a redirect with a body that never ends": lambda: _for_ever(_answer(_AWAY, status="302 Found"), _BLOCK),
    "a redirect with a body that drips for ever": lambda: _slowly(_answer(_AWAY, status="307 Away"), b"x"),
    "a redirect with 1 GB in 1 MB of gzip": lambda: iter(
        [_answer(_AWAY, "Content-Encoding: gzip", f"Content-Length: {len(_bomb())}", status="308 Away"), _bomb()]
    ),
    "a redirect with trailers that never end": lambda: _for_ever(
        _answer(_AWAY, _CHUNKED, status="303 Away") + _TRAILERS, b"X-More: x\r\n" * 10_000
    ),
    "a redirect to itself": lambda: iter([_answer("Location: /a%20redirect%20to%20itself", status="302 Found")]),
    "a redirect to a file": lambda: iter([_answer("Location: file:///etc/passwd", status="302 Found")]),
    "a redirect to a private host": lambda: iter([_answer("Location: http://10.0.0.1/", status="302 Found")]),
    "a redirect to the metadata service": lambda: iter(
        [_answer("Location: http://169.254.169.254/latest/meta-data/", status="302 Found")]
    ),
    "an event line of 100 MB": lambda: _times(_answer(_EVENTS) + b"data: ", b"x" * MIB, 100),
    "an event of endless lines": lambda: _for_ever(_answer(_EVENTS), b"data: x\n" * 10_000),
    "bytes that are no HTTP": lambda: _for_ever(b"", b"\0\xff" * 1000),
}


class HostileServer:
    """Listens on loopback in a `with` block; the path, percent-encoded, names the answer."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._thread = threading.Thread(target=self._listen, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> HostileServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            request = b""
            while b"\r\n\r\n" not in request:
                if not (block := connection.recv(65536)):
                    return
                request += block
            name = unquote(request.split(b" ")[1].decode().split("?")[0]).lstrip("/")
            for piece in ANSWERS[name]() if name in ANSWERS else [_answer("Content-Length: 0", status="404 Gone")]:
                connection.sendall(piece)
