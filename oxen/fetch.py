"""Downloading a picture: results of the service, and URLs that a workflow names.

The bytes are streamed under a size and a time limit. The key goes along only to the service's own origin, only
after it refused a request without, and never over a redirect to another host.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.exceptions

from .address import PublicOnlyAdapter
from .body import chunks
from .control import Control, Deadline
from .credentials import Account, is_loopback_name
from .errors import ConnectionFailed, ResultUnavailable, UnexpectedReply, UrlRefused
from .secrets import Redactor, without_query
from .transport import CONNECT_SECONDS, USER_AGENT, KeyAuth, new_session

MAX_BYTES = 64 << 20
MAX_SECONDS = 120.0
READ_SECONDS = 20.0
_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True)
class Limits:
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
        limits: Limits | None = None,
    ) -> None:
        self._control = control
        self._account = account
        self._allow_private = allow_private
        self._limits = limits or Limits()
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
        """The whole body behind an http(s) URL.

        Raises UrlRefused (a scheme or address that is not fetched, too large, too many redirects),
        ConnectionFailed (worth another try), ResultUnavailable (an HTTP status outside 2xx), Interrupted.
        """
        deadline = Deadline(self._limits.max_seconds)
        with_key = False
        redirects = 0
        while True:
            self._control.check()
            try:
                parts = urlsplit(url)
                if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
                    raise UrlRefused(f"{_shown(url)} is not fetched; give an http or https URL without user name.")
                response = self._open(url, with_key)
                with response:
                    if response.status_code in _REDIRECTS and "Location" in response.headers:
                        redirects += 1
                        if redirects > _MAX_REDIRECTS:
                            raise UrlRefused(f"{_shown(url)} redirects more than {_MAX_REDIRECTS} times.")
                        target = urljoin(url, response.headers["Location"])
                        with_key = with_key and self._is_home(target)
                        url = target
                        continue
                    if response.status_code in {401, 403} and not with_key and self._may_have_key(url):
                        with_key = True
                        continue
                    if not 200 <= response.status_code < 300:
                        raise ResultUnavailable(
                            f"{_shown(url)} answers with HTTP {response.status_code}.",
                            status=response.status_code,
                        )
                    return self._read(response, url, deadline)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                refused = _refusal(error)
                if refused is not None:
                    raise refused from None
                raise ConnectionFailed(f"{_shown(url)} could not be downloaded: {type(error).__name__}.") from None
            except (UnicodeError, ValueError):
                raise UrlRefused(f"{_shown(url)} is not a URL that can be fetched.") from None

    def _open(self, url: str, with_key: bool) -> requests.Response:
        home = self._home if self._is_home(url) else None
        session = home or self._outside
        return session.get(
            url,
            auth=KeyAuth(self._account.key if with_key and self._account else None),
            headers={"Accept-Encoding": "identity"},
            stream=True,
            allow_redirects=False,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
        )

    def _read(self, response: requests.Response, url: str, deadline: Deadline) -> bytes:
        limit = self._limits.max_bytes
        too_large = UrlRefused(f"{_shown(url)} is larger than {limit >> 20} MB and was not downloaded.")
        announced = response.headers.get("Content-Length", "")
        if announced.isdigit() and int(announced) > limit:
            raise too_large
        body = bytearray()
        for chunk in chunks(response):
            self._control.check()
            body += chunk
            if len(body) > limit:
                raise too_large
            if deadline.passed:
                raise ConnectionFailed(f"{_shown(url)} took longer than {deadline.seconds:g} s to download.")
        if announced.isdigit() and len(body) < int(announced):
            raise ConnectionFailed(f"{_shown(url)} ended after {len(body)} of {announced} bytes.")
        return bytes(body)

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
    session = requests.Session()
    session.headers["User-Agent"] = USER_AGENT
    session.trust_env = False  # a proxy would look the name up again, where it cannot be checked
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


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _shown(url: str) -> str:
    return without_query(url)[:200]
