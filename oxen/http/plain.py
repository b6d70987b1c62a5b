"""Why a request failed, in plain words."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from collections.abc import Iterator

import requests
import urllib3.exceptions

from .line import TooLong

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
    (TooLong, "more came than an answer may have"),
    (requests.exceptions.InvalidHeader, "a header of the answer is malformed"),
    (urllib3.exceptions.InvalidHeader, "a header of the answer is malformed"),
    (http.client.HTTPException, "the answer is not HTTP"),
    (UnicodeError, "the answer is not HTTP"),
)
_NO_HANDLES = frozenset([errno.EMFILE, errno.ENFILE])


def in_plain_words(error: BaseException, *, connect: float, answer: float) -> str:
    """Why a request failed; `connect` and `answer` are the seconds that its connection and its answer were given."""
    # urllib3 counts what it could not connect for any reason among the timeouts
    causes = [cause for cause in _causes(error) if not isinstance(cause, urllib3.exceptions.NewConnectionError)]
    root = causes[-1] if causes else error
    why = (isinstance(root, OSError) and root.strerror) or str(root) or type(root).__name__
    for kind, words in _REASONS:
        if any(isinstance(cause, kind) for cause in causes):
            why = words.format(connect=f"{connect:g}", answer=f"{answer:g}")
            break
    if out_of_handles(error):
        why = "this machine has no file handle left for it"
    proxied = any(isinstance(cause, urllib3.exceptions.ProxyError) or _is_refused_tunnel(cause) for cause in causes)
    return f"by way of the proxy: {why}" if proxied else why


def out_of_handles(error: BaseException) -> bool:
    """Whether a request failed because this process or machine may open no more files."""
    return any(isinstance(cause, OSError) and cause.errno in _NO_HANDLES for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it wraps, from the outside in; not what was merely handled when it was raised."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        wrapped = (
            getattr(cause, "original_error", None),
            getattr(cause, "reason", None),
            *cause.args,
            cause.__cause__,
        )
        cause = next((inner for inner in wrapped if isinstance(inner, BaseException)), None)


def _is_refused_tunnel(cause: BaseException) -> bool:
    return isinstance(cause, OSError) and str(cause).startswith("Tunnel connection failed")
