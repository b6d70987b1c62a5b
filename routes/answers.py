"""What is answered: JSON that no cache keeps; an error in words, which repeats nothing of what was asked."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web

from .. import host
from ..oxen.errors import OxenError
from .guard import Refused

logger = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.Response]]
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def answering(handle: Callable[[web.Request], Awaitable[dict[str, Any]]]) -> Handler:
    """A route's handler out of a function that gives the answer's JSON, or raises what went wrong."""

    async def in_json(request: web.Request) -> web.Response:
        return _json(200, await handle(request))

    return answering_with(in_json)


def answering_with(handle: Handler) -> Handler:
    """A route's handler out of a function that gives the answer itself, or raises what went wrong."""

    async def handler(request: web.Request) -> web.Response:
        try:
            answer = await handle(request)
            answer.headers["X-Content-Type-Options"] = "nosniff"
            return answer
        except Refused as refused:
            answer = _json(refused.status, {"error": str(refused)})
            if request.body_exists:
                answer.force_close()  # what else comes of it is not read
            return answer
        except OxenError as error:
            return _json(400, {"error": error.message})
        except host.NoFolder as error:
            return _json(500, {"error": str(error)})
        except OSError as error:
            return _json(
                500, {"error": f"The system would not do it: {error.strerror}. What was there before still is."}
            )

    return handler


async def beside(work: Callable[[], T]) -> T:
    """What blocking work gives, done beside ComfyUI's event loop; what it needs stands in it and is shown nowhere."""
    return await asyncio.to_thread(work)


def _json(status: int, value: dict[str, Any]) -> web.Response:
    return web.Response(status=status, text=json.dumps(value), content_type="application/json", headers=_HEADERS)
