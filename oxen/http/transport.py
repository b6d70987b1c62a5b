"""HTTP to the service: one connection pool, bounded replies, and a paid request sent once.

A paid request is sent again only where the service cannot have it: its last block was never handed to the network
(see `body.Outgoing`), or the service itself answered 429. Everything else that leaves its outcome open raises
`OutcomeUnknown` or an error that is not `definite`, and the caller looks the job up.

A run that is stopped ends its requests in whatever phase they are. A paid request that is out is left to its answer
for the `lingers` seconds that the caller gives it, without a slot: what it becomes is known then.
"""

from __future__ import annotations

import copy
import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from ..control import Control, Deadline
from ..credentials import Account, is_sendable
from ..errors import (
    ConnectionFailed,
    Interrupted,
    InvalidParameters,
    Misconfigured,
    OutcomeUnknown,
    OxenError,
    RateLimited,
    UnexpectedReply,
)
from ..loopback import is_loopback_name
from ..secrets import Redactor
from ..version import version
from .body import Outgoing, chunks
from .codings import ACCEPTED
from .connections import CONNECT_SECONDS, InTimeAdapter, OneAnswer
from .envelope import error_text, parse_json
from .line import HEADER_BYTES, Line, current
from .plain import in_plain_words, out_of_handles
from .statuses import MAX_RETRY_AFTER, classify, http_date, is_moderation, is_own_word, retry_after
from .way import way_to
from .writing import json_bytes

__all__ = [
    "CONNECT_SECONDS",
    "MAX_RETRY_AFTER",
    "KeyAuth",
    "Reply",
    "Transport",
    "classify",
    "is_moderation",
    "new_session",
    "read_body",
    "retry_after",
]

logger = logging.getLogger(__name__)

# The service takes every agent with "oxen" in its name for its own command line tool and answers 426.
USER_AGENT = f"kontext-bridge/{version()}"
READ_SECONDS = 30.0
# An answer of a route that lists no pictures; what one that does may be; and no answer whatsoever is longer.
REPLY_BYTES = 4 << 20
ROW_BYTES = 64 << 20
MAX_REPLY_BYTES = 192 << 20
# So that the service's own row of it, which may echo the picture, can still be read.
MAX_PAID_BYTES = 48 << 20
_PART = 1 << 20
_ERROR_BYTES = 1 << 20
_ERROR_SECONDS = 10.0
_FRAMING = 8  # bytes on the network for one of a body, in chunks of one byte each
_YEARS = (1.7e9, 4.1e9)  # 2023 to 2099: no Date outside them is the time
_SET_SECONDS = 5.0
_CONNECT_TRIES = 3
_BUSY_TRIES = 6
_POOL_SIZE = 16


@dataclass(frozen=True)
class Reply:
    """A whole answer: status, headers and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self, unread: Collection[str] = ()) -> Any:
        """Without the fields `unread`; raises UnexpectedReply for what is no JSON, and for JSON that is no reply."""
        return parse_json(self.body, self.headers.get("Content-Type", ""), unread)


@dataclass(frozen=True)
class _Request:
    """What `Transport.send` was asked for."""

    method: str
    path: str
    content: Mapping[str, Any]
    paid: bool
    key: str | None = field(repr=False)
    seconds: float
    lingers: float
    max_bytes: int
    before_last: Callable[[], None] | None


class KeyAuth(AuthBase):
    """The bearer header, or none; either way requests does not look into .netrc."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.pop("Authorization", None)
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class _Clock:
    """What is known of the service's clock, by all who share a connection pool."""

    offset: float | None = None
    began: float = 0.0


class Transport:
    """A connection pool to one account's service, shared by the threads of one run."""

    def __init__(self, account: Account, control: Control, session: requests.Session | None = None) -> None:
        self.account = account
        self.control = control
        self.redact = Redactor(account.key)
        self.session = session or new_session(account.base_url, _POOL_SIZE)
        self._clock = _Clock()

    def under(self, control: Control) -> Transport:
        """The same connections, and what they told, under another `Control`."""
        other = copy.copy(self)
        other.control = control
        return other

    @property
    def clock_offset(self) -> float | None:
        """Seconds, to about one, that the service's clock was ahead of this machine's at its last answer.

        None until one tells, and again once this machine's clock was set since.
        """
        was_set = abs(_began() - self._clock.began) > _SET_SECONDS
        return None if was_set else self._clock.offset

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
        max_bytes: int = REPLY_BYTES,
        lingers: float = 0.0,
        before_last: Callable[[], None] | None = None,
    ) -> Reply:
        """The service's successful (2xx) answer to one request; anything else is raised.

        paid: the request costs money; it is never sent twice (see the module). public: no key needed.
        seconds: how long the answer may take once the request is out; the request's body may take its time.
        patient: try again where nothing was sent, and after a 429 in the service's own time; otherwise one try.
        max_bytes: how long the answer may be, unpacked. lingers: seconds for which the answer to a request that is
        wholly out is still waited for once the run was stopped.
        before_last: called just before the request's last block goes out, from when on the service may have it; what
        it raises is raised here, and the request is not sent.
        Raises Misconfigured, InvalidParameters, ConnectionFailed, OutcomeUnknown (paid only), the ReplyError family,
        Interrupted. Of an error that came as an answer, `definite` says whether it is the service's own word.
        """
        key = self.account.key if public else self.account.require_key()
        content = {"json": json, "params": params, "files": files, "data": data}
        request = _Request(
            method=method,
            path=path,
            content=content,
            paid=paid,
            key=key,
            seconds=seconds,
            lingers=lingers,
            max_bytes=max_bytes,
            before_last=before_last,
        )
        attempt = 0
        while True:
            attempt += 1
            try:
                reply = self._once(request)
                if 200 <= reply.status < 300:
                    return reply
                raise self.error_for(reply)
            except ConnectionFailed:
                if not patient or attempt >= _CONNECT_TRIES:
                    raise
                self.control.sleep(_backoff(attempt))
            except RateLimited as busy:
                # who else but the service says so may have passed the request on
                if not patient or attempt >= _BUSY_TRIES or (paid and not busy.definite):
                    raise
                self.control.sleep(_backoff(attempt) if busy.retry_after is None else busy.retry_after)

    def _once(self, request: _Request) -> Reply:
        self.control.check()
        if request.key is not None and not is_sendable(request.key):
            raise Misconfigured("The API key cannot be sent as it is; copy it again. Nothing was sent.")
        line = Line(request.seconds, drops=request.paid)
        body = Outgoing(b"", self.control)
        try:
            prepared = self._prepared(request)
            if prepared.body:
                body = Outgoing(_bytes_of(prepared), self.control, request.before_last)
                prepared.body = body  # type: ignore[assignment]  # any file may stand here
            way = way_to(str(prepared.url), self.session)
            with self.control.on_stop(lambda: _hang_up(line, body, request.lingers)), line:
                response = self.session.send(
                    prepared,
                    allow_redirects=False,
                    stream=True,
                    timeout=(min(CONNECT_SECONDS, request.seconds), request.seconds),
                    proxies=dict(way.proxies),
                    verify=way.verify,
                )
                with response:
                    return self._reply(response, line, request.max_bytes)
        except OxenError as error:
            if request.paid and _is_out(line, body) and isinstance(error, UnexpectedReply):
                raise OutcomeUnknown(f"The answer to a paid request could not be read: {error}") from None
            raise
        except Exception as error:
            # whatever it is: where the request is out, all that counts is that its outcome is not known
            if body.refusal is not None:
                raise body.refusal from None
            raise self._failure(request, error, line, body) from None

    def _prepared(self, request: _Request) -> requests.PreparedRequest:
        url = self.account.base_url + request.path
        content = dict(request.content)
        if (value := content.pop("json")) is not None:
            content |= {"data": json_bytes(value), "headers": {"Content-Type": "application/json"}}
        asked = requests.Request(request.method, url, auth=KeyAuth(request.key), **content)
        prepared = self.session.prepare_request(asked)
        size = len(_bytes_of(prepared))
        if request.paid and size > MAX_PAID_BYTES:
            raise InvalidParameters(
                f"The picture makes a request of {size >> 20} MB, and at most {MAX_PAID_BYTES >> 20} MB are sent. "
                "Nothing was sent. Scale the picture down, or set send_as to Oxen upload."
            )
        return prepared

    def _reply(self, response: requests.Response, line: Line, max_bytes: int) -> Reply:
        """The answer, with a body where it is worth one: of what points elsewhere nothing is read, of an error little.

        An error's own words are no reason to lose its status: where they do not come, it is one without words.
        """
        self.learn_clock(response.headers)
        status = response.status_code
        deadline = line.until or Deadline(line.seconds)
        if 200 <= status < 300:
            return Reply(status, response.headers, read_body(response, deadline, max_bytes))
        body = b""
        if status >= 400:
            line.until = min(deadline, Deadline(_ERROR_SECONDS), key=lambda bound: bound.left)
            try:
                body = read_body(response, line.until, _ERROR_BYTES)
            except (UnexpectedReply, requests.RequestException) as error:
                if line.was_cut:
                    raise
                logger.debug("The words of an answer with HTTP %d did not come: %s", status, type(error).__name__)
        return Reply(status, response.headers, body)

    def _failure(self, request: _Request, error: Exception, line: Line, body: Outgoing) -> OxenError:
        host = urlsplit(self.account.base_url).netloc
        connect = min(CONNECT_SECONDS, request.seconds)
        why = self.redact(in_plain_words(error, connect=connect, answer=request.seconds))
        in_doubt = request.paid and _is_out(line, body)
        if line.was_cut:
            if in_doubt:
                return OutcomeUnknown("The run was stopped after the request was sent and before its answer came.")
            return Interrupted("The run was stopped.")
        if in_doubt:
            return OutcomeUnknown(f"The connection to {host} broke after the request was sent: {why}.")
        advice = "Check the network, then run again."
        if out_of_handles(error):
            advice = "Close other programs, or raise the limit (`ulimit -n 4096` before ComfyUI starts)."
        if not line.begun:
            return ConnectionFailed(f"No connection to {host}: {why}. Nothing was sent. {advice}")
        if request.paid:
            return ConnectionFailed(f"The upload to {host} broke off: {why}. Nothing was sent whole. {advice}")
        return ConnectionFailed(
            f"{request.method} {request.path} at {host} broke off: {why}. Run again to go on: what was sent is not "
            "paid a second time."
        )

    def error_for(self, reply: Reply) -> OxenError:
        """The error that a reply outside 2xx stands for, with what to do next."""
        try:
            parsed = reply.json()
        except UnexpectedReply:
            parsed = None
        said = self.redact(error_text(parsed) or "")
        definite = is_own_word(reply.status, parsed)
        error = classify(reply.status, reply.headers, said, self.account.source, definite=definite)
        error.definite = definite
        return error

    def learn_clock(self, headers: Mapping[str, str]) -> None:
        """Take the service's time from an answer's headers, of any answer that was made for this request."""
        date = http_date(headers.get("Date", ""))
        stored = headers.get("Age", "0").strip() not in {"", "0"}
        if date is not None and _YEARS[0] < date < _YEARS[1] and not stored:
            self._clock.offset, self._clock.began = date - time.time(), _began()


def _began() -> float:
    """When the clock that nobody sets was at nought, by the one that is set; the same as long as that is not."""
    return time.time() - time.monotonic()


def _is_out(line: Line, body: Outgoing) -> bool:
    """Whether the service may have the whole of a request."""
    return body.all_out if body.length else line.begun


def _hang_up(line: Line, body: Outgoing, lingers: float) -> None:
    """End a request of a run that was stopped: now, or `lingers` seconds later where it is out."""
    if not (lingers and _is_out(line, body)):
        line.cut()
        return
    if lingers >= line.seconds:
        return  # its own time ends it
    timer = threading.Timer(lingers, line.cut)
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # no thread is left for it
        line.cut()


def _bytes_of(prepared: requests.PreparedRequest) -> bytes:
    body = prepared.body or b""
    return body.encode() if isinstance(body, str) else bytes(body)


def read_body(response: requests.Response, deadline: Deadline, limit: int = MAX_REPLY_BYTES) -> bytes:
    """A streamed body, at most `limit` bytes and until `deadline`; raises UnexpectedReply beyond either.

    A body that is whole is never too late. Where its length is not announced, one more piece than was there at the
    deadline tells that it was not.
    """
    line = current()
    if line is not None:
        line.room = _FRAMING * limit + HEADER_BYTES
    # what grows to megabytes is moved again and again on the way there
    whole: list[bytes] = []
    size, body = 0, bytearray()
    late = False
    for chunk in chunks(response):
        body += chunk
        size += len(chunk)
        if len(body) >= _PART:
            whole.append(bytes(body))
            body.clear()
        if size > limit:
            raise UnexpectedReply(f"The service sent more than {limit >> 20} MB; the rest was not read.")
        missing = response.raw.length_remaining
        if deadline.passed and (late if missing is None else missing):
            raise UnexpectedReply(f"The service's answer took longer than {deadline.seconds:g} s to arrive.")
        late = deadline.passed
    # of bytes alone: megabytes of these are joined while other threads run
    whole.append(bytes(body))
    return b"".join(whole)


def new_session(base_url: str, pool_size: int) -> requests.Session:
    """A requests session that retries nothing by itself, and uses no proxy to reach this machine."""
    session = OneAnswer()
    session.headers["User-Agent"] = USER_AGENT
    session.headers["Accept-Encoding"] = ACCEPTED
    if is_loopback_name(urlsplit(base_url).hostname or ""):
        session.trust_env = False
    adapter = InTimeAdapter(pool_connections=4, pool_maxsize=pool_size, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _backoff(attempt: int) -> float:
    return float(min(8.0, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))
