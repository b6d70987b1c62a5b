"""No spelling of an address, no name, no redirect and no change of mind of a name server leads inside."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.errors import ConnectionFailed, OxenError, UrlRefused
from kontext_bridge.oxen.http.address import is_public
from kontext_bridge.oxen.http.fetch import Fetcher

# What the system's own resolver makes of these is this machine or its network. {port} is that of a real listener.
SPELLINGS = [
    "http://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://017700000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0x7F.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://127.255.255.254:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://xn--localhost-:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://１２７.０.０.１:{port}/",
    "http://127。0。0。1:{port}/",
    "http://١٢٧.٠.٠.١:{port}/",
    "http://127.0.0.1%00.example.com:{port}/",
    "http://127.0.0.1%2eexample.com:{port}/",
    "http://[::1]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b:1::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fe80::1%lo]:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[fec0::1]:{port}/",
    "http://[fd00:ec2::254]:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://example.com:80@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@example.com/",
    "http://127.0.0.1:{port}?@example.com/",
    "http://127.0.0.1:{port}\\@example.com/",
    "http://example.com\\@127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "http:/\\127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\t/",
    "http://127.0.\n0.1:{port}/",
    " http://127.0.0.1:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://0xa9fea9fe/latest/meta-data/",
    "http://2852039166/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://[5f00::1]/",
    "http://[100::1]/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[ff02::1]/",
    "http://127.0.0.1:99999/",
    "http://[::1/",
    "http://",
    "http://./",
    "http://..localhost:{port}/",
    "//127.0.0.1:{port}/",
    "file:///etc/passwd",
    "file://127.0.0.1/etc/passwd",
    "FILE:///etc/passwd",
    "ftp://127.0.0.1/",
    "gopher://127.0.0.1:{port}/_GET",
    "dict://127.0.0.1:{port}/",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "/etc/passwd",
    "\\\\127.0.0.1\\share",
]


class Inside:
    """A listener on loopback, and how often anyone came."""

    def __init__(self) -> None:
        self.visits = 0
        inside = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                inside.visits += 1
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"secret")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def get_request(self) -> tuple[socket.socket, Any]:
                inside.visits += 1
                return super().get_request()

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]


@pytest.fixture(scope="module")
def inside() -> Iterator[Inside]:
    found = Inside()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    fetcher = Fetcher(Control())
    yield fetcher
    fetcher.close()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_address_inside_is_refused_however_it_is_spelt(spelling: str, inside: Inside, fetcher: Fetcher) -> None:
    before = inside.visits
    with pytest.raises((UrlRefused, ConnectionFailed)) as refusal:
        fetcher.fetch(spelling.format(port=inside.port))
    assert "secret" not in str(refusal.value)
    assert inside.visits == before


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700::1111", "2002:808:808::", "64:ff9b::808:808", "::ffff:8.8.8.8"],
)
def test_public_addresses_are_fetched(address: str) -> None:
    assert is_public(address)


class Resolver:
    """`socket.getaddrinfo` whose answers for one name change from call to call."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self._real = socket.getaddrinfo
        self.asked = 0

    def __call__(self, host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        if host != "changing.example":
            return self._real(host, port, *args, **kwargs)
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]


@pytest.mark.parametrize(
    "answers",
    [
        (["192.0.2.1"], ["127.0.0.1"]),  # a test network, where nothing answers
        (["8.8.8.8", "127.0.0.1"],),
        (["127.0.0.1", "8.8.8.8"],),
        (["127.0.0.1"],),
    ],
)
def test_a_name_that_changes_between_check_and_use_leads_nowhere(
    answers: tuple[list[str], ...], inside: Inside, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, resolver = inside.visits, Resolver(*answers)
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    for _ in range(2):
        with pytest.raises((UrlRefused, ConnectionFailed)):
            fetcher.fetch(f"http://changing.example:{inside.port}/")
    assert inside.visits == before
    assert resolver.asked == 2


def test_the_address_that_was_checked_is_the_one_connected_to(
    inside: Inside, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[Any] = []

    class Recording(socket.socket):
        def connect(self, address: Any) -> None:
            reached.append(address)
            raise OSError("as far as this test goes")

    monkeypatch.setattr(socket, "getaddrinfo", Resolver(["8.8.8.8"], ["127.0.0.1"]))
    monkeypatch.setattr(socket, "socket", Recording)
    with pytest.raises(ConnectionFailed):
        fetcher.fetch(f"http://changing.example:{inside.port}/")
    assert reached == [("8.8.8.8", inside.port)]


def test_a_proxy_of_the_environment_cannot_look_the_name_up_instead(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = inside.visits
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{inside.port}")
    fetcher = Fetcher(Control())
    with pytest.raises(OxenError):
        fetcher.fetch("http://169.254.169.254/")
    fetcher.close()
    assert inside.visits == before


def test_the_switch_for_those_who_need_it_opens_private_addresses(inside: Inside) -> None:
    fetcher = Fetcher(Control(), allow_private=True)
    assert fetcher.fetch(f"http://127.0.0.1:{inside.port}/") == b"secret"
    fetcher.close()
