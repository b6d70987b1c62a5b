"""Every byte that comes is bounded, in number and in time, and Cancel ends a request whatever it waits for."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kontext_bridge.oxen.api import events
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.api.events import EventStream
from kontext_bridge.oxen.api.replies import JobStatus, Row
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.control import Control, Deadline
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.errors import Interrupted, OutcomeUnknown, OxenError, ResultUnavailable, UnexpectedReply
from kontext_bridge.oxen.http import connections
from kontext_bridge.oxen.http import transport as transport_module
from kontext_bridge.oxen.http.fetch import Fetcher, FetchLimits
from kontext_bridge.oxen.http.structure import looks_too_intricate
from kontext_bridge.oxen.http.transport import REPLY_BYTES, Transport
from kontext_bridge.oxen.jobs.slots import slot
from patience import PATIENCE, timed

PATH = "/api/ai/queue"
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
EVENTS = HEAD + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BIG = {"input_image": "x" * (16 << 20)}
PARAMETERS = EditParameters(prompt="a hat", seed=1)


def flood(head: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def talk(sock: socket.socket) -> None:
        sock.sendall(head)
        while True:
            sock.sendall(piece)

    return talk


def drip(head: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def talk(sock: socket.socket) -> None:
        sock.sendall(head)
        while True:
            sock.sendall(piece)
            time.sleep(0.02)

    return talk


def hang(head: bytes = b"") -> Callable[[socket.socket], None]:
    def talk(sock: socket.socket) -> None:
        sock.sendall(head)
        while sock.recv(65536):
            pass

    return talk


ENDLESS = {
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n" * 1000),
    "an extension": (CHUNKED + b"2;", b"x" * 1000),
    "extensions": (CHUNKED, b"1;" + b"x" * 1000 + b"\r\n \r\n"),
    "a header line": (HEAD + b"X: ", b"x" * 1000),
    "header lines": (HEAD, b"X: y\r\n" * 100),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "a header of an interim answer": (b"HTTP/1.1 102 Processing\r\n", b"X: y\r\n"),
    "a body": (HEAD + b"\r\n", b" " * 1000),
    "a body that says how long it is": (HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
    "an empty gzip": (HEAD + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"") * 100),
    "an error": (b"HTTP/1.1 500 Oops\r\n\r\n", b" " * 1000),
}


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("way", [flood, drip], ids=["at once", "slowly"])
def test_an_answer_without_end_is_over_at_its_deadline(talking: Any, name: str, way: Any) -> None:
    server = talking(way(*ENDLESS[name]))
    transport = Transport(Account(server.url, "k"), Control())
    with timed() as took:
        with pytest.raises(OxenError):
            transport.send("POST", PATH, json={}, paid=True, seconds=0.4, patient=False)
        transport.close()
    assert took.own < 2.0
    assert server.ended.acquire(timeout=PATIENCE)  # the socket is shut


@pytest.mark.parametrize("name", ENDLESS)
def test_a_download_without_end_is_over_at_its_deadline(talking: Any, name: str) -> None:
    server = talking(drip(*ENDLESS[name]))
    fetcher = Fetcher(Control(), account=Account(server.url, None), limits=FetchLimits(max_seconds=0.4))
    with timed() as took:
        with pytest.raises(OxenError):
            fetcher.fetch(server.url + "/a.png")
        fetcher.close()
    assert took.own < 2.0


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"303 Other", b"307 Again", b"308 Again", b"300 Many"])
@pytest.mark.parametrize("route", ["reply", "download", "events"])
def test_the_body_of_an_answer_that_points_elsewhere_is_not_read(talking: Any, status: bytes, route: str) -> None:
    sent = [0]

    def talk(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 " + status + b"\r\nLocation: http://10.0.0.1/\r\n\r\n")
        while True:
            sent[0] += sock.send(b"x" * 65536)

    server = talking(talk)
    account = Account(server.url, "k")
    transport = Transport(account, Control())
    fetcher = Fetcher(Control(), account=account)
    with timed() as took:
        with pytest.raises(OxenError):
            if route == "reply":
                transport.send("GET", PATH)
            elif route == "download":
                fetcher.fetch(server.url + "/x")
            else:
                EventStream(transport)._read_one_stream()
        transport.close(), fetcher.close()
    assert took.own < 1.0
    assert server.ended.acquire(timeout=PATIENCE)
    assert sent[0] < 16 << 20  # what the system's own buffers take


def cancelled(
    work: Callable[[], Any], control: Control, when: Callable[[], bool]
) -> tuple[BaseException | None, float]:
    """What `work` raised after a Cancel, and how long after it."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    deadline = Deadline(PATIENCE)
    while not when() and not deadline.passed:
        time.sleep(0.01)
    time.sleep(0.1)
    assert thread.is_alive()
    with timed() as took:
        control.interrupt()
        thread.join(PATIENCE)
    assert not thread.is_alive()
    return (raised[0] if raised else None), took.own


WAITS = {
    "the status line": b"",
    "the headers": HEAD,
    "the body": HEAD + b"Content-Length: 100\r\n\r\n{",
    "a chunk": CHUNKED + b"100\r\n{",
    "the trailers": CHUNKED + b"2\r\n{}\r\n0\r\nX: y\r\n",
    "an error's words": b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\n{",
}


@pytest.mark.parametrize("name", WAITS)
@pytest.mark.parametrize("route", ["reply", "download"])
def test_cancel_ends_a_request_that_waits_for(talking: Any, name: str, route: str) -> None:
    server = talking(hang(WAITS[name]))
    control = Control()
    transport = Transport(Account(server.url, "k"), control)
    fetcher = Fetcher(control, account=transport.account)
    work = {"reply": lambda: transport.send("GET", PATH), "download": lambda: fetcher.fetch(server.url + "/x")}[route]
    if route == "download" and name == "an error's words":
        with pytest.raises(ResultUnavailable):  # which a download does not wait for
            work()
        return
    error, seconds = cancelled(work, control, lambda: bool(server.heads))
    transport.close(), fetcher.close()
    assert isinstance(error, Interrupted) and seconds < 0.5
    assert server.ended.acquire(timeout=PATIENCE)


@pytest.fixture
def deaf() -> Iterator[tuple[str, int]]:
    """A listener that takes no connection any more: the next one hangs while it connects."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        time.sleep(0.05)
        yield listener.getsockname()


def test_cancel_ends_a_request_that_connects(deaf: tuple[str, int]) -> None:
    control = Control()
    transport = Transport(Account(f"http://127.0.0.1:{deaf[1]}", "k"), control)
    error, seconds = cancelled(lambda: transport.send("POST", PATH, json={}, paid=True), control, lambda: True)
    transport.close()
    assert isinstance(error, Interrupted) and seconds < 0.5


def test_cancel_ends_a_request_that_looks_a_name_up(monkeypatch: Any) -> None:
    asked, over = threading.Event(), threading.Event()

    def slow(*_: Any, **__: Any) -> Any:
        asked.set()
        over.wait(5)
        raise socket.gaierror(-3, "no name server")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setenv("NO_PROXY", "*")
    control = Control()
    transport = Transport(Account("https://hub.example", "k"), control)
    error, seconds = cancelled(lambda: transport.send("GET", PATH), control, asked.is_set)
    transport.close()
    over.set()
    assert isinstance(error, Interrupted) and seconds < 0.5


def test_cancel_ends_a_tls_handshake(monkeypatch: Any) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken: list[socket.socket] = []
        threading.Thread(target=lambda: taken.append(listener.accept()[0]), daemon=True).start()
        control = Control()
        transport = Transport(Account(f"https://127.0.0.1:{listener.getsockname()[1]}", "k"), control)
        error, seconds = cancelled(lambda: transport.send("GET", PATH), control, lambda: bool(taken))
        transport.close()
        taken[0].close()
    assert isinstance(error, Interrupted) and seconds < 0.5


def test_cancel_ends_a_request_to_a_proxy_for_a_tunnel(talking: Any, monkeypatch: Any) -> None:
    server = talking(hang(b"HTTP/1.1 200 OK\r\nX: y"))
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    control = Control()
    transport = Transport(Account("https://hub.example.invalid", "k"), control)
    error, seconds = cancelled(lambda: transport.send("GET", PATH), control, lambda: bool(server.heads))
    transport.close()
    assert isinstance(error, Interrupted) and seconds < 0.5


def test_cancel_ends_an_upload(talking: Any) -> None:
    over = threading.Event()
    server = talking(lambda sock: over.wait(5))
    control = Control()
    transport = Transport(Account(server.url, "k"), control)
    work = lambda: transport.send("POST", PATH, json=BIG, paid=True, lingers=60.0)  # noqa: E731
    error, seconds = cancelled(work, control, lambda: bool(server.heads))
    transport.close()
    over.set()
    assert isinstance(error, Interrupted) and seconds < 0.5


@pytest.mark.parametrize("start", [b"", HEAD, EVENTS, EVENTS + b"0\r\n"], ids=["open", "headers", "stream", "trailers"])
@pytest.mark.parametrize("how", ["close", "interrupt"])
def test_an_event_stream_ends_at_once_in_any_phase(talking: Any, start: bytes, how: str) -> None:
    server = talking(hang(start))
    control = Control()
    transport = Transport(Account(server.url, "k"), control)
    stream = EventStream(transport)
    with stream:
        while not server.heads:
            time.sleep(0.01)
        time.sleep(0.05)
        stream.close() if how == "close" else control.interrupt()
        stream._thread.join(1.0)
        assert not stream._thread.is_alive()
    transport.close()
    assert server.ended.acquire(timeout=PATIENCE)


def test_a_job_that_is_taken_while_cancel_is_pressed_is_known(talking: Any) -> None:
    answer = json.dumps({"generations": [{"generation_id": "x-1"}]}).encode()

    def talk(sock: socket.socket) -> None:
        time.sleep(0.4)
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(answer) + answer)

    server = talking(talk)
    client = Client(Account(server.url, "k"))
    found: list[str] = []
    error, _ = cancelled(
        lambda: found.append(client.enqueue(PARAMETERS, "x")), client.control, lambda: bool(server.heads)
    )
    client.close()
    assert error is None and found == ["x-1"]


def test_a_paid_request_without_an_answer_is_in_doubt_soon_after_cancel(talking: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.api.client._LINGER_SECONDS", 0.3)
    server = talking(hang())
    client = Client(Account(server.url, "k"))
    error, seconds = cancelled(lambda: client.enqueue(PARAMETERS, "x"), client.control, lambda: bool(server.heads))
    client.close()
    assert isinstance(error, OutcomeUnknown) and seconds < 1.5
    assert server.ended.acquire(timeout=PATIENCE)


def test_a_blocking_edit_keeps_its_answer_after_cancel(talking: Any) -> None:
    answer = b'{"images":[{"b64_json":"QUJD"}]}'

    def talk(sock: socket.socket) -> None:
        time.sleep(0.5)
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(answer) + answer)

    server = talking(talk)
    client = Client(Account(server.url, "k"))
    found: list[Any] = []
    error, _ = cancelled(lambda: found.append(client.edit(PARAMETERS, "x")), client.control, lambda: bool(server.heads))
    client.close()
    assert error is None and found[0][0].data == b"ABC"


def test_cancelled_requests_give_their_slots_back_at_once(talking: Any) -> None:
    server = talking(hang())
    clients = [Client(Account(server.url, "k")) for _ in range(8)]

    def hung(client: Client) -> None:
        with slot(8, client.control), contextlib.suppress(OxenError):
            client.edit(PARAMETERS, "x", seconds=20.0)

    threads = [threading.Thread(target=hung, args=(client,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    while len(server.heads) < 8:
        time.sleep(0.01)
    for client in clients:
        client.control.interrupt()
    with timed() as took, slot(8, Control()):
        alive = [thread.is_alive() for thread in threads]
    assert took.own < 0.5
    assert all(alive)  # their pictures are still waited for
    for client in clients:
        client.close()


def test_a_slot_that_was_given_back_early_is_given_back_once() -> None:
    stopped = Control()
    with slot(1, stopped):
        stopped.interrupt()
        with slot(1, Control()):
            pass
    with slot(1, Control()), pytest.raises(Interrupted):
        late = Control()
        threading.Timer(0.1, late.interrupt).start()
        with slot(1, late):
            pass


def packed(*headers: bytes, body: bytes) -> bytes:
    return HEAD + b"\r\n".join([*headers, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body


BOMBS = {
    "lists": b'{"generations":[' + b"[]," * 3_000_000 + b"0]}",
    "numbers": b'{"generations":[' + b"1," * 3_000_000 + b"0]}",
    "objects": b'{"generations":[' + b"{}," * 3_000_000 + b"0]}",
    "names": b'{"generations":[' + b'{"":{"":0}},' * 1_000_000 + b"0]}",
    "texts": b'{"generations":[' + b'"",' * 3_000_000 + b"0]}",
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize(
    "route", ["enqueue", "edit", "row", "active", "history", "past", "cancel", "model", "username"]
)
def test_a_small_answer_that_unpacks_to_very_many_values_is_not_read(talking: Any, name: str, route: str) -> None:
    bomb = gzip.compress(BOMBS[name], 1)
    assert len(bomb) < 200_000
    server = talking(lambda sock: sock.sendall(packed(b"Content-Encoding: gzip", body=bomb)))
    client = Client(Account(server.url, "k"))
    calls: dict[str, Callable[[], Any]] = {
        "enqueue": lambda: client.enqueue(PARAMETERS, "x"),
        "edit": lambda: client.edit(PARAMETERS, "x"),
        "row": lambda: client.row("x-1"),
        "active": client.active,
        "history": client.history,
        "past": lambda: client.past("x-1"),
        "model": client.model,
        "username": client.username,
    }
    since = time.process_time()
    if route == "cancel":
        with contextlib.suppress(UnexpectedReply):
            client.cancel("x-1")
    else:
        with pytest.raises((UnexpectedReply, OutcomeUnknown), match=r"more values|more than \d+ MB"):
            calls[route]()
    client.close()
    assert time.process_time() - since < 1.5


def test_what_a_reply_holds_is_not_too_intricate() -> None:
    row = {
        "generation_id": "x" * 36,
        "prompt": "a hat, a red one, please: now, and here " * 10,
        **{f"k{n}": n for n in range(30)},
    }
    rows = json.dumps({"generations": [row] * 1000}).encode()
    assert not looks_too_intricate(rows)
    assert not looks_too_intricate(b'{"b64_json":"' + b"QUJD" * 1_000_000 + b'"}')
    assert looks_too_intricate(BOMBS["lists"])


@pytest.mark.parametrize("route", ["model", "username", "cancel", "enqueue"])
def test_an_answer_of_a_route_without_pictures_is_a_few_megabytes_at_most(talking: Any, route: str) -> None:
    body = b'{"error":null,"x":"' + b"y" * REPLY_BYTES + b'"}'
    server = talking(lambda sock: sock.sendall(packed(body=body)))
    client = Client(Account(server.url, "k"))
    calls: dict[str, Callable[[], Any]] = {
        "model": client.model,
        "username": client.username,
        "cancel": lambda: client.cancel("x-1"),
        "enqueue": lambda: client.enqueue(PARAMETERS, "x"),
    }
    with pytest.raises((UnexpectedReply, OutcomeUnknown), match="more than 4 MB"):
        calls[route]()
    client.close()


def test_a_row_may_hold_the_largest_picture_that_is_sent(talking: Any) -> None:
    picture = "data:image/png;base64," + "A" * (transport_module.MAX_PAID_BYTES - 4096)
    row = json.dumps({"generation_id": "x-1", "status": "queued", "input_image": picture}).encode()
    server = talking(lambda sock: sock.sendall(packed(body=row)))
    client = Client(Account(server.url, "k"))
    assert client.row("x-1") == Row("x-1", JobStatus.QUEUED)  # itself without the picture, which nobody reads there
    client.close()


def test_an_error_that_is_longer_than_it_may_be_keeps_its_status(talking: Any) -> None:
    server = talking(flood(b"HTTP/1.1 402 Pay\r\n\r\n", b"x" * 65536))
    client = Client(Account(server.url, "k"))
    with pytest.raises(OxenError) as raised:
        client.enqueue(PARAMETERS, "x")
    client.close()
    assert raised.value.status == 402 and not raised.value.definite


def test_what_an_event_says_is_kept_short(talking: Any, home: Any) -> None:
    said = json.dumps(
        {"generation_id": "x-1", "status": "failed", "error": "e" * 500_000, "url": "http://" + "u" * 50_000}
    )
    bomb = json.dumps({"generation_id": "x-2", "status": "failed", "x": [[]] * 200_000})
    data = b"".join(f"event: {events.EVENT_NAME}\ndata: {text}\n\n".encode() for text in (said, bomb))
    server = talking(lambda sock: sock.sendall(EVENTS + b"%x\r\n" % len(data) + data + b"\r\n0\r\n\r\n"))
    transport = Transport(Account(server.url, "k"), Control())
    stream = EventStream(transport)
    stream._read_one_stream()
    transport.close()
    kept = stream.get("x-1")
    assert kept is not None and len(kept.error or "") <= 300 and kept.url is None
    assert stream.get("x-2") is None


def test_no_thread_is_no_reason_to_fail(talking: Any, monkeypatch: Any) -> None:
    server = talking(lambda sock: sock.sendall(packed(body=b"{}")))
    start = threading.Thread.start

    def no_thread(self: threading.Thread) -> None:
        if self.name.startswith("kontext-bridge"):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    transport = Transport(Account(server.url, "k"), Control())
    with EventStream(transport) as stream:
        assert stream.settled
        assert transport.send("GET", PATH).json() == {}
    transport.close()


def test_no_file_handle_is_told_with_what_to_do(talking: Any, monkeypatch: Any) -> None:
    server = talking(lambda sock: sock.sendall(packed(body=b"{}")))
    account = Account(server.url, "k")
    transport, fetcher = Transport(account, Control()), Fetcher(Control(), account=account)

    class Full(socket.socket):
        def __init__(self, *_: Any, **__: Any) -> None:
            raise OSError(24, "Too many open files")

    monkeypatch.setattr(connections.socket, "socket", Full)
    with pytest.raises(OxenError, match=r"no file handle left.*Nothing was sent.*ulimit -n"):
        transport.send("POST", PATH, json={}, paid=True, patient=False)
    with pytest.raises(OxenError, match=r"no file handle left.*ulimit -n"):
        fetcher.fetch(server.url + "/x")
    monkeypatch.undo()
    transport.close(), fetcher.close()
