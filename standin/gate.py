"""What every request passes: the record of it, the User-Agent check, the key, and the whole-reply faults."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from . import replies
from .faults import Fault, Trips
from .records import Bearer, Request
from .service import Service

TRIPS = "trips"
JOBS = "jobs"
_RECORD = "record"
_BODY = "body"
CONTROL = "/_standin/"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PAID = {"edit", "enqueue"}
# The service answers these without a key; files and results judge for themselves.
OPEN = {"model", "models", "result", "file", "repo"}
_LISTS = {"queue", "history", "generation"}
_UPLOADS = {"upload", "context", "presign", "new_repo"}

# Switches that replace a whole reply, in the order in which they are asked, with their usual routes.
_BEFORE: dict[str, set[str]] = {
    "unauthorized": PAID,
    "rate_limited": PAID,
    "out_of_credits": PAID,
    "server_error": PAID,
    "upstream_error": PAID,
    "error_text": PAID,
    "error_in_ok": PAID,
    "empty_generations": PAID,
    "html_reply": PAID,
    "deep_json": PAID,
    "endless_reply": PAID,
    "never_answers": PAID,
    "poll_unauthorized": {"row"},
    "poll_rate_limited": {"row"},
    "poll_missing": {"row"},
    "poll_error": {"row"},
    "poll_html": {"row"},
    "poll_deep_json": {"row"},
    "poll_endless": {"row"},
    "poll_reset": {"row"},
    "poll_never_answers": {"row"},
    "cancel_error": {"cancel"},
    "cancel_never_answers": {"cancel"},
    "list_error": _LISTS,
    "events_unauthorized": {"events"},
    "events_error": {"events"},
    "events_html": {"events"},
    "events_never_answers": {"events"},
    "upload_refused": _UPLOADS,
    "models_missing": {"model", "models"},
}
_AFTER: dict[str, set[str]] = {
    "answer_delayed": PAID,
    "poll_delayed": {"row"},
    "answer_dropped": PAID,
    "answer_cut": PAID,
    "answer_error": PAID,
    "answer_html": PAID,
    "answer_never": PAID,
}


def record_of(request: web.Request) -> Request:
    """The record of the request being answered."""
    record: Request = request[_RECORD]
    return record


def body_bytes(request: web.Request) -> bytes:
    """The request's body."""
    body: bytes = request[_BODY]
    return body


def body_json(request: web.Request) -> Any:
    """The request's body as JSON, None where it is none."""
    return record_of(request).json


def is_authorized(request: web.Request) -> bool:
    """Whether the request carried the right key."""
    return record_of(request).bearer is Bearer.RIGHT


def make_record(
    request: web.Request, service: Service, number: int, connection: int, route: str, body: bytes
) -> Request:
    """The record of a request, with the key withheld."""
    key, sent = service.key, request.headers.get("Authorization")
    carries = key in request.raw_path or key.encode() in body or any(key in v for v in request.headers.values())
    sort = Bearer.RIGHT if sent == f"Bearer {key}" else Bearer.OTHER
    headers = {
        name: "(withheld)" if name.lower() == "authorization" else value.replace(key, "(withheld)")
        for name, value in request.headers.items()
    }
    return Request(
        number=number,
        method=request.method,
        path=request.raw_path.replace(key, "(withheld)"),
        route=route,
        headers=headers,
        arrived=time.time(),
        connection=connection,
        body_bytes=len(body),
        json=_parsed(request, body),
        bearer=Bearer.NONE if sent is None else sort,
        carries_key=carries,
    )


def _parsed(request: web.Request, body: bytes) -> Any:
    if not body or request.content_type.startswith("multipart/"):
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def passes_for_an_old_cli(agent: str) -> bool:
    """Whether the service would take this User-Agent for an Oxen CLI older than 0.36.0."""
    if "oxen" not in agent.lower() or "Postman" in agent:
        return False
    pieces = agent.split("/")
    version = re.match(r"\d+\.\d+\.\d+", pieces[1]) if len(pieces) > 1 else None
    return version is None or tuple(map(int, version[0].split("."))) < (0, 36, 0)


def subject_of(request: web.Request, service: Service) -> str:
    """What a fault's `match` is looked for in: the path, and the prompt of the request or of its job."""
    job = service.jobs.get(request.match_info.get("id", ""))
    body = body_json(request)
    prompt = str(body.get("prompt")) if isinstance(body, dict) else ""
    return f"{request.path} {prompt} {job.prompt if job else ''}"


async def pass_gate(
    request: web.Request, service: Service, connection: int, route: str, handler: Handler
) -> web.StreamResponse:
    """Answer one API request: record it, judge it, misbehave where told to, else hand it on."""
    if route in PAID and service.trip("reset_before_body", request.path):
        _note(request, service, connection, route, b"")
        return replies.reset(request)
    _note(request, service, connection, route, await request.read())
    own = service.behaviour(record_of(request)) if service.behaviour else None
    request[TRIPS] = trips = Trips(own) if own is not None else None
    request[JOBS] = []
    if passes_for_an_old_cli(request.headers.get("User-Agent", "")):
        return replies.update_required()
    if route == "unknown":
        return replies.not_found()
    if route not in OPEN and not is_authorized(request):
        return replies.unauthenticated()
    subject = subject_of(request, service)
    if (refusal := _body_refused(request, service, route, subject, trips)) is not None:
        return refusal
    for name, routes in _BEFORE.items():
        if fault := _on_route(service, name, routes, route, subject, trips):
            return await _instead(request, service, name, fault)
    reply = await handler(request)
    for name, routes in _AFTER.items():
        if (route not in PAID or request[JOBS]) and (fault := _on_route(service, name, routes, route, subject, trips)):
            reply = await _spoilt(request, service, name, fault, reply)
    return reply


def _note(request: web.Request, service: Service, connection: int, route: str, body: bytes) -> None:
    request[_BODY] = body
    request[_RECORD] = make_record(request, service, len(service.requests) + 1, connection, route, body)
    service.requests.append(request[_RECORD])
    service.notify()


def _on_route(
    service: Service, name: str, usual: set[str], route: str, subject: str, own: Trips | None
) -> Fault | None:
    for trips in (own, service.trips):
        moved = trips.route(name) if trips is not None else ""
        here = route in usual if not moved else moved == "any" or route == moved or (moved == "paid" and route in PAID)
        if here and trips is not None and (fault := service.take(trips, name, subject)):
            return fault
    return None


def _body_refused(
    request: web.Request, service: Service, route: str, subject: str, own: Trips | None
) -> web.Response | None:
    if route not in PAID:
        return None
    body = body_json(request)
    source = body.get("input_image") if isinstance(body, dict) else None
    if isinstance(source, str) and source.startswith("data:") and service.trip("data_uri_refused", subject, own):
        return web.Response(status=500, text="Internal Server Error")
    limit = service.trip("body_limit", subject, own)
    if limit is not None and len(body_bytes(request)) > limit.number(1_000_000):
        return replies.message(413, "Request entity too large")
    return None


async def _instead(request: web.Request, service: Service, name: str, fault: Fault) -> web.StreamResponse:
    """The reply that a switch of _BEFORE puts in the route's place."""
    if name in ("server_error", "poll_error", "cancel_error", "list_error", "events_error"):
        return replies.html(int(fault.number(500)))
    if name.endswith("never_answers"):
        return await _never(service)
    if name.endswith("rate_limited"):
        return replies.rate_limited(fault)
    if name.endswith("unauthorized"):
        return replies.unauthenticated()
    if name.endswith("deep_json"):
        return replies.deep_json(int(fault.number(10_000)))
    if name in ("endless_reply", "poll_endless"):
        return await replies.endless_json(request)
    if name in ("html_reply", "poll_html", "events_html"):
        return replies.html(200)
    if name == "upload_refused":
        return replies.envelope(int(fault.number(403)), "forbidden", "You may not write here.")
    if name == "error_text":
        return web.json_response({"error": fault.text("bad request")}, status=400)
    if name == "error_in_ok":
        return web.json_response({"error": {"message": "The model is not available right now."}})
    simple: dict[str, Callable[[], web.StreamResponse]] = {
        "out_of_credits": replies.out_of_credits,
        "upstream_error": replies.upstream_error,
        "empty_generations": lambda: web.json_response({"generations": [], "images": []}),
        "poll_missing": replies.not_found,
        "poll_reset": lambda: replies.reset(request),
        "models_missing": lambda: replies.model_not_found(request.match_info.get("id", "")),
    }
    return simple[name]()


async def _spoilt(
    request: web.Request, service: Service, name: str, fault: Fault, reply: web.StreamResponse
) -> web.StreamResponse:
    """What a switch of _AFTER makes of the reply to an accepted job."""
    if name in ("answer_delayed", "poll_delayed"):
        await asyncio.sleep(fault.number(1.0))
        return reply
    if name == "answer_cut":
        return await replies.cut_short(request, replies.body_of(reply), "application/json")
    if name == "answer_error":
        return replies.html(int(fault.number(504)))
    if name == "answer_html":
        return replies.html(200)
    if name == "answer_never":
        return await _never(service)
    return replies.reset(request)


async def _never(service: Service) -> web.StreamResponse:
    await service.stopping.wait()
    return web.Response(status=503)
