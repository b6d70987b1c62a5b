"""One request on its way through the stand-in: its record, its body, and what it gave rise to."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from .faults import Trips
from .records import Bearer, Job, Request
from .service import Service

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(eq=False)
class Call:
    """own: the switches that hold for this request alone. jobs: those it made.

    carries: the job whose picture is in the reply itself.
    """

    record: Request
    body: bytes
    own: Trips | None = None
    jobs: list[Job] = field(default_factory=list)
    carries: Job | None = None

    @property
    def authorized(self) -> bool:
        """Whether the request had the right key."""
        return self.record.bearer is Bearer.RIGHT

    def subject(self, job: Job | None = None) -> str:
        """What a fault's `match` is looked for in: the path, and the prompt sent or of the job asked for."""
        sent = self.record.json
        prompt = sent.get("prompt") if isinstance(sent, dict) else ""
        return f"{self.record.path} {prompt} {job.prompt if job else ''}"


_current: ContextVar[Call] = ContextVar("call")


def attach(call: Call) -> None:
    """Make this the call that `current_call` gives, for the task that answers the request."""
    _current.set(call)


def current_call() -> Call:
    """The call being answered."""
    return _current.get()


def make_record(
    request: web.Request,
    service: Service,
    number: int,
    connection: int,
    route: str,
    arrived: float,
    body: bytes,
) -> Request:
    """The record of a request, with the key withheld."""
    key, sent = service.key, request.headers.get("Authorization")
    sort = Bearer.RIGHT if sent == f"Bearer {key}" else Bearer.OTHER
    everything = (request.raw_path, *request.headers.values())
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
        arrived=arrived,
        connection=connection,
        body_bytes=len(body),
        json=_parsed(request, body),
        bearer=Bearer.NONE if sent is None else sort,
        carries_key=key.encode() in body or any(key in text for text in everything),
    )


def _parsed(request: web.Request, body: bytes) -> Any:
    if not body or request.content_type.startswith("multipart/"):
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
