"""A picture that was paid for arrives, however it is packed and by whatever way this machine reaches the world."""

from __future__ import annotations

import gzip
import io
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.errors import ConnectionFailed, Misconfigured, UrlRefused
from kontext_bridge.oxen.http import address
from kontext_bridge.oxen.http.fetch import Fetcher, FetchLimits
from kontext_bridge.oxen.http.transport import Transport
from PIL import Image

PEM = Path(__file__).with_name("company.pem")


def picture(kind: str) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(out, kind)
    return out.getvalue()


PICTURES = {kind: picture(kind) for kind in ("PNG", "JPEG", "WEBP", "GIF")}
PNG = PICTURES["PNG"]


def deflated(data: bytes, window: int) -> bytes:
    packer = zlib.compressobj(wbits=window)
    return packer.compress(data) + packer.flush()


def answer(body: bytes, coding: str | None = None, *, length: int | None = None) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) if length is None else length}\r\n"
    return (head + (f"Content-Encoding: {coding}\r\n" if coding is not None else "") + "\r\n").encode() + body


def in_chunks(body: bytes, coding: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: {coding}\r\n\r\n".encode()
    pieces = [body[at : at + 100] for at in range(0, len(body), 100)]
    return head + b"".join(b"%x\r\n" % len(piece) + piece + b"\r\n" for piece in pieces) + b"0\r\n\r\n"


@pytest.fixture
def fetched(talking: Any) -> Iterator[Callable[..., bytes]]:
    fetchers: list[Fetcher] = []

    def fetch(reply: bytes, **limits: Any) -> bytes:
        server = talking(lambda sock: sock.sendall(reply))
        fetchers.append(Fetcher(Control(), account=Account(server.url, None), limits=FetchLimits(**limits)))
        return fetchers[-1].fetch(server.url + "/a.png")

    yield fetch
    for fetcher in fetchers:
        fetcher.close()


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize(
    "coding",
    [
        "identity",
        "binary",
        "aws-chunked",
        "aws-chunked,",
        "none",
        "utf-8",
        "",
        " ",
        "Identity",
        "x-odd",
        "br",
        "gzip",
        "deflate",
    ],
)
def test_a_picture_is_taken_as_it_is_whatever_coding_is_written_beside_it(fetched: Any, kind: str, coding: str) -> None:
    assert fetched(answer(PICTURES[kind], coding)) == PICTURES[kind]


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(PNG)),
        ("x-gzip", gzip.compress(PNG)),
        ("GZIP", gzip.compress(PNG)),
        ("gzip, identity", gzip.compress(PNG)),
        ("aws-chunked,gzip", gzip.compress(PNG)),
        ("gzip", gzip.compress(PNG[:50]) + gzip.compress(PNG[50:])),
        ("gzip", gzip.compress(PNG) + b"\0\0\0\0"),
        ("deflate", deflated(PNG, 15)),
        ("deflate", deflated(PNG, -15)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_a_packed_picture_is_unpacked_and_its_length_is_that_of_what_was_sent(
    fetched: Any, coding: str, body: bytes
) -> None:
    assert fetched(answer(body, coding)) == PNG
    assert fetched(in_chunks(body, coding)) == PNG


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(PNG)[:-9]),
        ("gzip", gzip.compress(PNG)[:1]),
        ("gzip", gzip.compress(PNG[:50]) + gzip.compress(PNG[50:])[:-20]),
        ("deflate", deflated(PNG, -15)[:-9]),
        ("gzip", gzip.compress(b"x")[:10] + b"\xff" * 50),
        ("br", b"\x8b\x02\x80ab\x03"),
        ("zstd", b"\x28\xb5\x2f\xfd" + b"x" * 30),
        ("gzip, gzip", gzip.compress(gzip.compress(PNG))),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_a_packed_file_that_is_not_whole_or_not_known_is_told_as_that(fetched: Any, coding: str, body: bytes) -> None:
    for reply in (answer(body, coding), in_chunks(body, coding)):
        with pytest.raises(ConnectionFailed, match=r"unpacked|packed in a way"):
            fetched(reply)


def test_a_file_is_unpacked_within_its_limit(fetched: Any) -> None:
    with pytest.raises(UrlRefused, match="larger than 1 MB"):
        fetched(answer(gzip.compress(bytes(64 << 20)), "gzip"), max_bytes=1 << 20)


@pytest.mark.parametrize("coding", [None, "gzip"])
def test_a_file_that_ends_before_its_length_is_not_taken(fetched: Any, coding: str | None) -> None:
    body = gzip.compress(PNG) if coding else PNG
    with pytest.raises(ConnectionFailed):
        fetched(answer(body[:-5], coding, length=len(body)))


@pytest.mark.parametrize("length", ["1, 78", "-5", "²", "9" * 5000, "0x10"])
def test_a_length_that_is_none_is_one_of_our_errors_or_none(fetched: Any, length: str) -> None:
    reply = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + PNG
    try:
        assert fetched(reply) == PNG
    except ConnectionFailed as error:
        assert "could not be downloaded" in str(error)


@pytest.mark.parametrize(
    "location",
    [
        b"http://[::1",
        b"http://\xff\xfe/",
        b"\xc3\xbc.png",
        b"http://me:secret@hub.example/",
        b"data:image/png;base64," + b"QUJD" * 20,
        b"http://a\x00b/",
        b"http://a b/",
        b"javascript:alert(1)",
    ],
)
def test_an_address_to_go_on_to_is_followed_or_refused_without_secrets(talking: Any, location: bytes) -> None:
    def talk(sock: socket.socket) -> None:
        if len(server.heads) == 1:
            sock.sendall(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n")
        else:
            sock.sendall(answer(PNG))

    server = talking(talk)
    fetcher = Fetcher(Control(), account=Account(server.url, None))
    try:
        assert fetcher.fetch(server.url + "/x") == PNG
        assert b"/%C3%BC.png " in server.heads[1]
    except (UrlRefused, ConnectionFailed) as error:
        assert "secret" not in str(error) and "QUJD" not in str(error)
    finally:
        fetcher.close()


def test_the_user_of_an_address_is_not_shown() -> None:
    fetcher = Fetcher(Control())
    with pytest.raises(UrlRefused) as raised:
        fetcher.fetch("https://me:secret@hub.example/a.png?sig=abc")
    fetcher.close()
    assert "secret" not in str(raised.value) and "me" not in str(raised.value).split(" is not")[0].replace("name", "")
    assert "hub.example/a.png" in str(raised.value)


@pytest.fixture
def proxy(talking: Any, monkeypatch: Any) -> Any:
    """A proxy of this machine's environment, that answers by itself for whatever it is asked."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server = talking(lambda sock: sock.sendall(answer(PNG)))
    monkeypatch.setenv("http_proxy", server.url)
    return server


@pytest.mark.parametrize("url", ["http://results.example.invalid/a.png", "http://cdn.example.com.invalid:8080/a.png"])
def test_a_result_of_another_host_comes_by_way_of_the_proxy_that_alone_knows_its_name(proxy: Any, url: str) -> None:
    fetcher = Fetcher(Control())
    assert fetcher.fetch(url) == PNG
    fetcher.close()
    assert proxy.heads[0].startswith(b"GET " + url.encode())


def resolver(monkeypatch: Any, *addresses: str) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 80)) for one in addresses]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *a, **k: found if str(host).endswith("example.com") else real(host, *a, **k),
    )


@pytest.mark.parametrize("addresses", [("10.0.0.1",), ("8.8.8.8", "127.0.0.1"), ("169.254.169.254",)])
def test_a_name_that_leads_inside_here_is_not_given_to_the_proxy(proxy: Any, monkeypatch: Any, addresses: Any) -> None:
    resolver(monkeypatch, *addresses)
    fetcher = Fetcher(Control())
    with pytest.raises(UrlRefused, match="private"):
        fetcher.fetch("http://inside.example.com/a.png")
    fetcher.close()
    assert proxy.heads == []


def test_a_name_that_leads_outside_here_is_given_to_the_proxy(proxy: Any, monkeypatch: Any) -> None:
    resolver(monkeypatch, "8.8.8.8")
    fetcher = Fetcher(Control())
    assert fetcher.fetch("http://outside.example.com/a.png") == PNG
    fetcher.close()


def test_a_look_up_that_hangs_holds_a_proxied_download_up_for_seconds_only(proxy: Any, monkeypatch: Any) -> None:
    over = threading.Event()
    real = socket.getaddrinfo

    def slow(host: Any, *a: Any, **k: Any) -> Any:
        return over.wait(5) if str(host).endswith("example.com") else real(host, *a, **k)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setattr(address, "_LOOK_UP_SECONDS", 0.2)
    fetcher = Fetcher(Control())
    assert fetcher.fetch("http://slow.example.com/a.png") == PNG
    fetcher.close()
    over.set()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://127.0.0.1./",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://[fe80::1%25eth0]/",
        "http://localhost/",
        "http://app.localhost/",
        "http://LOCALHOST./",
        "http://intranet/",
        "http://nas.local/",
        "http://metadata.google.internal/",
        "http://router.lan/",
        "http://printer.home.arpa/",
        "http://１２７.０.０.１/",
        "http://127。0。0。1/",
        "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
        "http://127.0.0.1%00.example.com/",
        "http://1.2.3.4.5.6/",
        "http://example.0x7f000001/",
        "http://256.0.0.1/",
    ],
)
def test_an_address_inside_is_not_given_to_the_proxy_however_it_is_spelt(proxy: Any, url: str) -> None:
    fetcher = Fetcher(Control())
    with pytest.raises((UrlRefused, ConnectionFailed)):
        fetcher.fetch(url)
    fetcher.close()
    assert proxy.heads == []


def test_a_redirect_from_outside_to_inside_is_not_followed_by_way_of_the_proxy(
    talking: Any, proxy: Any, monkeypatch: Any
) -> None:
    turn = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://169.254.169.254/\r\n\r\n"
    server = talking(lambda sock: sock.sendall(turn))
    monkeypatch.setenv("http_proxy", server.url)
    fetcher = Fetcher(Control())
    with pytest.raises(UrlRefused):
        fetcher.fetch("http://outside.example.invalid/")
    fetcher.close()
    assert len(server.heads) == 1


def test_a_host_that_needs_no_proxy_is_reached_without_and_guarded(proxy: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("no_proxy", "example.com")
    resolver(monkeypatch, "10.0.0.1")
    fetcher = Fetcher(Control())
    with pytest.raises(UrlRefused):
        fetcher.fetch("http://inside.example.com/")
    fetcher.close()
    assert proxy.heads == []


class Tunnel:
    """A proxy that takes a tunnel to anywhere, and is the TLS server at its end: as a company's inspection is."""

    def __init__(self, talking: Any) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(PEM)

        def talk(sock: socket.socket) -> None:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with context.wrap_socket(sock, server_side=True) as secure:
                self.asked.append(secure.recv(65536))
                secure.sendall(answer(PNG))

        self.asked: list[bytes] = []
        self.server = talking(talk)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_companys_certificates_are_trusted_for_downloads_and_for_the_service(
    talking: Any, monkeypatch: Any, variable: str
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "no_proxy", "NO_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    tunnel = Tunnel(talking)
    monkeypatch.setenv("HTTPS_PROXY", tunnel.server.url)
    fetcher = Fetcher(Control())
    transport = Transport(Account("https://hub.example.invalid", "k"), Control())
    fetch = lambda: fetcher.fetch("https://cdn.example.invalid/a.png")  # noqa: E731
    send = lambda: transport.send("GET", "/x", patient=False).body  # noqa: E731
    for work in (fetch, send):
        with pytest.raises(ConnectionFailed, match="certificate is not trusted"):
            work()
    monkeypatch.setenv(variable, str(PEM))
    assert (fetch(), send()) == (PNG, PNG)
    fetcher.close(), transport.close()
    assert len(tunnel.asked) == 2 and b"cdn.example.invalid" in tunnel.asked[0]


def test_a_bundle_that_is_not_there_is_named_for_downloads_too(monkeypatch: Any) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/company.pem")
    fetcher = Fetcher(Control())
    with pytest.raises(Misconfigured, match=r"REQUESTS_CA_BUNDLE names /no/such/company\.pem"):
        fetcher.fetch("https://cdn.example.invalid/a.png")
    fetcher.close()
