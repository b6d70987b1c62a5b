"""HTTP to the service: one connection pool, bounded replies, and a paid request sent once.

A paid request is sent again only where not a byte of it can have been accepted: the connection could not be
made, or the answer was 429. Everything else that leaves its outcome open raises `OutcomeUnknown` or `Upstream`,
and the caller looks the job up.
"""

from __future__ import annotations

import email.utils
import http.client
import logging
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timezone
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.auth import AuthBase

from .body import ACCEPTED_CODINGS, InTimeAdapter, Outgoing, chunks
from .control import Control, Deadline
from .credentials import Account, is_loopback_name
from .errors import (
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
    Unauthenticated,
    UnexpectedReply,
    Upstream,
)
from .replies import error_text, parse_json
from .secrets import Redactor

logger = logging.getLogger(__name__)

# The service takes every agent with "oxen" in its name for its own command line tool and answers 426.
USER_AGENT = "kontext-bridge/0.1"
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
MAX_REPLY_BYTES = 192 << 20
MAX_RETRY_AFTER = 60.0
_GATEWAY_TIMEOUT = 504
_CONNECT_TRIES = 3
_BUSY_TRIES = 6
_POOL_SIZE = 16
_NO_SOURCE = Account.source
_MODERATION = ("content policy", "flagged", "moderat", "nsfw", "safety")


@dataclass(frozen=True)
class Reply:
    """A whole answer: status, headers and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return parse_json(self.body, self.headers.get("Content-Type", ""))


class KeyAuth(AuthBase):
    """The bearer header, or none; either way requests does not look into .netrc."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.pop("Authorization", None)
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class Transport:
    """A connection pool to one account's service, shared by the threads of one run.

    clock_offset: seconds, to about one, that the service's clock was ahead of this machine's at its last reply; 0.0
    until one tells.
    """

    def __init__(self, account: Account, control: Control, session: requests.Session | None = None) -> None:
        self.account = account
        self.control = control
        self.redact = Redactor(account.key)
        self.session = session or new_session(account.base_url, _POOL_SIZE)
        self.clock_offset = 0.0

    def close(self) -> None:
        self.session.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, str | int] | None = None,
        files: Mapping[str, Any] | None = None,
        data: Mapping[str, str] | None = None,
        paid: bool = False,
        public: bool = False,
        seconds: float = READ_SECONDS,
        patient: bool = True,
        before_last: Callable[[], None] | None = None,
    ) -> Reply:
        """The service's successful (2xx) answer to one request; anything else is raised.

        paid: the request costs money; it is never sent twice (see the module). public: no key needed.
        seconds: how long the answer may take once the request is out; the request's body may take its time.
        patient: try again where nothing was sent, and after a 429 in the service's own time; otherwise one try.
        Raises Misconfigured, ConnectionFailed, OutcomeUnknown (paid only), the ReplyError family, Interrupted.
        """
        key = self.account.key if public else self.account.require_key()
        attempt = 0
        while True:
            attempt += 1
            try:
                reply = self._once(method, path, KeyAuth(key), json, params, files, data, paid, seconds, before_last)
                if reply.status < 300:
                    return reply
                raise self.error_for(reply)
            except ConnectionFailed:
                if not patient or attempt >= _CONNECT_TRIES:
                    raise
                self.control.sleep(_backoff(attempt))
            except RateLimited as busy:
                if not patient or attempt >= _BUSY_TRIES:
                    raise
                self.control.sleep(_backoff(attempt) if busy.retry_after is None else busy.retry_after)

    def _once(
        self,
        method: str,
        path: str,
        auth: KeyAuth,
        json: Mapping[str, Any] | None,
        params: Mapping[str, str | int] | None,
        files: Mapping[str, Any] | None,
        data: Mapping[str, str] | None,
        paid: bool,
        seconds: float,
        before_last: Callable[[], None] | None = None,
    ) -> Reply:
        self.control.check()
        session = self.session
        url = self.account.base_url + path
        try:
            request = requests.Request(method, url, auth=auth, json=json, params=params, files=files, data=data)
            prepared = session.prepare_request(request)
            body = Outgoing(
                prepared.body if isinstance(prepared.body, bytes) else b"", seconds, self.control, before_last
            )
            if prepared.body:
                prepared.body = body  # type: ignore[assignment]  # any file may stand here
            response = session.send(
                prepared,
                allow_redirects=False,
                timeout=(min(CONNECT_SECONDS, seconds), seconds),
                **session.merge_environment_settings(prepared.url, {}, True, None, None),
            )
            with response:
                date = _http_date(response.headers.get("Date", ""))
                if date is not None:
                    self.clock_offset = date - time.time()
                return Reply(response.status_code, response.headers, read_body(response, body.answer_by))
        except requests.exceptions.InvalidHeader:
            raise Misconfigured("The API key cannot be sent as it is; copy it again.") from None
        except requests.RequestException as error:
            raise self._failure(method, path, error, paid, seconds) from None
        except UnexpectedReply as error:
            if paid:
                raise OutcomeUnknown(f"The answer to a paid request could not be read: {error}") from None
            raise

    def _failure(
        self, method: str, path: str, error: requests.RequestException, paid: bool, seconds: float
    ) -> OxenError:
        host = urlsplit(self.account.base_url).netloc
        why = self.redact(in_plain_words(error, seconds))
        if never_sent(error):
            return ConnectionFailed(
                f"No connection to {host}: {why}. Nothing was sent. Check the network, then run again."
            )
        if paid:
            return OutcomeUnknown(f"The connection to {host} broke after the request was sent: {why}.")
        return ConnectionFailed(f"{method} {path} at {host} broke off: {why}. Run again to go on.")

    def error_for(self, reply: Reply) -> OxenError:
        """The error that a reply outside 2xx stands for, with what to do next."""
        try:
            parsed = reply.json()
        except UnexpectedReply:
            parsed = None
        said = self.redact(error_text(parsed) or "")
        error = classify(reply.status, reply.headers, said, self.account.source)
        # Oxen.ai's own errors have an `error`; a gateway in between may speak JSON as well, of what it does not know.
        error.definite = isinstance(parsed, Mapping) and bool(parsed.get("error")) and reply.status != _GATEWAY_TIMEOUT
        return error


def classify(status: int, headers: Mapping[str, str], said: str, key_source: str = _NO_SOURCE) -> OxenError:
    """The error for an HTTP status and the service's own words (already redacted, possibly empty)."""
    quote = f' The service says: "{said}".' if said else ""
    if is_moderation(said):
        return ModerationBlocked(
            f"The service's safety check refused the request.{quote} Change the prompt or the picture.",
            status=status,
        )
    if status in {401, 403}:
        key = "the API key" if key_source == _NO_SOURCE else f"the API key from {key_source}"
        return Unauthenticated(
            f"Oxen.ai does not accept {key} (HTTP {status}).{quote} Check the key; nothing was charged.",
            status=status,
        )
    if status == 402:
        return OutOfCredits(
            f"The Oxen.ai account has no credits left.{quote} Add credits on its billing page; nothing was charged.",
            status=status,
        )
    if status == 404:
        return ModelNotFound(f"Oxen.ai does not know what was asked for (HTTP 404).{quote}", status=status)
    if status == 426:
        return ClientRefused(
            f"Oxen.ai refuses this client's User-Agent (HTTP 426).{quote} Please report it; nothing was charged.",
            status=status,
        )
    if status == 429:
        return RateLimited(
            f"Oxen.ai is receiving too many requests from this account (HTTP 429).{quote} Wait a minute, or lower "
            "max_in_flight in the settings.",
            retry_after=retry_after(headers.get("Retry-After")),
        )
    if 400 <= status < 500:
        return InvalidParameters(f"Oxen.ai refused the request (HTTP {status}).{quote}", status=status)
    if status >= 500:
        return Upstream(f"Oxen.ai or the model's provider failed (HTTP {status}).{quote}", status=status)
    return UnexpectedReply(
        f"Oxen.ai answered with HTTP {status} where a plain answer belongs; check OXEN_BASE_URL.",
        status=status,
    )


def is_moderation(text: str) -> bool:
    """Whether the service's words speak of a safety check; their exact form is not documented."""
    lower = text.lower().replace("disable_safety_checker", "")  # a parameter of ours, which may be named in a 400
    return any(word in lower for word in _MODERATION)


def retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header in either form, at most 60; None where it says nothing usable."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        date = _http_date(value)
        if date is None:
            return None
        seconds = date - time.time()
    return min(max(0.0, seconds), MAX_RETRY_AFTER) if seconds == seconds else None


def _http_date(value: str) -> float | None:
    """Unix seconds of a header's date, which is in UTC in all its forms; None where it is none."""
    try:
        date = email.utils.parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return None


def read_body(response: requests.Response, deadline: Deadline, limit: int = MAX_REPLY_BYTES) -> bytes:
    """A streamed body, at most `limit` bytes and until `deadline`; raises UnexpectedReply beyond either.

    A body that is whole is never too late. Where its length is not announced, one more piece than was there at the
    deadline tells that it was not.
    """
    body = bytearray()
    late = False
    for chunk in chunks(response):
        body += chunk
        if len(body) > limit:
            raise UnexpectedReply(f"The service sent more than {limit >> 20} MB; the rest was not read.")
        missing = response.raw.length_remaining
        if deadline.passed and (late if missing is None else missing):
            raise UnexpectedReply(f"The service's answer took longer than {deadline.seconds:g} s to arrive.")
        late = deadline.passed
    return bytes(body)


def new_session(base_url: str, pool_size: int) -> requests.Session:
    """A requests session that retries nothing by itself, and uses no proxy to reach this machine."""
    session = requests.Session()
    session.headers["User-Agent"] = USER_AGENT
    session.headers["Accept-Encoding"] = ACCEPTED_CODINGS
    if is_loopback_name(urlsplit(base_url).hostname or ""):
        session.trust_env = False
    adapter = InTimeAdapter(pool_connections=4, pool_maxsize=pool_size, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def never_sent(error: requests.RequestException) -> bool:
    """Whether a failure happened before a connection stood, so that no byte of the request went out."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return True
    cause = error.args[0] if error.args else None
    reason = getattr(cause, "reason", cause)
    if isinstance(error, requests.exceptions.SSLError):
        # TLS breaks off in the middle of an answer, too; only a refused certificate tells that it was the handshake
        return isinstance(reason.args[0] if reason and reason.args else None, ssl.CertificateError)
    if any(_is_refused_tunnel(cause) for cause in _causes(error)):
        return True
    if isinstance(reason, urllib3.exceptions.ProxyError):
        reason = reason.original_error
    return isinstance(reason, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)


def in_plain_words(error: requests.RequestException, seconds: float) -> str:
    """Why a request failed; `seconds` is what its answer was given."""
    # urllib3 counts what it could not connect for any reason among the timeouts
    causes = [cause for cause in _causes(error) if not isinstance(cause, urllib3.exceptions.NewConnectionError)]
    root = causes[-1]
    why = (isinstance(root, OSError) and root.strerror) or str(root) or type(root).__name__
    for kind, words in _REASONS:
        if any(isinstance(cause, kind) for cause in causes):
            why = words.format(connect=f"{min(CONNECT_SECONDS, seconds):g}", answer=f"{seconds:g}")
            break
    proxied = any(isinstance(cause, urllib3.exceptions.ProxyError) or _is_refused_tunnel(cause) for cause in causes)
    return f"by way of the proxy: {why}" if proxied else why


# The first that one of an error's causes is.
_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (urllib3.exceptions.ConnectTimeoutError, "no connection within {connect} s"),
    (urllib3.exceptions.ReadTimeoutError, "no answer within {answer} s"),
    (TimeoutError, "the upload stood still for {connect} s"),
    (socket.gaierror, "the name cannot be resolved"),
    (ConnectionRefusedError, "connection refused"),
    (ssl.SSLCertVerificationError, "the certificate is not trusted"),
    (ssl.SSLError, "the encryption (TLS) failed"),
    (http.client.RemoteDisconnected, "the connection was closed without an answer"),
    (ConnectionError, "the connection was reset"),
    (http.client.IncompleteRead, "the answer ended early"),
    (http.client.HTTPException, "the answer is not HTTP"),
)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it wraps, from the outside in; not what was merely handled when it was raised."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        wrapped = (
            getattr(cause, "original_error", None),
            getattr(cause, "reason", None),
            *cause.args,
            # urllib3 before 2 does not say from what it raises this one
            cause.__context__ if isinstance(cause, urllib3.exceptions.NewConnectionError) else cause.__cause__,
        )
        cause = next((inner for inner in wrapped if isinstance(inner, BaseException)), None)


def _is_refused_tunnel(cause: BaseException) -> bool:
    return isinstance(cause, OSError) and str(cause).startswith("Tunnel connection failed")


def _backoff(attempt: int) -> float:
    return float(min(8.0, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))
