"""ComfyUI's server as far as the routes need it: a real socket, its way to serve a pack's routes, its CORS header."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from kontext_bridge.oxen.credentials import KEY_FILE
from kontext_bridge.routes import register

KEY = "SFMyNTY.a-key-of-the-usual-length.9876543210"
PIECES = {KEY[at : at + 12] for at in range(len(KEY) - 11)}


@web.middleware
async def cors(request: web.Request, handler: Any) -> web.StreamResponse:
    """What ComfyUI puts around every route with --enable-cors-header '*'."""
    answer = web.Response() if request.method == "OPTIONS" else await handler(request)
    answer.headers["Access-Control-Allow-Origin"] = "*"
    answer.headers["Access-Control-Allow-Methods"] = "POST, GET, DELETE, PUT, OPTIONS, PATCH"
    answer.headers["Access-Control-Allow-Headers"] = "Content-Type, Authorization"
    return answer


@dataclass
class Page:
    """The server, and a browser that shows its page."""

    port: int
    home: Path
    answers: list[bytes] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def origin(self) -> str:
        return f"http://{self.host}"

    @property
    def key_file(self) -> Path:
        return self.home / KEY_FILE

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        without: tuple[str, ...] = (),
        **headers: str | list[str],
    ) -> tuple[int, Any]:
        """Status and JSON (or text) of an answer. Headers replace a browser's own; `_` in a name stands for `-`."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent: dict[str, str | list[str]] = {"Host": self.host, "Sec-Fetch-Site": "same-origin"}
        if method != "GET":
            sent["Origin"] = self.origin
        if body is not None:
            sent |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1"]
        for name, values in sent.items():
            if name not in without:
                lines += [f"{name}: {value}" for value in ([values] if isinstance(values, str) else values)]
        return self.raw("\r\n".join(lines).encode() + b"\r\nConnection: close\r\n\r\n" + data)

    def raw(self, sent: bytes, *, ends: bool = False) -> tuple[int, Any]:
        """The first answer to bytes as they are; `ends` says that no more will come."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as line:
            try:
                line.sendall(sent)
                if ends:
                    line.shutdown(socket.SHUT_WR)
            except OSError:  # it was refused before it had all come
                pass
            came = b""
            try:
                while piece := line.recv(65536):
                    came += piece
            except ConnectionResetError:
                pass
        self.answers.append(came)
        if not came:
            return 0, None
        head, _, text = came.partition(b"\r\n\r\n")
        try:
            return int(head.split()[1]), json.loads(text)
        except ValueError:
            return int(head.split()[1]), text.decode(errors="replace")

    def save(self, key: str = KEY) -> Any:
        status, state = self.ask("POST", "/kontext-bridge/key", {"key": key})
        assert status == 200, state
        return state

    def state(self) -> Any:
        status, state = self.ask("GET", "/kontext-bridge/key")
        assert status == 200, state
        return state

    def files(self) -> dict[str, bytes]:
        """All that lies in the pack's folder."""
        found = self.home.rglob("*")
        return {str(path.relative_to(self.home)): path.read_bytes() for path in found if path.is_file()}


class _Server(threading.Thread):
    """aiohttp on a loop and a thread of its own."""

    def __init__(self, table: web.RouteTableDef, middlewares: list[Any]) -> None:
        super().__init__(name="comfyui", daemon=True)
        self._table, self._middlewares = table, middlewares
        self.ready = threading.Event()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._done = asyncio.Event()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=100 << 20, middlewares=self._middlewares)
        api = web.RouteTableDef()
        for route in self._table:
            assert isinstance(route, web.RouteDef)
            api.route(route.method, "/api" + route.path)(route.handler, **route.kwargs)
        app.add_routes(api)
        app.add_routes(self._table)
        # Of what was refused unread, aiohttp would wait ten seconds for the rest before it closes.
        log = logging.getLogger("aiohttp.access")
        runner = web.AppRunner(app, shutdown_timeout=1, lingering_time=0.5, access_log=log)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self.ready.set()
        await self._done.wait()
        await runner.cleanup()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self.join(30)


@pytest.fixture
def middlewares() -> list[Any]:
    return []


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No key anywhere, and an empty folder for the pack's own files; that folder."""
    home = tmp_path / "home"
    monkeypatch.delenv("OXEN_API_KEY", raising=False)
    monkeypatch.setenv("OXEN_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OXEN_CONFIG_DIR", str(tmp_path / "oxen"))
    monkeypatch.setenv("KONTEXT_BRIDGE_HOME", str(home))
    return home


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """ComfyUI's own arguments."""
    arguments = SimpleNamespace(multi_user=False)
    monkeypatch.setitem(sys.modules, "comfy.cli_args", SimpleNamespace(args=arguments))  # type: ignore[misc]
    return arguments


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> web.RouteTableDef:
    """The routes of a ComfyUI that has loaded the pack."""
    routes = web.RouteTableDef()
    server = SimpleNamespace(PromptServer=SimpleNamespace(instance=SimpleNamespace(routes=routes)))
    monkeypatch.setitem(sys.modules, "server", server)  # type: ignore[misc]
    register()
    return routes


@pytest.fixture
def page(
    environment: Path,
    users: SimpleNamespace,
    table: web.RouteTableDef,
    middlewares: list[Any],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Page]:
    """A page of the server; at the end, no piece of the key in any answer, log record, output, or other file."""
    caplog.set_level(logging.DEBUG)
    server = _Server(table, middlewares)
    server.start()
    try:
        assert server.ready.wait(30)
        page = Page(server.port, environment)
        yield page
    finally:
        server.stop()
    assert holding_the_key(b"\n".join(page.answers)) == set()
    printed = capfd.readouterr()
    records = [f"{record.getMessage()} {record.exc_text or ''} {record.args!r}" for record in caplog.records]
    assert holding_the_key("\n".join([*records, caplog.text, printed.out, printed.err]).encode()) == set()
    others = {name: data for name, data in page.files().items() if name != KEY_FILE}
    assert {name for name, data in others.items() if holding_the_key(data)} == set()


def holding_the_key(data: bytes) -> set[str]:
    """The pieces of the key, 12 characters or longer, that stand in some bytes."""
    return {piece for piece in PIECES if piece.encode() in data}
