"""/_standin/: looking at the stand-in and setting it from another process. No part of the API."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from .faults import from_json
from .records import Status
from .service import Service

PREFIX = "/_standin/"


class Watched(Protocol):
    """What is looked at and set: the service, and how many connections to it are open."""

    @property
    def service(self) -> Service: ...

    @property
    def connections(self) -> int: ...


def state(site: Watched) -> dict[str, Any]:
    """Counts and lists as JSON values; never the key, a picture or a header."""
    service = site.service
    billed = list(service.billed)
    by_digest: dict[str, set[int]] = {}
    for bill in billed:
        by_digest.setdefault(bill.digest, set()).add(bill.request)
    requests = list(service.requests)
    return {
        "url": service.url,
        "time": time.time(),
        "connections": site.connections,
        "streams": len(service.hub),
        "requests": len(requests),
        "by_route": dict(Counter(r.route for r in requests)),
        "billed": [{"what": b.what, "digest": b.digest, "time": b.time, "request": b.request} for b in billed],
        "billed_twice": sorted(d for d, sources in by_digest.items() if len(sources) > 1),
        "delivered": sorted(service.delivered),
        "jobs": {job.id: job.status.value for job in list(service.jobs.values())},
        "shown": dict(service.shown),
        "elsewhere": len(service.elsewhere),
        "leaks": len(service.leaks()),
    }


def write_state(site: Watched, path: Path) -> None:
    """Write the state; a reader sees the old file or the new one, never half of it."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps(state(site), indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def routes(site: Watched) -> list[web.RouteDef]:
    """GET state; POST faults {NAME: switch}; POST steer {"hold": stage, "finish": id, ...}."""

    async def get_state(request: web.Request) -> web.StreamResponse:
        await site.service.settle()
        return web.json_response(state(site))

    async def post_faults(request: web.Request) -> web.StreamResponse:
        try:
            switches = {name: from_json(value) for name, value in (await request.json()).items()}
            site.service.trips.set(switches)
        except (ValueError, KeyError, AttributeError, TypeError) as e:
            return web.json_response({"error": str(e)}, status=400)
        return web.json_response(state(site))

    async def post_steer(request: web.Request) -> web.StreamResponse:
        try:
            await _steer(site, await request.json())
        except (ValueError, KeyError, AttributeError, TypeError) as e:
            return web.json_response({"error": str(e)}, status=400)
        return web.json_response(state(site))

    return [
        web.get("/_standin/state", get_state),
        web.post("/_standin/faults", post_faults),
        web.post("/_standin/steer", post_steer),
    ]


async def _steer(site: Watched, orders: dict[str, Any]) -> None:
    service = site.service
    for order, value in orders.items():
        if order == "hold":
            service.hold(Status(value))
        elif order == "release":
            service.release()
        elif order == "finish":
            await service.conclude(service.jobs[value])
        elif order == "fail":
            await service.conclude(service.jobs[value["id"]], str(value["message"]))
        elif order == "emit":
            service.hub.emit(str(value).encode())
        else:
            raise ValueError(f"no such order: {order}; there are hold, release, finish, fail, emit")
