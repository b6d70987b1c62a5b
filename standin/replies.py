"""The replies that are not a route's own: the two error envelopes, and replies gone wrong."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

from aiohttp import web

from .faults import Fault

HTML = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"


def envelope(status: int, kind: str, title: str, detail: str | None = None) -> web.Response:
    """The service's first error shape (its documents' A)."""
    error = {"type": kind, "title": title} | ({} if detail is None else {"detail": detail})
    return web.json_response({"error": error, "status": "error", "status_message": kind}, status=status)


def message(status: int, text: str) -> web.Response:
    """The service's second error shape (its documents' B)."""
    return web.json_response({"error": {"message": text}}, status=status)


def invalid(detail: str) -> web.Response:
    """400 invalid_params with what is wrong."""
    title = "Invalid parameters supplied, please check your request and try again."
    return envelope(400, "invalid_params", title, detail)


def not_found() -> web.Response:
    """404 for an unknown generation or route."""
    return envelope(404, "resource_not_found", "The requested resource could not be found")


def model_not_found(name: str) -> web.Response:
    """404 for an unknown model."""
    return message(404, f"Model not found: {name}")


def unauthenticated() -> web.Response:
    """401."""
    return envelope(401, "unauthenticated", "You must be authenticated to perform this action.")


def out_of_credits() -> web.Response:
    """402."""
    return envelope(402, "insufficient_credits", "You have run out of credits.")


def update_required() -> web.Response:
    """426, for a User-Agent that passes for an old Oxen CLI."""
    detail = "Oxen CLI out of date. Pushing to OxenHub requires version >= 0.36.0."
    return envelope(426, "update_required", "Update Required", detail)


def upstream_error() -> web.Response:
    """502, whose `status` is a number."""
    error = {"type": "upstream", "title": "The model provider returned an error."}
    return web.json_response({"error": error, "status": 502}, status=502)


def rate_limited(fault: Fault) -> web.Response:
    """429, with Retry-After in seconds for a number and as a date for "date:SECONDS"."""
    reply = message(429, "Too many requests, please slow down.")
    if isinstance(fault.value, str) and fault.value.startswith("date"):
        ahead = float(fault.value.partition(":")[2] or 1)
        then = datetime.now(timezone.utc) + timedelta(seconds=ahead)
        reply.headers["Retry-After"] = format_datetime(then, usegmt=True)
    elif fault.value is not True:
        reply.headers["Retry-After"] = str(fault.value)
    return reply


def html(status: int) -> web.Response:
    """An HTML page, as a proxy in between would send it."""
    title = {200: "Welcome", 504: "504 Gateway Time-out"}.get(status, f"{status} Internal Server Error")
    return web.Response(status=status, text=HTML.format(title), content_type="text/html")


def deep_json(depth: int) -> web.Response:
    """200 with arrays nested `depth` deep."""
    return web.Response(text='{"generations":' + "[" * depth + "]" * depth + "}", content_type="application/json")


async def endless_json(request: web.Request) -> web.StreamResponse:
    """200 with a JSON string that goes on until the client hangs up."""
    reply = web.StreamResponse(headers={"Content-Type": "application/json"})
    return await pour(request, reply, b'{"generations":[{"generation_id":"', b"a" * 65536)


async def pour(
    request: web.Request, reply: web.StreamResponse, head: bytes, block: bytes, blocks: int | None = None
) -> web.StreamResponse:
    """Send head, then the block for ever (or that many times)."""
    await reply.prepare(request)
    await reply.write(head)
    sent = 0
    while blocks is None or sent < blocks:
        await reply.write(block)
        sent += 1
        await asyncio.sleep(0)
    return reply


def reset(request: web.Request) -> web.Response:
    """Tear the connection down with a TCP reset. The response returned is never sent."""
    transport = request.transport
    if transport is not None:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=500)


async def cut_short(request: web.Request, body: bytes, content_type: str) -> web.StreamResponse:
    """Promise the whole body, send half of it, reset the connection."""
    reply = web.StreamResponse(headers={"Content-Type": content_type, "Content-Length": str(len(body))})
    await reply.prepare(request)
    await reply.write(body[: len(body) // 2])
    # A reset discards what the kernel has not sent yet; the half must be on its way first.
    await asyncio.sleep(0.05)
    reset(request)
    return reply


async def send_whole(request: web.Request, reply: web.StreamResponse, data: bytes = b"") -> bool:
    """Send the reply, with this body where it has none of its own, and say whether all of it left.

    What the kernel has taken counts as having left.
    """
    transport = request.transport
    if transport is None:
        return False
    transport.set_write_buffer_limits(0)
    await reply.prepare(request)
    if data:
        await reply.write(data)
    await reply.write_eof()
    return not transport.is_closing()


def body_of(reply: web.StreamResponse) -> bytes:
    """The bytes of an ordinary response."""
    body: Any = reply.body if isinstance(reply, web.Response) else b""
    return bytes(body or b"")


def dumps(value: Any) -> str:
    """JSON without spaces, as the service sends it."""
    return json.dumps(value, separators=(",", ":"))
