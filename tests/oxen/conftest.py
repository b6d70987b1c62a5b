"""A remote side to test: a running stand-in, a home of its own, and sessions, edits and batches for it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import os
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.credentials import Account, find_account
from kontext_bridge.oxen.http.transport import Transport
from kontext_bridge.oxen.jobs.batch import Batch
from kontext_bridge.oxen.jobs.order import Edit, Outcome, Terms
from kontext_bridge.oxen.jobs.session import Session
from kontext_bridge.oxen.settings import Settings
from kontext_bridge.standin import Faults, StandIn, Timing
from patience import PATIENCE
from PIL import Image

KEY = "SFMyNTY.a-key-of-the-usual-length.0123456789"
QUICK = Timing(queued_s=0.01, processing_s=0.03)
COMMAND = Path(__file__).with_name("another_process.py")


def size_of(data: bytes) -> tuple[int, int]:
    """What these tests take for a picture: its size. Raises ValueError for bytes that are no whole one."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            return picture.size
    except OSError as error:
        raise ValueError(str(error)) from error


@lru_cache
def data_uri(width: int = 48, height: int = 32) -> str:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


class Remote:
    """One stand-in and one ledger, and what a graph would do with them."""

    def __init__(self, server: StandIn, home: Path, stack: ExitStack) -> None:
        self.server = server
        self.home = home
        self._stack = stack

    @property
    def account(self) -> Account:
        return Account(self.server.url, self.server.key)

    def transport(self, control: Control | None = None, **account: Any) -> Transport:
        used = dataclasses.replace(self.account, **account)
        transport = Transport(used, control or Control())
        self._stack.callback(transport.close)
        return transport

    @contextmanager
    def session(self, control: Control | None = None, **settings: Any) -> Iterator[Session]:
        with Session(find_account(self.home), self.home, Settings(**settings), control) as session:
            yield session

    def edits(self, count: int = 1, prompt: str = "give the ox a red hat", seed: int = 7, **more: Any) -> list[Edit]:
        """`count` edits of one picture with seeds counting up; jpg, which the stand-in draws fastest."""
        picture = more.pop("picture", data_uri())
        fields = {"output_format": "jpg", **more}
        return [
            Edit(
                EditParameters(prompt=prompt, seed=seed + number, **fields),
                hashlib.sha256(picture.encode()).hexdigest(),
                lambda: picture,
            )
            for number in range(count)
        ]

    def run(
        self,
        edits: Sequence[Edit],
        terms: Terms | None = None,
        *,
        control: Control | None = None,
        run_id: str | None = None,
        decode: Callable[[bytes], Any] = size_of,
        handed_over: bool = True,
        **settings: Any,
    ) -> tuple[Outcome[Any], ...]:
        with self.session(control, **settings) as session:
            batch = Batch(session, decode, terms, run_id)
            outcomes = batch.edit(edits)
            if handed_over:
                batch.handed_over(outcomes)
            return outcomes

    def in_thread(self, work: Callable[[], Any]) -> Background:
        return Background(work)

    def elsewhere(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `another_process.py` with these arguments; it uses this stand-in and this ledger."""
        process = subprocess.Popen(
            [sys.executable, str(COMMAND), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ},
        )
        self._stack.callback(process.communicate)
        return process

    def answer_of(self, process: subprocess.Popen[str]) -> Any:
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        return json.loads(out)

    def routes(self) -> list[str]:
        return [request.route for request in self.server.requests]

    def count(self, route: str) -> int:
        return self.routes().count(route)


class Background:
    """Work on a thread; `result` waits for it and gives its value or raises its error."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self, timeout: float = PATIENCE) -> Any:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"still running after {timeout} s"
        if self._error is not None:
            raise self._error
        return self._value


class Scripted:
    """A server that answers each connection with the bytes it was given, and keeps what it was sent."""

    def __init__(self, *answers: bytes) -> None:
        self.received: list[bytes] = []
        script = list(answers)
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data = b""
                while b"\r\n\r\n" not in data and (block := self.request.recv(65536)):
                    data += block
                outer.received.append(data)
                self.request.sendall(script[min(len(outer.received), len(script)) - 1])

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pack's user folder of this test; nothing of the machine's own configuration is seen."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith(("KONTEXT_BRIDGE_", "OXEN_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KONTEXT_BRIDGE_HOME", str(folder))
    monkeypatch.setenv("OXEN_CONFIG_DIR", str(tmp_path / "oxen-config"))
    return folder


@pytest.fixture
def serve(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Remote]]:
    """Start a stand-in: serve(faults by name ..., timing=..., behaviour=...)."""
    with ExitStack() as stack:

        def start(timing: Timing = QUICK, behaviour: Any = None, **faults: Any) -> Remote:
            server = stack.enter_context(StandIn(Faults(**faults), timing, KEY, behaviour=behaviour))
            monkeypatch.setenv("OXEN_BASE_URL", server.url)
            monkeypatch.setenv("OXEN_API_KEY", KEY)
            return Remote(server, home, stack)

        yield start


@pytest.fixture
def remote(serve: Callable[..., Remote]) -> Remote:
    """A stand-in without faults."""
    return serve()


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    with ExitStack() as stack:
        yield lambda *answers: stack.enter_context(Scripted(*answers))


@pytest.fixture
def nothing_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is known, and its picture there, as soon as the service says so."""
    monkeypatch.setattr("kontext_bridge.oxen.jobs.finishing._LATE_SECONDS", 0.0)


@pytest.fixture
def doubt_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose outcome is unknown is looked for at once, and not for long; no line was down."""
    monkeypatch.setattr("kontext_bridge.oxen.jobs.doubt._PAUSES", (0.0,))
    monkeypatch.setattr("kontext_bridge.oxen.jobs.doubt._FIRST_PAUSE", 0.05)
    monkeypatch.setattr("kontext_bridge.oxen.jobs.doubt.SETTLE_SECONDS", 0.2)
    monkeypatch.setattr("kontext_bridge.oxen.jobs.doubt._HELD_SECONDS", 0.0)


class Talking:
    """A server that does with each connection what it was told to, once it has read the head and a small body."""

    small = 8192

    def __init__(self, talk: Callable[[Any], None]) -> None:
        self.heads: list[bytes] = []
        self.ended = threading.Semaphore(0)
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data = b""
                try:
                    while b"\r\n\r\n" not in data and (block := self.request.recv(65536)):
                        data += block
                    head, _, body = data.partition(b"\r\n\r\n")
                    length = re.search(rb"(?i)content-length: (\d+)", head)
                    while length and len(body) < int(length[1]) < outer.small and (block := self.request.recv(65536)):
                        body += block
                    outer.heads.append(head + b"\r\n\r\n" + body)
                    talk(self.request)
                except OSError:
                    pass
                outer.ended.release()

        class Server(socketserver.ThreadingTCPServer):
            request_queue_size = 64
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def talking() -> Iterator[Callable[[Callable[[Any], None]], Talking]]:
    with ExitStack() as stack:

        def start(talk: Callable[[Any], None]) -> Talking:
            server = Talking(talk)
            stack.callback(server.close)
            return server

        yield start
