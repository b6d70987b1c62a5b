"""What is asked: one JSON object of a few kilobytes, read under a bound in bytes and in time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import ClientError, http_exceptions, web

from .guard import Refused

MOST_BYTES = 4096
MOST_SECONDS = 10.0


async def read_object(request: web.Request, names: frozenset[str]) -> dict[str, Any]:
    """The JSON object in the body, which has no other names than these; its numbers are texts where they have a point.

    Raises Refused for everything else, in words that repeat nothing of it.
    """
    kinds = request.headers.getall("Content-Type", [])
    if len(kinds) != 1 or kinds[0].split(";")[0].strip().lower() != "application/json":
        raise Refused(415, "Only application/json is taken here.")
    if "Content-Encoding" in request.headers:
        raise Refused(415, "A packed body is not taken here.")
    body = await _read(request)
    try:
        value = json.loads(body.decode("utf-8"), parse_float=str)
    except (ValueError, RecursionError):
        raise Refused(400, "The body is no JSON.") from None
    if not isinstance(value, dict) or not set(value) <= names:
        raise Refused(400, f"The body must be a JSON object with {' and '.join(sorted(names)) or 'nothing'} in it.")
    return value


async def _read(request: web.Request) -> bytes:
    too_large = Refused(413, f"More than {MOST_BYTES} bytes are not taken here.")
    if (request.content_length or 0) > MOST_BYTES:
        raise too_large
    body = bytearray()
    loop = asyncio.get_running_loop()
    end = loop.time() + MOST_SECONDS
    try:
        while piece := await asyncio.wait_for(request.content.read(MOST_BYTES), end - loop.time()):
            body += piece
            if len(body) > MOST_BYTES:
                raise too_large
    except asyncio.TimeoutError:
        raise Refused(408, "The body did not come in time.") from None
    except (ClientError, http_exceptions.HttpProcessingError, web.RequestPayloadError, OSError):
        raise Refused(400, "The body did not come whole.") from None
    return bytes(body)
