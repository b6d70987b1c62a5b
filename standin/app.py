"""Sockets and routes: which address answers what, on which connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import format_datetime

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from . import fine_tuning, generating, history, models, repos, switchboard
from . import outcomes as results
from .call import Handler, current_call, make_record
from .gate import pass_gate
from .service import SERVICE, Service

MAX_BODY = 256 * 2**20
_FINE_TUNE = "/api/repos/{namespace}/{repo}/fine_tunes/{id}"
_FILE = "/api/repos/{namespace}/{repo}/file/{branch}/{path:.+}"


async def events(request: web.Request) -> web.StreamResponse:
    """GET /api/events."""
    service, call = request.app[SERVICE], current_call()
    return await service.hub.serve(
        request, lambda name: service.trip(name, call.record.path, call.own), service.timing.keepalive_s
    )


def routes() -> list[web.RouteDef]:
    """Every API route, by the name that faults and records call it; `_too` is the second address of one."""
    return [
        web.post("/api/ai/images/edit", generating.edit, name="edit"),
        web.post("/api/ai/images/generate", generating.edit, name="edit_too"),
        web.post("/api/ai/queue", generating.enqueue, name="enqueue"),
        web.get("/api/ai/queue", generating.list_queue, name="queue"),
        web.get("/api/ai/queue/{id}", generating.get_row, name="row"),
        web.delete("/api/ai/queue/{id}", generating.cancel, name="cancel"),
        web.get("/api/events", events, name="events"),
        web.get("/api/ai/generations", history.history, name="history"),
        web.get("/api/ai/generations/{id}", history.generation, name="generation"),
        web.get("/api/ai/models", models.list_models, name="models"),
        web.get("/api/ai/models/search", models.list_models, name="search"),
        web.get("/api/ai/models/{id}", models.one_model, name="model"),
        web.post("/api/ai/models/{id}/activate", fine_tuning.activate, name="activate"),
        web.post("/api/ai/models/{id}/deactivate", fine_tuning.deactivate, name="deactivate"),
        web.get("/api/user/fine_tunes", fine_tuning.list_fine_tunes, name="fine_tunes"),
        web.get(_FINE_TUNE, fine_tuning.one_fine_tune, name="fine_tune"),
        web.get(f"{_FINE_TUNE}/checkpoints", fine_tuning.checkpoints, name="checkpoints"),
        web.post(f"{_FINE_TUNE}/deploy", fine_tuning.deploy, name="deploy"),
        web.post(f"{_FINE_TUNE}/checkpoints/{{step}}/deploy", fine_tuning.deploy_checkpoint, name="deploy_checkpoint"),
        web.get("/api/users/me", repos.me, name="me"),
        web.get("/api/authorize", repos.me, name="authorize"),
        web.post("/api/repos", repos.new_repo, name="new_repo"),
        web.post("/api/repos/", repos.new_repo, name="new_repo_too"),
        web.get("/api/repos/{namespace}/{repo}", repos.get_repo, name="repo"),
        web.get("/api/repos/{namespace}/{repo}/files/{id}/{name}", results.result, name="result"),
        web.post("/api/repos/{namespace}/{repo}/workbench/context", repos.add_context, name="context"),
        web.get("/api/repos/{namespace}/{repo}/file/presigned_url/main/{path:.+}", repos.presign, name="presign"),
        web.put(_FILE, repos.put_file, name="upload"),
        web.get(_FILE, repos.get_file, name="file"),
        web.delete(_FILE, repos.delete_file, name="delete_file"),
    ]


async def _misdate(request: web.Request, reply: web.StreamResponse) -> None:
    """Give the reply a Date of its own where the service's clock is to be off."""
    service = request.app[SERVICE]
    if request.path.startswith(switchboard.PREFIX) or not (fault := service.trip("date_off", request.path)):
        return
    off = (7200, -7200, 0)[len(service.requests) % 3] if fault.value == "varies" else fault.number(7200)
    reply.headers["Date"] = format_datetime(datetime.fromtimestamp(time.time() + off, timezone.utc), usegmt=True)


async def _while_there(answering: Awaitable[web.StreamResponse]) -> web.StreamResponse:
    try:
        return await answering
    except ConnectionError:
        # The client has gone, which is nobody's mistake; nothing can be sent any more.
        return web.Response(status=499)


@dataclass(eq=False)
class Site:
    """The two listening sockets and what is behind them."""

    service: Service
    accepted: int = 0
    _numbers: dict[RequestHandler, int] = field(default_factory=dict)
    _control: set[int] = field(default_factory=set)
    _runners: list[web.AppRunner] = field(default_factory=list)
    _listeners: list[asyncio.Server] = field(default_factory=list)
    _door: tuple[Callable[[], RequestHandler], str, int] = field(init=False)

    @property
    def connections(self) -> int:
        """Accepted connections without those that came to a control route."""
        return self.accepted - len(self._control)

    async def open(self, port: int) -> None:
        """Listen on 127.0.0.1:port, and for the other host on 127.0.0.2 or another port."""
        app = web.Application(middlewares=[self._main], client_max_size=MAX_BODY)
        app[SERVICE] = self.service
        app.on_response_prepare.append(_misdate)
        app.add_routes(routes())
        app.add_routes(switchboard.routes(self))
        self.service.url = await self._listen(app, "127.0.0.1", port, count=True)
        other = web.Application(middlewares=[self._other])
        other[SERVICE] = self.service
        other.router.add_get("/{id}", results.elsewhere)
        try:
            self.service.elsewhere_url = await self._listen(other, "127.0.0.2", 0, count=False)
        except OSError:
            # Only Linux answers on all of 127.0.0.0/8.
            self.service.elsewhere_url = await self._listen(other, "127.0.0.1", 0, count=False)

    async def _listen(self, app: web.Application, host: str, port: int, count: bool) -> str:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        self._runners.append(runner)
        server = runner.server
        assert server is not None

        def accept() -> RequestHandler:
            handler = server()
            if count:
                self.accepted += 1
                self._numbers[handler] = self.accepted
                self.service.notify()
            return handler

        listener = await asyncio.get_running_loop().create_server(accept, host, port, backlog=512)
        port = listener.sockets[0].getsockname()[1]
        self._listeners.append(listener)
        if count:
            self._door = accept, host, port
        return f"http://{host}:{port}"

    async def shut(self) -> None:
        """Refuse new connections; those that are open stay."""
        self._listeners[0].close()

    async def reopen(self) -> None:
        """Accept connections again, on the same port."""
        accept, host, port = self._door
        loop = asyncio.get_running_loop()
        self._listeners[0] = await loop.create_server(accept, host, port, backlog=512)

    @web.middleware
    async def _main(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        number = self._numbers[request.protocol]
        if request.path.startswith(switchboard.PREFIX):
            self._control.add(number)
            return await handler(request)
        unknown = request.match_info.http_exception is not None
        route = "unknown" if unknown else (request.match_info.route.name or "unknown").removesuffix("_too")
        return await _while_there(pass_gate(request, self.service, number, route, handler))

    @web.middleware
    async def _other(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        seen = len(self.service.elsewhere) + 1
        record = make_record(request, self.service, seen, 0, "elsewhere", time.time(), await request.read())
        self.service.elsewhere.append(record)
        self.service.notify()
        return await _while_there(handler(request))

    async def close(self) -> None:
        """Stop listening, end every stream and connection."""
        for listener in self._listeners:
            listener.close()
        await self.service.stop()
        for runner in self._runners:
            if runner.server is not None:
                runner.server.pre_shutdown()
                await runner.server.shutdown(0.2)
            await runner.cleanup()
