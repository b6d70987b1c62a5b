"""What "sent" means: a request is out when its last block is, and until then nothing can have been billed."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.errors import (
    ConnectionFailed,
    Interrupted,
    InvalidParameters,
    Misconfigured,
    OutcomeUnknown,
    OxenError,
    RateLimited,
)
from kontext_bridge.oxen.http import connections
from kontext_bridge.oxen.http import line as line_module
from kontext_bridge.oxen.http.transport import MAX_PAID_BYTES, Transport
from patience import PATIENCE

PATH = "/api/ai/queue"
AWAY = "https://hub.example.invalid"
SMALL = {"input_image": "data:image/png;base64,QUJD"}
BIG = {"input_image": "x" * (3 << 20)}
HELD_UP = {"input_image": "x" * 200_000}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
KEY = "the-key-of-the-account"


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


def failure(base: str, body: Any = SMALL, **how: Any) -> OxenError:
    transport = Transport(Account(base, KEY), how.pop("control", Control()))
    with pytest.raises(OxenError) as raised:
        transport.send("POST", PATH, json=body, paid=True, **{"patient": False, "seconds": 1.0, **how})
    transport.close()
    assert KEY not in str(raised.value)
    return raised.value


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("socks5://me:secret@10.0.0.9:1080", "SOCKS.*PySocks.*pip install pysocks"),
        ("socks4a://10.0.0.9", "SOCKS.*PySocks"),
        ("http://me:secret@[::1:80", "no address of a proxy"),
        ("http://me:secret@:80", "no address of a proxy"),
        ("http://10.0.0.9:99999", "no address of a proxy"),
        ("http://", "no address of a proxy"),
        ("ftp://me:secret@10.0.0.9", "no address of a proxy"),
        ("http://me:secret@exa mple:80", "no address of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(
    monkeypatch: Any, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    error = failure(AWAY)
    assert isinstance(error, Misconfigured), error
    assert variable in str(error) and "Nothing was sent" in str(error)
    assert "secret" not in str(error)
    with pytest.raises(OxenError, match=words):
        raise error


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize(
    "content", [None, b"", b"junk", b"-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"]
)
def test_certificates_that_cannot_be_used_are_named_by_variable_and_file(
    monkeypatch: Any, tmp_path: Path, variable: str, content: bytes | None
) -> None:
    bundle = tmp_path / "company.pem"
    if content is not None:
        bundle.write_bytes(content)
    monkeypatch.setenv(variable, str(bundle))
    error = failure(AWAY)
    assert isinstance(error, Misconfigured), error
    assert variable in str(error) and str(bundle) in str(error) and "Nothing was sent" in str(error)


@pytest.mark.parametrize("key", ["a key", "schlüssel", "key\r\nX: y", "k\u2028ey", "\x00key"])
def test_a_key_that_cannot_stand_in_a_header_is_told_before_anything_is_sent(talking: Any, key: str) -> None:
    server = talking(lambda sock: sock.sendall(ANSWER))
    transport = Transport(Account(server.url, key), Control())
    with pytest.raises(Misconfigured, match=r"API key cannot be sent.*Nothing was sent"):
        transport.send("POST", PATH, json=SMALL, paid=True)
    transport.close()
    assert server.heads == []


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("end", [reset, lambda sock: sock.close()], ids=["reset", "closed"])
def test_an_upload_that_breaks_off_in_the_middle_is_certain_and_is_sent_again(talking: Any, end: Any) -> None:
    error = failure(talking(end).url, BIG)
    assert isinstance(error, ConnectionFailed), error
    assert "Nothing was sent whole" in str(error)

    tries: list[int] = []

    def second_time(sock: socket.socket) -> None:
        tries.append(1)
        if len(tries) == 1:
            return end(sock)
        while len(sock.recv(1 << 20, socket.MSG_PEEK)) and not sock.recv(1 << 20).endswith(b'"}'):
            pass
        sock.sendall(ANSWER)

    transport = Transport(Account(talking(second_time).url, KEY), Control())
    assert transport.send("POST", PATH, json=BIG, paid=True).json() == {}
    transport.close()
    assert len(tries) == 2


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 78\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000 + b"\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 abc OK\r\n\r\n{}",
        b"HTTP/9.9 200 OK\r\n\r\n{}",
        b"\xff\xfe\xfd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}",
    ],
)
def test_an_answer_that_is_broken_leaves_a_paid_request_in_doubt(talking: Any, reply: bytes) -> None:
    error = failure(talking(lambda sock: sock.sendall(reply)).url)
    assert isinstance(error, OutcomeUnknown), error
    assert "key" not in str(error)


@pytest.mark.parametrize("location", [b"http://[::1", b"\xff\xfe", b"http://\xe9\xe9\x00/", b"//\\\\:x", b""])
def test_an_address_to_go_on_to_is_never_looked_at(talking: Any, location: bytes) -> None:
    reply = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    error = failure(talking(lambda sock: sock.sendall(reply)).url)
    assert type(error).__name__ == "UnexpectedReply" and not error.definite


class Odd(Exception):
    pass


@pytest.mark.parametrize("kind", [Odd, RuntimeError, AttributeError, ValueError, KeyError, MemoryError, OSError])
@pytest.mark.parametrize("out", [True, False])
def test_whatever_a_library_raises_is_one_of_our_errors(talking: Any, monkeypatch: Any, kind: Any, out: bool) -> None:
    def raising(*_: Any, **__: Any) -> None:
        raise kind("as it happens")

    monkeypatch.setattr(connections.HeadersInTime, "getresponse" if out else "putrequest", raising)
    error = failure(talking(lambda sock: sock.sendall(ANSWER)).url)
    assert isinstance(error, OutcomeUnknown if out else ConnectionFailed)
    assert out or "Nothing was sent" in str(error)


@pytest.mark.parametrize("size", [8500, 16384, 16385, 1 << 20])
def test_the_caller_is_told_just_before_the_last_block_goes_out(talking: Any, size: int) -> None:
    got = bytearray()
    missing: list[bool] = []

    def listen(sock: socket.socket) -> None:
        got.extend(server.heads[0])
        while not got.endswith(b'"}') and (block := sock.recv(1 << 20)):
            got.extend(block)
        sock.sendall(ANSWER)

    def about_to_go() -> None:
        time.sleep(0.05)  # for all that is on its way to arrive
        missing.append(not got.endswith(b'"}'))

    server = talking(listen)
    transport = Transport(Account(server.url, KEY), Control())
    transport.send("POST", PATH, json={"input_image": "x" * size}, paid=True, before_last=about_to_go)
    transport.close()
    assert missing == [True]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("no"), Interrupted("stop")])
@pytest.mark.parametrize("body", [SMALL, BIG], ids=["small", "big"])
def test_what_the_caller_raises_then_is_raised_and_the_request_is_not_completed(
    talking: Any, error: Exception, body: Any
) -> None:
    taken = bytearray()

    def listen(sock: socket.socket) -> None:
        while block := sock.recv(1 << 20):
            taken.extend(block)

    server = talking(listen)
    transport = Transport(Account(server.url, KEY), Control())

    def refuse() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        transport.send("POST", PATH, json=body, paid=True, before_last=refuse)
    transport.close()
    assert raised.value is error
    assert server.ended.acquire(timeout=PATIENCE)
    assert not (b"".join(server.heads) + taken).endswith(b"}")


def envelope(status: str, body: bytes, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


OWN = b'{"error":{"type":"rate_limited"}}'


def test_a_429_that_is_not_the_services_own_is_raised_at_once_for_a_paid_request(talking: Any) -> None:
    server = talking(lambda sock: sock.sendall(envelope("429 Slow", b"slow down", "Retry-After: 7\r\n")))
    error = failure(server.url, patient=True)
    assert isinstance(error, RateLimited) and not error.definite and error.retry_after == 7.0
    assert len(server.heads) == 1


def test_a_429_of_the_service_is_waited_out(talking: Any) -> None:
    answers = [envelope("429 Slow", OWN, "Retry-After: 0\r\nConnection: close\r\n"), ANSWER]
    server = talking(lambda sock: sock.sendall(answers[len(server.heads) - 1]))
    transport = Transport(Account(server.url, KEY), Control())
    assert transport.send("POST", PATH, json=SMALL, paid=True).json() == {}
    transport.close()
    assert len(server.heads) == 2


@pytest.mark.parametrize(
    ("status", "body", "definite"),
    [
        ("400 Bad", OWN, True),
        ("402 Pay", b'{"error":"no credits"}', True),
        ("409 No", OWN, True),
        ("425 No", OWN, True),
        ("500 Oops", OWN, True),
        ("502 Oops", OWN, True),
        ("408 No", OWN, False),
        ("499 No", OWN, False),
        ("504 No", OWN, False),
        ("524 No", OWN, False),
        ("400 Bad", b'{"error":{}}', False),
        ("400 Bad", b'{"error":""}', False),
        ("400 Bad", b'{"error":" "}', False),
        ("400 Bad", b'{"error":true}', False),
        ("400 Bad", b'{"error":["no"]}', False),
        ("400 Bad", b'{"error":400}', False),
        ("400 Bad", b'[{"error":"no"}]', False),
        ("409 No", b"", False),
        ("403 No", b"<html>blocked by your company</html>", False),
        ("413 No", b'{"message":"too large"}', False),
        ("302 Found", OWN, False),
    ],
)
def test_only_the_services_own_envelope_is_its_own_word(talking: Any, status: str, body: bytes, definite: bool) -> None:
    error = failure(talking(lambda sock: sock.sendall(envelope(status, body))).url)
    assert error.definite is definite
    assert error.status == int(status[:3])
    assert definite or "nothing was charged" not in str(error)


def test_an_answer_of_102_or_103_before_the_answer_is_skipped(talking: Any) -> None:
    interim = (
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    )
    transport = Transport(Account(talking(lambda sock: sock.sendall(interim + ANSWER)).url, KEY), Control())
    assert transport.send("POST", PATH, json=SMALL, paid=True).json() == {}
    transport.close()


def test_an_answer_that_switches_protocols_is_no_success(talking: Any) -> None:
    error = failure(talking(lambda sock: sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")).url)
    assert type(error).__name__ == "UnexpectedReply"


def test_a_picture_that_is_too_large_to_send_is_refused_before_it_is(talking: Any) -> None:
    server = talking(lambda sock: sock.sendall(ANSWER))
    client = Client(Account(server.url, KEY))
    with pytest.raises(InvalidParameters, match=r"Nothing was sent.*[Ss]cale the picture down.*Oxen upload"):
        client.enqueue(EditParameters(prompt="a hat", seed=1), "x" * MAX_PAID_BYTES)
    client.close()
    assert server.heads == []


def test_what_is_not_out_when_a_paid_request_is_given_up_never_gets_there(talking: Any) -> None:
    """A line that is down keeps what was sent, and the system would go on sending it for minutes after its program."""
    goes_on, got = threading.Event(), []

    def down_for_a_while(sock: socket.socket) -> None:
        goes_on.wait(PATIENCE)
        with contextlib.suppress(ConnectionResetError):
            while block := sock.recv(1 << 16):
                got.append(len(block))

    server = talking(down_for_a_while)
    server._server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    error = failure(server.url, HELD_UP, seconds=0.2)
    goes_on.set()
    assert server.ended.acquire(timeout=PATIENCE)
    assert isinstance(error, OutcomeUnknown) and sum(got) < len(HELD_UP["input_image"])


def test_a_connection_drops_what_is_not_out_only_as_long_as_a_paid_request_is_on_it(talking: Any) -> None:
    """So it does where its program is killed."""
    socks: list[Any] = []
    server = talking(lambda sock: sock.sendall(ANSWER))
    transport = Transport(Account(server.url, KEY), Control())

    def drops() -> bool:
        form = line_module._LINGER
        told = socks[-1].getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.calcsize(form))
        return bool(struct.unpack(form, told)[0])

    def before_last() -> None:
        line = line_module.current()
        assert line is not None
        socks.append(line._sock)
        assert drops() is (len(socks) == 1)

    transport.send("POST", PATH, json=SMALL, paid=True, before_last=before_last)
    assert not drops()
    transport.send("POST", PATH, json=SMALL, before_last=before_last)
    transport.close()
