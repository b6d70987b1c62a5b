from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import requests
from kontext_bridge.oxen.api.client import Client
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.control import Control, Deadline
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.errors import (
    ClientRefused,
    ConnectionFailed,
    InvalidParameters,
    Misconfigured,
    ModelNotFound,
    ModerationBlocked,
    OutcomeUnknown,
    OutOfCredits,
    OxenError,
    RateLimited,
    ReplyError,
    Unauthenticated,
    UnexpectedReply,
    Upstream,
)
from kontext_bridge.oxen.http.transport import (
    MAX_RETRY_AFTER,
    USER_AGENT,
    Transport,
    classify,
    new_session,
    read_body,
    retry_after,
)
from kontext_bridge.standin import Fault

PEM = Path(__file__).with_name("loopback.pem")
PARAMETERS = EditParameters(prompt="a hat", seed=1, output_format="jpg")
QUEUE = "/api/ai/queue"


def enqueue(transport: Transport, seconds: float = 5.0) -> Any:
    body = {**PARAMETERS.body(), "input_image": "data:image/png;base64,QUJD"}
    return transport.send("POST", QUEUE, json=body, paid=True, seconds=seconds).json()


def answer(status: str, body: bytes = b"{}", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize(
    ("fault", "jobs"),
    [
        ("reset_before_body", 0),
        ("never_answers", 0),
        ("server_error", 0),
        ("upstream_error", 0),
        ("html_reply", 0),
        ("deep_json", 0),
        ("answer_dropped", 1),
        ("answer_cut", 1),
        ("answer_error", 1),
        ("answer_html", 1),
        ("answer_never", 1),
    ],
)
def test_a_paid_request_that_may_have_arrived_is_never_sent_again(serve: Any, fault: str, jobs: int) -> None:
    remote = serve(**{fault: True})
    with pytest.raises((OutcomeUnknown, Upstream, UnexpectedReply)) as raised:
        enqueue(remote.transport(), seconds=0.4)
    assert not raised.value.retryable
    assert remote.count("enqueue") == 1
    assert len(remote.server.billed) == jobs


def test_a_request_that_costs_nothing_is_tried_again_after_a_reset(serve: Any) -> None:
    remote = serve(poll_reset=Fault(times=1))
    job = enqueue(remote.transport())["generations"][0]["generation_id"]
    assert remote.transport().send("GET", f"{QUEUE}/{job}").json()["generation_id"] == job
    assert remote.count("row") == 2


def test_a_paid_request_waits_for_a_service_that_cannot_be_reached_yet_and_is_sent_once(remote: Any) -> None:
    remote.server.refuse_connections()
    sending = remote.in_thread(lambda: enqueue(remote.transport()))
    time.sleep(0.1)
    remote.server.accept_connections()
    assert sending.result()["generations"]
    assert (remote.count("enqueue"), len(remote.server.billed)) == (1, 1)


def test_a_service_that_stays_away_is_reported_with_nothing_sent(remote: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.http.transport._backoff", lambda attempt: 0.01)
    remote.server.refuse_connections()
    with pytest.raises(ConnectionFailed, match=r"No connection to 127.0.0.1:\d+: .*Nothing was sent") as raised:
        enqueue(remote.transport())
    assert "0x" not in str(raised.value)
    assert remote.server.requests == []


def test_a_name_that_does_not_resolve_is_a_connection_failure(home: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.http.transport._backoff", lambda attempt: 0.01)
    monkeypatch.setenv("NO_PROXY", "*")
    transport = Transport(Account("https://no-such-host.invalid", "k"), Control())
    with pytest.raises(ConnectionFailed, match=r"No connection to no-such-host.invalid.*Nothing was sent"):
        enqueue(transport)
    transport.close()


@pytest.mark.parametrize("value", [0.05, "date:0"])
def test_after_429_the_wait_asked_for_in_either_form_is_kept_and_one_request_is_accepted(
    serve: Any, value: Any
) -> None:
    remote = serve(rate_limited=Fault(value, times=2))
    assert enqueue(remote.transport())["generations"]
    assert (remote.count("enqueue"), len(remote.server.billed)) == (3, 1)


def test_429_for_ever_ends_in_an_error_that_says_what_to_do(serve: Any) -> None:
    remote = serve(rate_limited=0)
    with pytest.raises(RateLimited, match=r"max_in_flight.*settings") as raised:
        enqueue(remote.transport())
    assert raised.value.retryable and raised.value.retry_after == 0.0
    assert 2 <= remote.count("enqueue") <= 10
    assert remote.server.billed == []


def test_a_wait_after_429_ends_at_once_when_the_run_is_stopped(serve: Any) -> None:
    remote = serve(rate_limited=50)
    control = Control()
    sending = remote.in_thread(lambda: enqueue(remote.transport(control)))
    remote.server.wait_for(lambda s: s.shown["rate_limited"])
    control.interrupt()
    with pytest.raises(OxenError, match="stopped"):
        sending.result(timeout=45)
    assert remote.count("enqueue") == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("1.5", 1.5),
        (" 2 ", 2.0),
        ("-5", 0.0),
        ("86400", MAX_RETRY_AFTER),
        ("inf", MAX_RETRY_AFTER),
        (formatdate(0, usegmt=True), 0.0),
        ("Tue, 31 Dec 2999 23:59:59 GMT", MAX_RETRY_AFTER),
        ("nan", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_a_retry_after_in_any_form_gives_a_bounded_wait_or_none(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_a_retry_after_as_a_date_is_the_time_until_then() -> None:
    wait = retry_after(formatdate(time.time() + 30, usegmt=True))
    assert wait is not None and 25 < wait <= 30


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidParameters),
        (401, Unauthenticated),
        (402, OutOfCredits),
        (403, Unauthenticated),
        (404, ModelNotFound),
        (413, InvalidParameters),
        (422, InvalidParameters),
        (426, ClientRefused),
        (429, RateLimited),
        (500, Upstream),
        (502, Upstream),
        (504, Upstream),
        (302, UnexpectedReply),
    ],
)
def test_each_status_has_its_error_which_carries_it(status: int, kind: type[ReplyError]) -> None:
    error = classify(status, {}, "the words")
    assert type(error) is kind
    assert error.status == status
    assert "the words" in str(error) or status == 302


@pytest.mark.parametrize("words", ["Flagged by NSFW filter", "violates our content policy", "input was moderated"])
def test_a_refusal_by_the_safety_check_is_told_apart(words: str) -> None:
    error = classify(400, {}, words)
    assert isinstance(error, ModerationBlocked) and words in str(error)


@pytest.mark.parametrize(
    ("words", "moderated"),
    [
        ("disable_safety_checker must be a boolean", False),
        ("unknown parameter: disable_safety_checker", False),
        ("The safety checker stopped it; disable_safety_checker is not allowed", True),
    ],
)
def test_the_name_of_our_own_parameter_is_no_word_of_the_safety_check(words: str, moderated: bool) -> None:
    assert type(classify(400, {}, words)) is (ModerationBlocked if moderated else InvalidParameters)


@pytest.mark.parametrize(
    ("source", "words"),
    [("OXEN_API_KEY", "accept the API key from OXEN_API_KEY (HTTP 401)"), ("nowhere", "accept the API key (HTTP 401)")],
)
def test_a_key_that_is_refused_is_named_by_where_it_came_from(scripted: Any, source: str, words: str) -> None:
    transport = Transport(Account(scripted(answer("401 No")).url, "k", source), Control())
    with pytest.raises(Unauthenticated) as raised:
        enqueue(transport)
    transport.close()
    assert words in str(raised.value)


def failure(transport: Transport, **how: Any) -> OxenError:
    with pytest.raises(OxenError) as raised:
        transport.send("GET", QUEUE, patient=False, **how)
    transport.close()
    return raised.value


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"", "the connection was closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "the answer ended early"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}", "the answer is packed in a way"),
    ],
)
def test_a_broken_answer_is_told_in_plain_words(scripted: Any, reply: bytes, words: str) -> None:
    error = failure(Transport(Account(scripted(reply).url, "the-key-of-the-account"), Control()))
    assert isinstance(error, ConnectionFailed)
    assert f"broke off: {words}" in str(error) and "(" not in str(error)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("poll_reset", "the connection was reset"), ("poll_never_answers", "no answer within 0.3 s")],
)
def test_a_connection_that_breaks_off_is_told_in_plain_words(serve: Any, fault: str, words: str) -> None:
    transport = serve(**{fault: Fault(route="queue")}).transport()
    said = str(failure(transport, seconds=0.3))
    assert said.endswith(f" broke off: {words}. Run again to go on: what was sent is not paid a second time.")


def test_a_service_that_is_not_there_is_told_in_plain_words(remote: Any) -> None:
    remote.server.refuse_connections()
    assert ": connection refused. Nothing was sent." in str(failure(remote.transport()))


def test_a_body_that_stops_in_the_middle_is_told_in_plain_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened: list[socket.socket] = []
        threading.Thread(target=lambda: opened.append(listener.accept()[0]), daemon=True).start()
        transport = Transport(Account(f"http://127.0.0.1:{listener.getsockname()[1]}", "k"), Control())
        timer = threading.Timer(0.1, lambda: opened[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"))
        timer.start()
        assert "broke off: no answer within 0.3 s." in str(failure(transport, seconds=0.3))
        opened[0].close()


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
def test_a_proxy_that_lets_nothing_through_means_that_nothing_was_sent(
    scripted: Any, monkeypatch: Any, status: str
) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.http.transport._backoff", lambda attempt: 0.01)
    proxy = scripted(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
    monkeypatch.setenv("https_proxy", proxy.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    transport = Transport(Account("https://no-such-host.invalid", "k"), Control())
    with pytest.raises(ConnectionFailed, match=f"by way of the proxy: .*{status}.*Nothing was sent"):
        enqueue(transport)
    transport.close()
    assert len(proxy.received) == 3 and all(request.startswith(b"CONNECT ") for request in proxy.received)


def test_a_refused_tunnel_of_before_does_not_make_a_request_one_that_was_never_sent(scripted: Any) -> None:
    server = scripted(b"")
    transport = Transport(Account(server.url, "k"), Control())
    try:
        raise OSError("Tunnel connection failed: 407")
    except OSError:
        with pytest.raises(OutcomeUnknown):
            enqueue(transport)
    transport.close()
    assert len(server.received) == 1


def test_no_request_of_ours_has_oxen_in_its_user_agent(remote: Any) -> None:
    client = Client(remote.account)
    job = client.enqueue(PARAMETERS, "data:image/png;base64,QUJD")
    client.row(job), client.active(), client.history(), client.model(), client.username()
    client.close()
    remote.run(remote.edits())
    agents = {request.headers["User-Agent"] for request in remote.server.requests}
    assert agents == {USER_AGENT}
    assert "oxen" not in USER_AGENT.lower()


def test_a_password_in_netrc_is_not_sent_anywhere(remote: Any, tmp_path: Path, monkeypatch: Any) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("NO_PROXY", "*")
    session = requests.Session()
    assert session.get(remote.server.url + "/api/ai/models", timeout=5).request.headers["Authorization"]
    for key in (None, remote.server.key):
        transport = Transport(Account(remote.server.url, key), Control(), session)
        transport.send("GET", "/api/ai/models", public=True)
    session.close()
    assert [request.bearer.value for request in remote.server.requests] == ["other", "none", "right"]


def test_a_proxy_is_not_used_to_reach_this_machine(remote: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert enqueue(remote.transport())["generations"]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_a_redirect_is_not_followed_with_the_key(scripted: Any, status: str) -> None:
    other = scripted(answer("200 OK"))
    server = scripted(answer(status, Location=f"{other.url}/api/ai/queue"))
    transport = Transport(Account(server.url, "the-key-of-the-account"), Control())
    for paid in (True, False):
        with pytest.raises(UnexpectedReply, match=r"HTTP 30\d.*OXEN_BASE_URL"):
            transport.send("POST", QUEUE, json={}, paid=paid)
    transport.close()
    assert (len(server.received), other.received) == (2, [])


def test_nothing_is_sent_without_a_key_but_what_is_public(remote: Any) -> None:
    transport = remote.transport(key=None)
    with pytest.raises(Misconfigured, match="OXEN_API_KEY"):
        enqueue(transport)
    assert remote.server.requests == []
    assert transport.send("GET", "/api/ai/models", public=True).status == 200


def test_an_answer_that_never_ends_is_cut_at_the_limit(serve: Any) -> None:
    remote = serve(poll_endless=True)
    headers = {"Authorization": f"Bearer {remote.server.key}"}
    with (
        requests.get(f"{remote.server.url}{QUEUE}/x", headers=headers, stream=True, timeout=5) as response,
        pytest.raises(UnexpectedReply, match="more than 1 MB"),
    ):
        read_body(response, Deadline(30.0), limit=1 << 20)


def test_an_answer_that_trickles_is_given_up_at_its_deadline(serve: Any) -> None:
    remote = serve(poll_endless=True)
    with pytest.raises(UnexpectedReply, match=r"took longer than 0\.2 s"):
        remote.transport().send("GET", f"{QUEUE}/x", seconds=0.2, max_bytes=1 << 30)


def test_a_paid_answer_that_is_too_long_leaves_the_outcome_open(serve: Any) -> None:
    remote = serve(endless_reply=True)
    with pytest.raises(OutcomeUnknown, match="could not be read"):
        enqueue(remote.transport(), seconds=0.2)
    assert remote.count("enqueue") == 1


@pytest.mark.parametrize(
    "words",
    [
        "bad key {key}",
        "403 Client Error: Forbidden for url: https://hub.oxen.ai/f.png?oxen_signature=abcdef",
        "cannot open data:image/png;base64,{data}",
    ],
)
@pytest.mark.parametrize("status", ["400 Bad Request", "500 Oops", "200 OK"])
def test_what_the_service_quotes_is_shown_without_secrets(scripted: Any, status: str, words: str) -> None:
    key = "SFMyNTY.the-key-of-the-account"
    quoted = words.format(key=key, data="iVBORw0KGgo" * 9)
    server = scripted(answer(status, b'{"error":{"detail":"%s"}}' % quoted.encode()))
    client = Client(Account(server.url, key))
    with pytest.raises(OxenError) as raised:
        client.enqueue(PARAMETERS, "data:image/png;base64,QUJD")
    client.close()
    for secret in (key[:12], "abcdef", "iVBORw0KGgo"):
        assert secret not in str(raised.value)
    assert words[:7] in str(raised.value)


def test_a_page_that_is_no_json_is_quoted_without_the_key(scripted: Any) -> None:
    key = "SFMyNTY.the-key-of-the-account"
    server = scripted(answer("200 OK", f"unknown key {key}".encode()))
    client = Client(Account(server.url, key))
    with pytest.raises(UnexpectedReply, match="unknown key") as raised:
        client.row("an-id")
    client.close()
    assert key[:12] not in str(raised.value)


def test_the_error_of_a_failed_row_is_shown_without_signatures(scripted: Any) -> None:
    row = b'{"generation_id":"x","status":"failed","error_message":"403 for url: https://a.example/f?sig=abcdef"}'
    client = Client(Account(scripted(answer("200 OK", row)).url, "k"))
    assert client.row("x").error_message == "403 for url: https://a.example/f?…"
    client.close()


def tls() -> Callable[[socket.socket], socket.socket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)

    def wrap(sock: socket.socket) -> socket.socket:
        return context.wrap_socket(sock, server_side=True)

    return wrap


def test_a_tls_connection_that_breaks_after_a_paid_request_is_not_used_to_send_it_again() -> None:
    """A damaged TLS record is an SSLError, as a failed handshake is."""
    received: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    wrap = tls()

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            secure = wrap(plain)
            received.append(secure.recv(65536))
            with socket.socket(fileno=secure.detach()) as plain:
                plain.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    port = listener.getsockname()[1]
    base = f"https://127.0.0.1:{port}"
    session = new_session(base, 2)
    session.verify = str(PEM)
    with pytest.raises(OutcomeUnknown):
        Transport(Account(base, "k"), Control(), session).send("POST", QUEUE, json={}, paid=True)
    session.close()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    assert len(received) == 1


def test_a_certificate_that_is_not_trusted_means_that_nothing_was_sent(monkeypatch: Any) -> None:
    monkeypatch.setattr("kontext_bridge.oxen.http.transport._backoff", lambda attempt: 0.01)
    greeted = []
    listener = socket.create_server(("127.0.0.1", 0))
    wrap = tls()

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
                greeted.append(wrap(plain))
            except ssl.SSLError:
                plain.close()
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    base = f"https://127.0.0.1:{listener.getsockname()[1]}"
    transport = Transport(Account(base, "k"), Control())
    with pytest.raises(ConnectionFailed, match="Nothing was sent"):
        transport.send("POST", QUEUE, json={}, paid=True)
    transport.close()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    assert greeted == []


@pytest.mark.parametrize(
    ("date", "offset"),
    [
        (lambda now: formatdate(now + 3600, usegmt=True), 3600.0),
        (lambda now: formatdate(now - 90, usegmt=True), -90.0),
        (lambda now: time.asctime(time.gmtime(now + 60)), 60.0),
        (lambda now: "yesterday", None),
        (lambda now: "", None),
        (lambda now: "Thu, 01 Jan 1970 00:00:00 GMT", None),
        (lambda now: "Fri, 31 Dec 9999 23:59:59 GMT", None),
        (lambda now: "Mon, 99 Foo 20xx", None),
        (lambda now: formatdate(now - 5000, usegmt=True) + "\r\nAge: 5000", None),
    ],
    ids=["ahead", "behind", "old form", "no date", "empty", "the first", "the last", "broken", "stored by a cache"],
)
@pytest.mark.parametrize("status", ["200 OK", "404 No", "302 Found"])
def test_how_far_the_services_clock_is_ahead_is_known_after_any_answer(
    scripted: Any, date: Any, offset: float | None, status: str
) -> None:
    server = scripted(answer(status, Date=date(time.time())))
    transport = Transport(Account(server.url, "k"), Control())
    assert transport.clock_offset is None
    with contextlib.suppress(ReplyError):
        transport.send("GET", QUEUE)
    transport.close()
    told = transport.clock_offset
    assert (told is None) == (offset is None)
    assert told is None or abs(told - (offset or 0.0)) <= 1.5


def test_a_date_that_tells_nothing_leaves_what_the_reply_before_told(scripted: Any) -> None:
    server = scripted(answer("200 OK", Date=formatdate(time.time() + 600, usegmt=True)), answer("200 OK", Date="?"))
    client = Client(Account(server.url, "k"))
    client.transport.send("GET", QUEUE)
    client.transport.send("GET", QUEUE)
    assert abs(client.transport.clock_offset - 600) <= 1.5
    assert client.for_cleanup().transport.clock_offset == client.transport.clock_offset
    client.close()


@pytest.mark.parametrize(
    ("status", "body", "definite"),
    [
        ("500 Oops", b'{"error":{"detail":"the worker died"}}', True),
        ("504 Oops", b"<html>gateway timeout</html>", False),
        ("502 Oops", b"{}", False),
        ("502 Oops", b'{"message":"Internal server error"}', False),
        ("504 Oops", b'{"error":"upstream timed out"}', False),
        ("502 Oops", b'["bad gateway"]', False),
        ("200 OK", b'{"error":"the worker died"}', True),
        ("200 OK", b'{"images":[]}', False),
    ],
)
def test_the_services_own_word_for_a_failure_is_told_from_that_of_what_stands_between(
    scripted: Any, status: str, body: bytes, definite: bool
) -> None:
    client = Client(Account(scripted(answer(status, body)).url, "k"))
    with pytest.raises(OxenError) as raised:
        client.edit(PARAMETERS, "data:image/png;base64,QUJD")
    client.close()
    assert raised.value.definite is definite
    assert raised.value.reworded("other words").definite is definite
