"""The JSON of a reply, and the service's own error in it. Pure."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import UnexpectedReply
from .large import in_turn, put_back, set_apart
from .structure import looks_too_intricate

_SHOWN = 300
# Where half a character may stand in JSON: as an escape, or as bytes.
_HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")


def parse_json(body: bytes, content_type: str = "", unread: Collection[str] = ()) -> Any:
    """The JSON of a body, without the fields of the names `unread`, wherever they stand.

    Raises UnexpectedReply for HTML or anything else that is not JSON, for JSON nested too deeply, and for JSON with
    more values than a reply has.
    """
    with in_turn(len(body)):
        return _read(body, content_type, unread)


def _read(body: bytes, content_type: str, unread: Collection[str]) -> Any:
    small, texts = set_apart(body)
    if texts:
        with contextlib.suppress(UnexpectedReply, ValueError, RecursionError):
            parsed = _parsed(small)
            if isinstance(parsed, dict | list) and put_back(parsed, texts, unread):
                return parsed
    try:
        parsed = _parsed(body)
        if unread and isinstance(parsed, dict | list):
            put_back(parsed, {}, unread)
        return parsed
    except RecursionError:
        raise UnexpectedReply("The service's answer is JSON nested too deeply to be read.") from None
    except ValueError:
        start = " ".join(body[:80].decode("utf-8", "replace").split())
        kind = "an HTML page" if start.lower().startswith(("<!doctype", "<html")) else "no JSON"
        where = f" ({content_type})" if content_type else ""
        raise UnexpectedReply(
            f"The service answered with {kind}{where} where JSON belongs, beginning {start!r}. A proxy or a login "
            "page may stand between; check OXEN_BASE_URL and the network."
        ) from None


def _parsed(body: bytes) -> Any:
    """Raises ValueError, RecursionError, and UnexpectedReply for what is too large in memory."""
    if looks_too_intricate(body):
        raise UnexpectedReply("The service answered with more values than a reply has; it was not read.")
    parsed = json.loads(body)
    # the pattern is slow in megabytes
    may_be_half = b"\\" in body or b"\xed" in body
    return _whole_characters(parsed) if may_be_half and _HALF.search(body) else parsed


def _whole_characters(parsed: Any) -> Any:
    """A JSON value without halves of characters, which a text that was cut may end in, and which no file takes."""
    whole = [parsed]
    left: list[Any] = [whole]
    while left:
        holder = left.pop()
        for place, item in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if isinstance(item, str):
                holder[place] = item.encode("utf-8", "replace").decode()
            elif isinstance(item, dict | list):
                left.append(item)
            if isinstance(place, str) and (name := place.encode("utf-8", "replace").decode()) != place:
                holder[name] = holder.pop(place)
    return whole[0]


def error_text(reply: Any) -> str | None:
    """The service's own words for an error, in the order in which its envelopes are most telling; None if none."""
    if not isinstance(reply, Mapping):
        return None
    error = reply.get("error")
    inner: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    candidates = (
        inner.get("detail"),
        inner.get("message"),
        inner.get("title"),
        error if isinstance(error, str) else None,
        reply.get("error_message"),
        reply.get("message"),
        reply.get("status_description"),
        reply.get("status_message"),
        inner.get("type"),
    )
    for text in candidates:
        if isinstance(text, str) and text.strip():
            return text.strip()[:_SHOWN]
    return None


def has_own_error(reply: Any) -> bool:
    """Whether a reply is an error in Oxen.ai's own form; a gateway in between may speak JSON as well."""
    error = reply.get("error") if isinstance(reply, Mapping) else None
    return (isinstance(error, Mapping) and bool(error)) or (isinstance(error, str) and bool(error.strip()))
