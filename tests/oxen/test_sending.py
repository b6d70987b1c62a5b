"""Requests on slow connections: a body may take its time, and an answer that has arrived is not thrown away."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from kontext_bridge.oxen.control import Control, Deadline
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.errors import ConnectionFailed, Interrupted, OutcomeUnknown, UnexpectedReply
from kontext_bridge.oxen.http import transport as transport_module
from kontext_bridge.oxen.http.connections import HeadersInTime
from kontext_bridge.oxen.http.transport import Transport, read_body
from patience import PATIENCE, timed

BIG = b"x" * (1 << 20)
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}"


class SlowReader:
    """A server that takes a request's body at a rate, and keeps how long each took."""

    def __init__(self, listener: socket.socket, bytes_per_second: float) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.seconds: list[float] = []
        self.lengths: list[int] = []
        self.begun = threading.Event()
        self._listener = listener
        self._rate = bytes_per_second
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        since, data = time.monotonic(), b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(4096)
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        taken, length = len(body), int(fields[b"content-length"])
        self.begun.set()
        while taken < length:
            try:
                block = connection.recv(32768)
            except ConnectionResetError:  # what is given up is dropped
                break
            if not block:
                break
            taken += len(block)
            time.sleep(len(block) / self._rate)
        self.lengths.append(taken)
        self.seconds.append(time.monotonic() - since)
        if taken == length:
            connection.sendall(WHOLE)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], SlowReader]]:
    """A slow reader of a given rate, on a network that buffers little."""
    connect = HeadersInTime._new_conn

    def connect_narrow(self: HeadersInTime) -> socket.socket:
        sock = connect(self)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        return sock

    monkeypatch.setattr(HeadersInTime, "_new_conn", connect_narrow)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    yield lambda rate: SlowReader(listener, rate)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize(
    "content",
    [{"json": {"input_image": BIG.decode()}, "paid": True}, {"files": {"file": ("a.png", BIG, "image/png")}}],
    ids=["json", "multipart"],
)
def test_an_upload_may_take_longer_than_a_connection_and_than_the_answer_may(
    slow: Any, monkeypatch: Any, content: dict[str, Any]
) -> None:
    monkeypatch.setattr(transport_module, "CONNECT_SECONDS", 1.5)
    server = slow(4e5)
    transport = Transport(Account(server.url, "k"), Control())
    assert transport.send("POST", "/x", seconds=1.5, **content).json() == {}
    transport.close()
    assert len(server.seconds) == 1 and server.seconds[0] > 1.5 and server.lengths[0] > len(BIG)


def test_an_upload_that_nobody_takes_was_not_sent_for_certain(slow: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(transport_module, "CONNECT_SECONDS", 0.3)
    server = slow(1e4)
    transport = Transport(Account(server.url, "k"), Control())
    with pytest.raises(ConnectionFailed, match=r"the upload stood still for 0\.3 s. Nothing was sent"):
        transport.send("POST", "/x", json={"input_image": BIG.decode()}, paid=True, patient=False)
    transport.close()


def test_an_upload_ends_when_the_run_is_stopped(slow: Any, remote: Any) -> None:
    server = slow(5e4)
    control = Control()
    transport = Transport(Account(server.url, "k"), control)
    sending = remote.in_thread(lambda: transport.send("POST", "/x", json={"input_image": BIG.decode()}))
    assert server.begun.wait(PATIENCE)
    with timed() as took:
        control.interrupt()
        with pytest.raises(Interrupted):
            sending.result()
    assert took.own < 3
    transport.close()


@contextmanager
def streamed(scripted: Any, answer: bytes) -> Iterator[requests.Response]:
    with requests.Session() as session, session.get(scripted(answer).url, stream=True, timeout=PATIENCE) as response:
        yield response


@pytest.mark.parametrize("answer", [WHOLE, CHUNKED, UNTIL_CLOSED], ids=["length", "chunked", "until closed"])
def test_an_answer_that_is_whole_is_kept_although_its_time_has_passed(scripted: Any, answer: bytes) -> None:
    with streamed(scripted, answer) as response:
        assert read_body(response, Deadline(0.0)) == b"{}"


def test_an_answer_that_is_known_to_be_incomplete_is_not_waited_for_beyond_its_time(scripted: Any) -> None:
    with (
        streamed(scripted, WHOLE.replace(b": 2", b": 3")) as response,
        pytest.raises(UnexpectedReply, match="took longer"),
    ):
        read_body(response, Deadline(0.0))


def test_headers_have_their_own_time_on_a_connection_that_waited_longer_before() -> None:
    """A reused socket still has the timeout of the request before."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(WHOLE)
            connection.recv(65536)
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 600:
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return
                time.sleep(0.01)

    threading.Thread(target=serve, daemon=True).start()
    transport = Transport(Account(f"http://127.0.0.1:{listener.getsockname()[1]}", "k"), Control())
    transport.send("GET", "/first", seconds=20)
    with timed() as took, pytest.raises(OutcomeUnknown, match=r"no answer within 0\.3 s"):
        transport.send("POST", "/second", seconds=0.3, paid=True)
    assert took.own < 2
    transport.close()
