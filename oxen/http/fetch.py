"""Downloading: results of the service, URLs that a workflow names, and files of the service's that are kept as files.

The bytes are streamed under a size and a time limit. The key goes along only to the service's own origin, only
after it refused a request without, and never over a redirect to another host.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias, TypeVar
from urllib.parse import urljoin, urlsplit

import requests

from ..control import Control, Deadline
from ..credentials import Account
from ..errors import (
    ConnectionFailed,
    Interrupted,
    LocalTrouble,
    OxenError,
    ResultUnavailable,
    UnexpectedReply,
    UrlRefused,
)
from ..loopback import is_loopback_name
from ..secrets import Redactor, without_query
from .address import PublicOnlyAdapter
from .body import raw_chunks
from .codings import PackedBadly, Unpacker, codings, known
from .connections import CONNECT_SECONDS, OneAnswer
from .line import HEADER_BYTES, Line
from .plain import in_plain_words, out_of_handles
from .transport import USER_AGENT, KeyAuth, new_session
from .way import way_to

T = TypeVar("T")
Read: TypeAlias = Callable[[requests.Response, str, Line], T]

MAX_BYTES = 64 << 20
MAX_SECONDS = 120.0
# Of what goes into a file: a LoRA has some hundred megabytes.
MAX_FILE_BYTES = 8 << 30
MAX_FILE_SECONDS = 7200.0
READ_SECONDS = 20.0
_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_FRAMING = 8
_LENGTH = re.compile(r"[0-9]{1,18}")
_PICTURE = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP", re.DOTALL)


@dataclass(frozen=True)
class FetchLimits:
    """How much of a download is accepted: bytes, and seconds for all of it."""

    max_bytes: int = MAX_BYTES
    max_seconds: float = MAX_SECONDS


class Fetcher:
    """Fetches URLs for one run.

    account: names the one origin that may get the key, and that may be private. home: a session to that origin to
    share; the fetcher opens and closes its own where there is none.
    """

    def __init__(
        self,
        control: Control,
        *,
        account: Account | None = None,
        home: requests.Session | None = None,
        allow_private: bool = False,
        limits: FetchLimits | None = None,
    ) -> None:
        self._control = control
        self._account = account
        self._allow_private = allow_private
        self._limits = limits or FetchLimits()
        self._redact = Redactor(account.key if account else None)
        self._home = home or (new_session(account.base_url, 8) if account else None)
        self._owns_home = home is None
        self._outside = _outside_session(allow_private)

    def under(self, control: Control) -> Fetcher:
        """The same sessions under another `Control`."""
        other = copy.copy(self)
        other._control = control
        return other

    def close(self) -> None:
        self._outside.close()
        if self._home is not None and self._owns_home:
            self._home.close()

    def fetch(self, url: str) -> bytes:
        """The whole body behind an http(s) URL, unpacked.

        Raises UrlRefused (a scheme or address that is not fetched, too large, too many redirects),
        ConnectionFailed (worth another try), ResultUnavailable (an HTTP status outside 2xx), Misconfigured (a proxy
        or certificates of the environment that cannot be used), Interrupted.
        """
        return self._follow(url, self._read, self._limits.max_seconds)

    def save(self, url: str, out: BinaryIO, at: Callable[[int, int | None], None] = lambda *_: None) -> int:
        """Write the body behind a URL to an open file, as it comes, and give its size; raises as `fetch`, and
        LocalTrouble where the file cannot be written.

        at: is told how much is there, and of how much. A file of the service's own is asked for with the key at once:
        one that only the key may see is hidden from others, not refused.
        """

        def write(response: requests.Response, url: str, line: Line) -> int:
            return self._write(response, url, line, out, at)

        return self._follow(url, write, MAX_FILE_SECONDS, with_key=self._may_have_key(url))

    def _follow(self, url: str, read: Read[T], seconds: float, *, with_key: bool = False) -> T:
        deadline = Deadline(seconds)
        redirects = 0
        while redirects <= _MAX_REDIRECTS:
            self._control.check()
            line = Line(READ_SECONDS, deadline)
            try:
                with self._control.on_stop(line.cut), line, self._open(url, with_key) as response:
                    line.until = None
                    answer = self._answer(response, url, line, read)
                if isinstance(answer, tuple):
                    return answer[0]
                if answer is not None:
                    redirects += 1
                    with_key = with_key and self._is_home(answer)
                    url = answer
                elif with_key:
                    raise ResultUnavailable(
                        f"{self._shown(url)} answers with HTTP {response.status_code}.", status=response.status_code
                    )
                else:
                    with_key = True
            except OxenError:
                raise
            except Exception as error:  # whatever a server's bytes make of a library
                raise self._failure(error, url, line) from None
        raise UrlRefused(f"{self._shown(url)} redirects more than {_MAX_REDIRECTS} times.")

    def _answer(self, response: requests.Response, url: str, line: Line, read: Read[T]) -> tuple[T] | str | None:
        """What is read, or the URL to go on to, or None where it is to be asked for again with the key."""
        status = response.status_code
        if status in _REDIRECTS and "Location" in response.headers:
            return urljoin(url, _as_text(response.headers["Location"]))
        if status in {401, 403} and self._may_have_key(url):
            return None
        if not 200 <= status < 300:
            raise ResultUnavailable(f"{self._shown(url)} answers with HTTP {status}.", status=status)
        return (read(response, url, line),)

    def _open(self, url: str, with_key: bool) -> requests.Response:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
            raise UrlRefused(f"{self._shown(url)} is not fetched; give an http or https URL without user name.")
        session, proxied = self._outside, True
        if self._home is not None and self._is_home(url):
            session, proxied = self._home, self._home.trust_env
        elif is_loopback_name(parts.hostname):
            proxied = False
        way = way_to(url, session, proxied=proxied)
        return session.get(
            url,
            auth=KeyAuth(self._account.key if with_key and self._account else None),
            headers={"Accept-Encoding": "identity"},
            stream=True,
            allow_redirects=False,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            proxies=dict(way.proxies),
            verify=way.verify,
        )

    def _read(self, response: requests.Response, url: str, line: Line) -> bytes:
        limit = self._limits.max_bytes
        too_large = UrlRefused(
            f"{self._shown(url)} is larger than {limit >> 20} MB and was not downloaded.", status=413
        )
        length = response.headers.get("Content-Length", "").strip()
        announced = int(length) if _LENGTH.fullmatch(length) else None
        if "Transfer-Encoding" in response.headers:
            announced = None  # the chunks say how long it is
        if announced is not None and announced > limit:
            raise too_large
        line.room = _FRAMING * limit + HEADER_BYTES
        packed = bytearray()
        for chunk in raw_chunks(response):
            self._control.check()
            packed += chunk
            if len(packed) > limit:
                raise too_large
            self._check_time(url, line)
        # the length is that of what was sent, packed or not
        if announced is not None and len(packed) < announced:
            raise ConnectionFailed(f"{self._shown(url)} ended after {len(packed)} of {announced} bytes.")
        coding = response.headers.get("Content-Encoding", "")
        # stores hand on whatever was noted beside a file: where it is a picture as it stands, it is not packed
        if _PICTURE.match(packed) or not codings(coding):
            return bytes(packed)
        if not known(coding):
            raise ConnectionFailed(f"{self._shown(url)} came packed in a way that was not asked for.")
        body = bytearray()
        try:
            unpacker = Unpacker(coding)
            for piece in itertools.chain(unpacker.feed(memoryview(packed)), unpacker.end()):
                body += piece
                if len(body) > limit:
                    raise too_large
        except PackedBadly as error:
            raise ConnectionFailed(f"{self._shown(url)} could not be unpacked: {error}.") from None
        return bytes(body)

    def _write(
        self,
        response: requests.Response,
        url: str,
        line: Line,
        out: BinaryIO,
        at: Callable[[int, int | None], None],
    ) -> int:
        """A body to a file, as it comes; a packed one is refused, as none was asked for."""
        length = response.headers.get("Content-Length", "").strip()
        whole = int(length) if _LENGTH.fullmatch(length) and "Transfer-Encoding" not in response.headers else None
        if codings(response.headers.get("Content-Encoding", "")):
            raise ConnectionFailed(f"{self._shown(url)} came packed in a way that was not asked for.")
        line.room = _FRAMING * MAX_FILE_BYTES + HEADER_BYTES
        size = 0
        for chunk in raw_chunks(response):
            self._control.check()
            size += len(chunk)
            if max(size, whole or 0) > MAX_FILE_BYTES:
                raise UrlRefused(
                    f"{self._shown(url)} is larger than {MAX_FILE_BYTES >> 30} GB and was not downloaded.", status=413
                )
            try:
                out.write(chunk)
            except OSError as error:
                raise LocalTrouble(f"What came could not be written: {error.strerror or error}.") from None
            at(size, whole)
            self._check_time(url, line)
        if whole is not None and size < whole:
            raise ConnectionFailed(f"{self._shown(url)} ended after {size} of {whole} bytes.")
        return size

    def _check_time(self, url: str, line: Line) -> None:
        if line.overall is not None and line.overall.passed:
            raise ConnectionFailed(f"{self._shown(url)} took longer than {line.overall.seconds:g} s to download.")

    def _failure(self, error: Exception, url: str, line: Line) -> OxenError:
        if line.was_cut:
            return Interrupted("The run was stopped.")
        refused = _refusal(error)
        if refused is not None:
            return refused
        if isinstance(error, UnicodeError | ValueError) and not line.begun:
            return UrlRefused(f"{self._shown(url)} is not a URL that can be fetched.")
        if line.overall is not None and line.overall.passed:
            return ConnectionFailed(f"{self._shown(url)} took longer than {line.overall.seconds:g} s to download.")
        why = self._redact(in_plain_words(error, connect=CONNECT_SECONDS, answer=READ_SECONDS))
        advice = " Close other programs, or raise the limit (`ulimit -n 4096`)." if out_of_handles(error) else ""
        return ConnectionFailed(f"{self._shown(url)} could not be downloaded: {why}.{advice}")

    def _shown(self, url: str) -> str:
        return " ".join(self._redact(without_query(url)).split())[:200]

    def _is_home(self, url: str) -> bool:
        return self._account is not None and _origin(url) == _origin(self._account.base_url)

    def _may_have_key(self, url: str) -> bool:
        secure = urlsplit(url).scheme == "https" or is_loopback_name(urlsplit(url).hostname or "")
        return secure and self._is_home(url) and bool(self._account and self._account.key)


def with_retries(control: Control, tries: int, fetch: Callable[[], bytes]) -> bytes:
    """`fetch()`, again after a connection failure or a 5xx, `tries` times in all with growing pauses."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return fetch()
        except (ConnectionFailed, UnexpectedReply, ResultUnavailable) as error:
            gone = isinstance(error, ResultUnavailable) and (error.status or 0) < 500
            if gone or attempt >= tries:
                raise
            control.sleep(0.25 * 2 ** (attempt - 1))


def _outside_session(allow_private: bool) -> requests.Session:
    if allow_private:
        return new_session("", 8)
    session = OneAnswer()
    session.headers["User-Agent"] = USER_AGENT
    session.trust_env = False  # what of it applies is given with each request
    adapter = PublicOnlyAdapter(pool_connections=4, pool_maxsize=8, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _refusal(error: BaseException) -> UrlRefused | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UrlRefused):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _as_text(header: str) -> str:
    """A header's address as its sender meant it: servers write UTF-8, and Python reads every header as Latin-1."""
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return header


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
