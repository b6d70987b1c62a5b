"""What an HTTP status stands for, and whose word it is. Pure."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from datetime import timezone
from typing import Any

from ..credentials import Account
from ..errors import (
    ClientRefused,
    InvalidParameters,
    ModelNotFound,
    ModerationBlocked,
    OutOfCredits,
    OxenError,
    RateLimited,
    Unauthenticated,
    UnexpectedReply,
    Upstream,
)
from .envelope import has_own_error

MAX_RETRY_AFTER = 60.0
# What stands between says these, or says that nobody knows what became of the request.
_NO_WORD = frozenset([408, 444, 460, 499, 504, *range(520, 528), 598, 599])
_NO_SOURCE = Account.source
_MODERATION = ("content policy", "flagged", "moderat", "nsfw", "safety")


def is_own_word(status: int, parsed: Any) -> bool:
    """Whether an error is in Oxen.ai's own form, so that the service itself says that the request failed.

    A gateway in between may speak JSON as well, of what it cannot know.
    """
    if status < 400 or status in _NO_WORD:
        return False
    return has_own_error(parsed)


def classify(
    status: int, headers: Mapping[str, str], said: str, key_source: str = _NO_SOURCE, *, definite: bool = True
) -> OxenError:
    """The error for an HTTP status and the service's own words (already redacted, possibly empty).

    definite: the service itself says so, so that nothing was charged.
    """
    quote = f' The service says: "{said}".' if said else ""
    free = "; nothing was charged." if definite else "."
    if is_moderation(said):
        return ModerationBlocked(
            f"The service's safety check refused the request.{quote} Change the prompt or the picture{free}",
            status=status,
        )
    if status in {401, 403}:
        key = "the API key" if key_source == _NO_SOURCE else f"the API key from {key_source}"
        return Unauthenticated(
            f"Oxen.ai does not accept {key} (HTTP {status}).{quote} Check the key{free}",
            status=status,
        )
    if status == 402:
        return OutOfCredits(
            f"The Oxen.ai account has no credits left.{quote} Add credits on its billing page{free}",
            status=status,
        )
    if status == 404:
        return ModelNotFound(
            f"Oxen.ai does not know what was asked for (HTTP 404).{quote} Check the namespace and OXEN_BASE_URL{free}",
            status=status,
        )
    if status == 426:
        return ClientRefused(
            f"Oxen.ai refuses this client's User-Agent (HTTP 426).{quote} Please report it{free}",
            status=status,
        )
    if status == 429:
        return RateLimited(
            f"Oxen.ai is receiving too many requests from this account (HTTP 429).{quote} Wait a minute, or lower "
            f"max_in_flight in the settings{free}",
            retry_after=retry_after(headers.get("Retry-After")),
        )
    if 400 <= status < 500:
        return InvalidParameters(
            f"Oxen.ai refused the request (HTTP {status}).{quote} Change what it does not take{free}", status=status
        )
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
        date = http_date(value)
        if date is None:
            return None
        seconds = date - time.time()
    return min(max(0.0, seconds), MAX_RETRY_AFTER) if seconds == seconds else None


def http_date(value: str) -> float | None:
    """Unix seconds of a header's date, which is in UTC in all its forms; None where it is none."""
    try:
        date = email.utils.parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return None
