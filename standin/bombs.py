"""Answers made to fill a client's memory or to hold it up for ever, written past aiohttp where it is too honest."""

from __future__ import annotations

import asyncio
import functools
import gzip
import zlib

from aiohttp import web

from . import replies
from .faults import Fault

_WAITING = 1 << 20
_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
INTERIM = {
    102: b"HTTP/1.1 102 Processing\r\n\r\n",
    103: b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
}


async def raw(request: web.Request, head: bytes, block: bytes = b"") -> web.StreamResponse:
    """Write these bytes as they are, then the block for ever where there is one, and hang up.

    The response returned is never sent.
    """
    transport = request.transport
    if transport is not None:
        transport.write(head)
        while block and not transport.is_closing():
            if transport.get_write_buffer_size() < _WAITING:
                transport.write(block)
            await asyncio.sleep(0 if transport.get_write_buffer_size() < _WAITING else 0.005)
        transport.close()
    raise ConnectionResetError("written by hand")


def interim(request: web.Request, fault: Fault) -> None:
    """Write interim answers before the real one."""
    if request.transport is not None:
        codes = tuple(INTERIM) if fault.value is True else (int(fault.number(103)),)
        request.transport.write(b"".join(INTERIM[code] for code in codes))


async def bad_header(request: web.Request, fault: Fault, body: bytes) -> web.StreamResponse:
    """The answer under a header that makes no sense."""
    header = fault.text("Content-Length: 1, 78").encode("latin-1")
    return await raw(request, _JSON + header + b"\r\n\r\n" + body)


async def interim_endless(request: web.Request, fault: Fault) -> web.StreamResponse:
    """Interim answers and nothing else."""
    code = int(fault.number(102))
    block = INTERIM.get(code, b"HTTP/1.1 %d Wait\r\n\r\n" % code)
    return await raw(request, b"", block * 1000)


async def headers_endless(request: web.Request) -> web.StreamResponse:
    """Headers and nothing else."""
    return await raw(request, _JSON, b"X-More: and more\r\n" * 1000)


async def trailers_endless(request: web.Request, body: bytes) -> web.StreamResponse:
    """The whole answer in one chunk, then trailers."""
    head = _JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n" % len(body) + body + b"\r\n" if body else b""
    return await raw(request, head + chunk + b"0\r\n", b"X-More: and more\r\n" * 1000)


async def redirect_body(request: web.Request) -> web.StreamResponse:
    """302 to the same address, with a body that never ends."""
    reply = web.StreamResponse(status=302, headers={"Location": str(request.rel_url)})
    return await replies.pour(request, reply, b"", bytes(65536))


def bomb(megabytes: int) -> web.Response:
    """A list of so many MB of empty objects, packed a thousand times smaller."""
    return web.Response(
        body=_packed(megabytes), headers={"Content-Type": "application/json", "Content-Encoding": "gzip"}
    )


@functools.lru_cache(maxsize=4)
def _packed(megabytes: int) -> bytes:
    head, tail = b'{"generations":[', b"{}]}"
    block = b"{}," * (2**20 // 3)
    # Blocks that end with a full flush stand for themselves, so that one is packed and then repeated.
    packer = zlib.compressobj(9, wbits=-15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    middle = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    last = packer.compress(tail) + packer.flush()
    check = zlib.crc32(head)
    for _ in range(megabytes):
        check = zlib.crc32(block, check)
    check = zlib.crc32(tail, check)
    size = len(head) + megabytes * len(block) + len(tail)
    start = gzip.compress(b"")[:10]
    return (
        start + first + middle * megabytes + last + check.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")
    )
