"""Connections whose bytes pass a `Line`: bounded from a name's look-up to the last trailer, and ended from outside."""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import io
import os
import socket
import threading
from typing import Any

import requests
import requests.adapters
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions
import urllib3.response
import urllib3.util.wait

from ..control import Deadline
from .line import Cut, Incoming, Line, TooLong, current, line_here

CONNECT_SECONDS = 10.0
_INTERIM = 32
_SWITCHING = 101
_TICK = 0.05
_BUFFER = 1 << 16

Addresses = list[tuple[Any, ...]]


def resolve(host: str, port: int | None, seconds: float = CONNECT_SECONDS) -> Addresses:
    """`getaddrinfo` that ends with the request: the system's own cannot be stopped, so it is left to a thread.

    Raises what it raises, TimeoutError after `seconds`, Cut.
    """
    line = current() or Line(seconds)
    found: list[Addresses] = []
    failed: list[Exception] = []
    done = threading.Event()

    def look_up() -> None:
        try:
            found.append(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except Exception as error:  # raised again below, in the thread that asked
            failed.append(error)
        done.set()

    try:
        threading.Thread(target=look_up, name="kontext-bridge look-up", daemon=True).start()
    except RuntimeError:  # no thread is left on this machine
        look_up()
    deadline = Deadline(seconds)
    while not done.wait(min(_TICK, deadline.left)):
        line.check()
        if deadline.passed:
            raise TimeoutError("timed out")
    if failed:
        raise failed[0]
    return found[0]


class _Answer(http.client.HTTPResponse):
    """An answer read through a line, and whatever interim ones come before it."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(_File(sock), *args, **kwargs)  # type: ignore[arg-type]  # all that is asked of it is a file

    def _read_status(self) -> tuple[str, int, str]:
        # Python itself skips 100 alone, and as many as come
        for _ in range(_INTERIM):
            told: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not 100 <= told[1] < 200 or told[1] == _SWITCHING:
                return told
            http.client.parse_headers(self.fp)
        raise TooLong("more interim answers came than a request may have")

    def _read_and_discard_trailer(self) -> None:
        http.client.parse_headers(self.fp)  # Python itself takes as many as come; these are a hundred at most


class _File:
    """What an answer asks of a socket."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        line = current()
        assert line is not None  # made by getresponse or _tunnel at the latest
        return io.BufferedReader(Incoming(self._sock, line), _BUFFER)


class _OnALine(urllib3.connection.HTTPConnection):
    """A connection that its line can end, and whose answers pass that line."""

    _tells = True
    _answer: _Answer | None = None

    def response_class(self, sock: Any, *args: Any, **kwargs: Any) -> _Answer:  # type: ignore[override]
        self._answer = _Answer(sock, *args, **kwargs)
        return self._answer

    def connect(self) -> None:
        line = current()
        self._tells = False
        try:
            super().connect()
        finally:
            self._tells = True
            if line is not None:
                line.hold(self.sock)

    def _tunnel(self) -> None:
        with line_here(seconds := _seconds(self)) as line:
            line.answer_begins()
            line.until = Deadline(seconds)
            super()._tunnel()
            line.until = line.room = None
        self.sock.settimeout(seconds)

    def send(self, data: Any) -> None:
        if self.sock is None and self.auto_open:
            self.connect()
        line = current()
        if line is not None and self._tells:  # a proxy that is asked for a tunnel has got nothing of the request
            line.hold(self.sock)
            line.check()
            line.begun = True
        super().send(data)

    def getresponse(self) -> urllib3.response.HTTPResponse:  # type: ignore[override]
        with line_here(_seconds(self)) as line:
            line.hold(self.sock)
            line.answer_begins()
            try:
                response = super().getresponse()
            except BaseException:
                if self._answer is not None:  # urllib3 leaves it open where it refuses its headers
                    self._answer.close()
                raise
            finally:
                self._answer = None
            line.room = None
            return response


class HeadersInTime(_OnALine):
    """Opens its socket itself, in steps that its line can end; also a mixin for HTTPS."""

    def _new_conn(self) -> socket.socket:
        seconds = _seconds(self)
        failure: Exception | None = None
        # urllib3 keeps the name to look up (a trailing dot included) apart from the name for TLS
        host = self._dns_host.strip("[]")
        try:
            found = self._addresses(host, seconds)
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, f"{host} was not resolved in time") from error
        except (socket.gaierror, UnicodeError) as error:
            raise urllib3.exceptions.NewConnectionError(self, f"{host} cannot be resolved") from error
        deadline = Deadline(2 * seconds)
        for address in found:
            if failure is not None and deadline.passed:
                break
            try:
                return _opened(self, address, min(seconds, max(deadline.left, _TICK)))
            except Cut:
                raise
            except OSError as error:
                failure = error
        if isinstance(failure, TimeoutError):
            raise urllib3.exceptions.ConnectTimeoutError(self, f"{host} did not answer in time") from failure
        raise urllib3.exceptions.NewConnectionError(self, f"{host} cannot be reached") from failure

    def _addresses(self, host: str, seconds: float) -> Addresses:
        return resolve(host, self.port or self.default_port, seconds)


class HTTPSOnALine(HeadersInTime, urllib3.connection.HTTPSConnection):
    """Ends in the middle of a TLS handshake, too, for which Python takes the socket out of our hands."""

    _second: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        line = current()
        if line is not None:
            self._second = sock.dup()
            line.hold(self._second)
        return sock

    def connect(self) -> None:
        try:
            super().connect()
        finally:
            if self._second is not None:
                self._second.close()
                self._second = None


def _seconds(connection: urllib3.connection.HTTPConnection) -> float:
    timeout = connection.timeout
    return float(timeout) if isinstance(timeout, int | float) else CONNECT_SECONDS


def _opened(connection: urllib3.connection.HTTPConnection, found: tuple[Any, ...], seconds: float) -> socket.socket:
    """A TCP connection to one of `getaddrinfo`'s results; raises OSError."""
    family, kind, protocol, _, address = found
    line = current() or Line(seconds)
    deadline = Deadline(seconds)
    sock = socket.socket(family, kind, protocol)
    try:
        for option in connection.socket_options or ():
            sock.setsockopt(*option)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(address)
        while not urllib3.util.wait.wait_for_write(sock, timeout=min(_TICK, deadline.left)):
            line.check()
            if deadline.passed:
                raise TimeoutError("timed out")
        line.check()
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        sock.settimeout(_seconds(connection))
        return sock
    except BaseException:
        sock.close()
        raise


class HTTPPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = HeadersInTime


class HTTPSPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = HTTPSOnALine


class InTimeAdapter(requests.adapters.HTTPAdapter):
    """A requests adapter whose connections are on a line, those by way of a proxy as well."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": HTTPPool, "https": HTTPSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _socks_pools(manager.pool_classes_by_scheme)
        else:
            manager.pool_classes_by_scheme = {"http": HTTPPool, "https": HTTPSPool}
        return manager


def _socks_pools(pools: dict[str, Any]) -> dict[str, Any]:
    """urllib3's pools for SOCKS, whose connections are opened by a library of their own, with answers on a line."""
    made: dict[str, Any] = {}
    for scheme, pool in pools.items():
        connection = pool.ConnectionCls
        if not issubclass(connection, _OnALine):
            on_a_line = type(f"OnALine{connection.__name__}", (_OnALine, connection), {})
            pool = type(f"OnALine{pool.__name__}", (pool,), {"ConnectionCls": on_a_line})
        made[scheme] = pool
    return made


class OneAnswer(requests.Session):
    """A session that takes each answer as it is, keeps no cookies, and nothing is sent by it a second time.

    requests reads the body of an answer that points elsewhere to its end, and its address, also where it is asked to
    follow none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None
