"""A running stand-in and a plain client for it."""

from __future__ import annotations

import base64
import io
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
import requests
from kontext_bridge.standin import Faults, StandIn, Timing
from patience import PATIENCE
from PIL import Image

QUICK = Timing(queued_s=0.01, processing_s=0.03, keepalive_s=15.0)


def data_uri(width: int = 60, height: int = 40) -> str:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


class Api:
    """What a client would do, one request a method, nothing retried."""

    def __init__(self, server: StandIn) -> None:
        self.server = server
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {server.key}"
        self.params = {
            "model": "flux-kontext-dev",
            "prompt": "give the ox a red hat",
            "input_image": data_uri(),
            "aspect_ratio": "match_input_image",
            "output_format": "jpg",
            "seed": 7,
        }

    def call(self, method: str, path: str, **more: object) -> requests.Response:
        more.setdefault("timeout", PATIENCE)
        return self.session.request(method, self.server.url + path, **more)

    def edit(self, timeout: float = PATIENCE, **params: object) -> requests.Response:
        return self.call("POST", "/api/ai/images/edit", json=self.params | params, timeout=timeout)

    def enqueue(self, timeout: float = PATIENCE, **params: object) -> requests.Response:
        return self.call("POST", "/api/ai/queue", json=self.params | params, timeout=timeout)

    def submit(self, **params: object) -> str:
        return self.enqueue(**params).json()["generations"][0]["generation_id"]

    def row(self, generation_id: str, timeout: float = PATIENCE) -> requests.Response:
        return self.call("GET", f"/api/ai/queue/{generation_id}", timeout=timeout)

    def ended(self, generation_id: str) -> dict:
        self.server.wait_for(lambda s: s.jobs[generation_id].status.terminal)
        return self.row(generation_id).json()

    def result(self, generation_id: str, **more: object) -> requests.Response:
        """The picture's download, without the key, as a client should try first."""
        return requests.get(self.ended(generation_id)["result_url"], timeout=PATIENCE, **more)

    def events(self) -> EventReader:
        reader = EventReader(self.server)
        self.server.wait_for(lambda s: s.streams)
        return reader


class EventReader:
    """The raw bytes of an event stream, over a socket of its own."""

    def __init__(self, server: StandIn) -> None:
        where = urlsplit(server.url)
        self.sock = socket.create_connection((where.hostname, where.port), timeout=PATIENCE)
        head = f"GET /api/events HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n\r\n"
        self.sock.sendall(head.encode())
        self.seen = b""

    def until(self, text: bytes) -> bytes:
        """Everything received once the text is in it. Raises where the stream ends first."""
        while text not in self.seen:
            block = self.sock.recv(65536)
            if not block:
                raise EOFError(f"the stream ended after {self.seen[-300:]!r}")
            self.seen += block
        return self.seen

    def rest(self) -> bytes:
        """Everything received when the stream ends properly."""
        while block := self.sock.recv(65536):
            self.seen += block
        return self.seen

    def __enter__(self) -> EventReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


Serve = Callable[..., Api]


@pytest.fixture
def serve(caplog: pytest.LogCaptureFixture) -> Iterator[Serve]:
    """Start a stand-in: serve(faults by name ..., timing=..., behaviour=...). It may log no error."""
    with ExitStack() as stack:

        def start(timing: Timing = QUICK, behaviour: object = None, **faults: object) -> Api:
            server = stack.enter_context(StandIn(Faults(**faults), timing, behaviour=behaviour))
            api = Api(server)
            stack.callback(api.session.close)
            return api

        yield start
    assert [r.getMessage() for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")] == []


@pytest.fixture
def api(serve: Serve) -> Api:
    """A stand-in without faults."""
    return serve()
