"""What every API request passes before it is answered: the record of it, the User-Agent check, the key."""

from __future__ import annotations

import re
import time

from aiohttp import web

from . import replies
from .call import Call, Handler, attach, make_record
from .faults import Trips
from .mischief import PAID, answer
from .service import Service

# Answered without a key, as on the service; files and results judge for themselves.
OPEN = {"model", "models", "search", "result", "file", "repo"}


def passes_for_an_old_cli(agent: str) -> bool:
    """Whether the service would take this User-Agent for an Oxen CLI older than 0.36.0."""
    if "oxen" not in agent.lower() or "Postman" in agent:
        return False
    pieces = agent.split("/")
    version = re.match(r"\d+\.\d+\.\d+", pieces[1]) if len(pieces) > 1 else None
    return version is None or tuple(map(int, version[0].split("."))) < (0, 36, 0)


async def pass_gate(
    request: web.Request, service: Service, connection: int, route: str, handler: Handler
) -> web.StreamResponse:
    """Answer one API request: record it, judge it, hand it on."""
    arrived = time.time()

    def note(body: bytes) -> Call:
        number = len(service.requests) + 1
        call = Call(make_record(request, service, number, connection, route, arrived, body), body)
        attach(call)
        service.requests.append(call.record)
        service.notify()
        return call

    if route in PAID and service.trip("reset_before_body", request.path):
        note(b"")
        return replies.reset(request)
    try:
        call = note(await request.read())
    except ConnectionError:
        note(b"")
        raise
    if service.behaviour and (own := service.behaviour(call.record)) is not None:
        call.own = Trips(own)
    if passes_for_an_old_cli(request.headers.get("User-Agent", "")):
        return replies.update_required()
    if route == "unknown":
        return replies.not_found()
    if route not in OPEN and not call.authorized:
        return replies.unauthenticated()
    return await answer(request, service, call, handler)
