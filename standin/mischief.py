"""The faults that take a reply's place or spoil it, whichever route gave it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from . import bombs, replies
from .call import Call, Handler
from .faults import Fault
from .parameters import addresses
from .service import Service

PAID = frozenset({"edit", "enqueue"})
_ROW = frozenset({"row"})
_CANCEL = frozenset({"cancel"})
_EVENTS = frozenset({"events"})
_LISTS = frozenset({"queue", "history", "generation"})
_UPLOADS = frozenset({"upload", "context", "presign", "new_repo"})
_MODELS = frozenset({"model", "models", "search"})
_ANY = frozenset({"any"})
# These send what they have while they run, so that a bomb must come in their place.
_SENT_BY_HANDLER = frozenset({"events", "result"})


@dataclass(frozen=True)
class Hit:
    """A switch that misbehaves now, and the request it hits."""

    request: web.Request
    service: Service
    fault: Fault


Reply = web.StreamResponse | Awaitable[web.StreamResponse]
Make = Callable[[Hit], Reply]


def _html(default: int) -> Make:
    return lambda hit: replies.html(int(hit.fault.number(default)))


async def _never(hit: Hit) -> web.StreamResponse:
    await hit.service.stopping.wait()
    return web.Response(status=503)


def _unauthorized(hit: Hit) -> Reply:
    return replies.unauthenticated()


def _rate_limited(hit: Hit) -> Reply:
    return replies.rate_limited(hit.fault)


def _deep(hit: Hit) -> Reply:
    return replies.deep_json(int(hit.fault.number(10_000)))


def _endless(hit: Hit) -> Reply:
    return replies.endless_json(hit.request)


def _reset(hit: Hit) -> Reply:
    return replies.reset(hit.request)


def _error_in_ok(hit: Hit) -> Reply:
    return web.json_response({"error": {"message": "The model is not available right now."}})


def _upload_refused(hit: Hit) -> Reply:
    return replies.envelope(int(hit.fault.number(403)), "forbidden", "You may not write here.")


# Switches that put a reply in the route's place: where, unless the Fault says otherwise, and what comes.
# They are asked in this order.
INSTEAD: dict[str, tuple[frozenset[str], Make]] = {
    "data_uri_refused": (PAID, lambda hit: web.Response(status=500, text="Internal Server Error")),
    "body_limit": (PAID, lambda hit: replies.message(413, "Request entity too large")),
    "unauthorized": (PAID, _unauthorized),
    "rate_limited": (PAID, _rate_limited),
    "out_of_credits": (PAID, lambda hit: replies.out_of_credits()),
    "server_error": (PAID, _html(500)),
    "upstream_error": (PAID, lambda hit: replies.upstream_error()),
    "error_text": (PAID, lambda hit: web.json_response({"error": hit.fault.text("bad request")}, status=400)),
    "error_in_ok": (PAID, _error_in_ok),
    "empty_generations": (PAID, lambda hit: web.json_response({"generations": [], "images": []})),
    "html_reply": (PAID, lambda hit: replies.html(200)),
    "deep_json": (PAID, _deep),
    "endless_reply": (PAID, _endless),
    "never_answers": (PAID, _never),
    "poll_unauthorized": (_ROW, _unauthorized),
    "poll_rate_limited": (_ROW, _rate_limited),
    "poll_missing": (_ROW, lambda hit: replies.not_found()),
    "poll_error": (_ROW, _html(500)),
    "poll_html": (_ROW, lambda hit: replies.html(200)),
    "poll_deep_json": (_ROW, _deep),
    "poll_endless": (_ROW, _endless),
    "poll_reset": (_ROW, _reset),
    "poll_never_answers": (_ROW, _never),
    "cancel_error": (_CANCEL, _html(500)),
    "cancel_never_answers": (_CANCEL, _never),
    "list_error": (_LISTS, _html(500)),
    "events_unauthorized": (_EVENTS, _unauthorized),
    "events_error": (_EVENTS, _html(500)),
    "events_html": (_EVENTS, lambda hit: replies.html(200)),
    "events_never_answers": (_EVENTS, _never),
    "upload_refused": (_UPLOADS, _upload_refused),
    "models_missing": (_MODELS, lambda hit: replies.model_not_found(hit.request.match_info.get("id", ""))),
}

Spoil = Callable[[Hit, web.StreamResponse], Reply]


async def _late(hit: Hit, reply: web.StreamResponse) -> web.StreamResponse:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(hit.service.stopping.wait(), hit.fault.number(1.0))
    return reply


async def _hang_half_way(hit: Hit, reply: web.StreamResponse) -> web.StreamResponse:
    body = replies.body_of(reply)
    half = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await half.prepare(hit.request)
    await half.write(body[: len(body) // 2])
    await hit.service.stopping.wait()
    return half


# Switches that spoil the reply to a request that was carried out.
SPOILT: dict[str, tuple[frozenset[str], Spoil]] = {
    "answer_delayed": (PAID, _late),
    "poll_delayed": (_ROW, _late),
    "answer_dropped": (PAID, lambda hit, reply: _reset(hit)),
    "answer_cut": (
        PAID,
        lambda hit, reply: replies.cut_short(hit.request, replies.body_of(reply), "application/json"),
    ),
    "answer_hangs": (PAID, _hang_half_way),
    "answer_error": (PAID, lambda hit, reply: _html(504)(hit)),
    "answer_html": (PAID, lambda hit, reply: replies.html(200)),
    "answer_never": (PAID, lambda hit, reply: _never(hit)),
    "answer_status": (PAID, lambda hit, reply: _gateway(hit.fault)),
    "answer_bad_header": (
        PAID,
        lambda hit, reply: bombs.bad_header(hit.request, hit.fault, replies.body_of(reply)),
    ),
}


# Switches that end in a reply made to do harm, wherever it comes.
BOMBS: dict[str, tuple[frozenset[str], Spoil]] = {
    "bomb": (PAID, lambda hit, reply: bombs.bomb(int(hit.fault.number(190)))),
    "redirect_body": (PAID, lambda hit, reply: bombs.redirect_body(hit.request)),
    "trailers_endless": (PAID, lambda hit, reply: bombs.trailers_endless(hit.request, replies.body_of(reply))),
    "headers_endless": (PAID, lambda hit, reply: bombs.headers_endless(hit.request)),
    "interim_endless": (PAID, lambda hit, reply: bombs.interim_endless(hit.request, hit.fault)),
}
SPOILT |= BOMBS


def _gateway(fault: Fault) -> web.Response:
    """An answer of something in between, in no envelope of the service."""
    code, _, form = str(fault.text("409")).partition(" ")
    if form == "json":
        return web.json_response({"message": f"error {code}"}, status=int(code))
    return web.Response(status=int(code), text=f"error code: {code}")


async def answer(request: web.Request, service: Service, call: Call, handler: Handler) -> web.StreamResponse:
    """The handler's reply, unless a switch puts another in its place or spoils it."""
    subject = call.subject(service.jobs.get(request.match_info.get("id", "")))
    for name, (usual, make) in INSTEAD.items():
        if fault := _taken(service, call, name, usual, subject):
            return await _settled(make(Hit(request, service, fault)))
    if fault := _taken(service, call, "answer_interim", _ANY, subject):
        bombs.interim(request, fault)
    if call.record.route in _SENT_BY_HANDLER:
        for name, (usual, spoil) in BOMBS.items():
            if fault := _taken(service, call, name, usual, subject):
                return await _settled(spoil(Hit(request, service, fault), web.json_response({})))
    reply = whole = await handler(request)
    # A refused request was not accepted, and only an accepted one's answer is worth losing.
    if call.record.route not in PAID or call.jobs:
        for name, (usual, spoil) in SPOILT.items():
            if fault := _taken(service, call, name, usual, subject):
                reply = await _settled(spoil(Hit(request, service, fault), reply))
    if reply is whole and call.carries is not None and await replies.send_whole(request, reply):
        service.deliver(call.carries)
    return reply


async def _settled(reply: Reply) -> web.StreamResponse:
    return reply if isinstance(reply, web.StreamResponse) else await reply


def _taken(service: Service, call: Call, name: str, usual: frozenset[str], subject: str) -> Fault | None:
    for trips in (call.own, service.trips):
        if trips is None or not _on_route(call.record.route, trips.route(name), usual):
            continue
        if fault := service.take(trips, name, subject, lambda fault: _concerns(name, fault, call)):
            return fault
    return None


def _on_route(route: str, moved: str, usual: frozenset[str]) -> bool:
    if moved == "any":
        return True
    if moved == "paid":
        return route in PAID
    return route == moved if moved else route in usual or usual is _ANY


def _concerns(name: str, fault: Fault, call: Call) -> bool:
    """Whether the request is of the kind that the switch is about; most are about any."""
    if name == "data_uri_refused":
        return any(one.startswith("data:") for one in addresses(call.record.json))
    return name != "body_limit" or call.record.body_bytes > fault.number(1_000_000)
