"""What can go wrong on the way to Oxen.ai and back.

OxenError
 ├── Misconfigured              no key, an unusable base URL, a settings file that cannot be read
 ├── LocalTrouble               this machine's disk, ledger or system failed
 ├── InvalidParameters          refused here before sending, or by the service (400, 422)
 ├── ConnectionFailed           nothing was sent, or nothing that costs; trying again is safe
 ├── OutcomeUnknown             a paid request may have arrived, its answer did not
 ├── TimedOut                   the caller's deadline passed while a job was still running
 ├── Interrupted                the caller stopped the run
 ├── GenerationError            about one job
 │    ├── GenerationFailed      the service ended it with an error
 │    │    ├── ModerationBlocked
 │    │    └── JobOutOfCredits
 │    ├── GenerationCancelled
 │    ├── GenerationNotFound    404 for a generation id
 │    └── ResultUnavailable     finished and paid, but its picture could not be downloaded
 │         └── ResultUnreadable it came, and is no picture that can be read here
 ├── SomeFailed                 some edits of a batch; the others are kept
 ├── SpendLimitReached          refused here, before sending
 ├── ModelAsleep                a model of the account's own that is not awake: not allowed to wake it, or it failed to
 ├── UrlRefused                 a URL that must not be fetched
 └── ReplyError                 the service answered, and not with what was asked for
      ├── Unauthenticated       401, 403
      ├── OutOfCredits          402
      ├── ModelNotFound         404 for a model
      ├── RateLimited           429
      ├── ClientRefused         426
      ├── Upstream              5xx
      └── UnexpectedReply       a success that is none: not JSON, no generations, unknown shape
           └── UnknownStatus    a row whose status no document lists: wait on, believe nothing

Every error is a value: `status`, `generation_id` and `retryable` can be asked for, and its text says what to
do next, and whether anything was paid; last stands the generation. `line` is the same in a few words. No text
holds the key, a data URI or the query of a presigned URL.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..editing.short import in_short
from ..editing.values import Unfit

Self = TypeVar("Self", bound="OxenError")
T = TypeVar("T")

_IDS_SHOWN = 8
_ABOUT = " Generation"


class OxenError(Exception):
    """Base of everything this package raises on purpose.

    `status` is the HTTP status where there was one; `retryable` says whether the same call may simply be made
    again without a risk of paying twice; `definite` that the service itself said that the request failed. `parts`:
    where it stands for several edits, the error of each, as far as they are known.
    """

    __module__ = "kontext_bridge"  # ComfyUI shows the module of an error to the artist; the real one is a path
    retryable = False
    definite = False
    parts: tuple[OxenError, ...] = ()

    def __init_subclass__(cls) -> None:
        cls.__module__ = OxenError.__module__

    def __init__(self, message: str, *, status: int | None = None, generation_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.generation_id = generation_id

    def __str__(self) -> str:
        """The text, and last of all which generation it is about."""
        return about(self.message, self.not_named)

    @property
    def not_named(self) -> list[str]:
        """The generation that the error is about, unless its text ends with it already."""
        _, ends_so, last = self.message.rpartition(_ABOUT)
        named = ends_so and self.generation_id is not None and self.generation_id in last
        return [] if self.generation_id is None or named else [self.generation_id]

    @property
    def line(self) -> str:
        """What happened, in a few words: the one line of text on a node."""
        return in_short(self.message)

    def reworded(self: Self, message: str) -> Self:
        """The same error with another text."""
        other = copy.copy(self)
        other.message = message
        other.args = (message,)
        return other


class Misconfigured(OxenError):
    pass


class LocalTrouble(OxenError):
    pass


class InvalidParameters(OxenError):
    pass


class ConnectionFailed(OxenError):
    retryable = True


class OutcomeUnknown(OxenError):
    pass


class TimedOut(OxenError):
    """`alive`: of a job that was seen to be under way."""

    alive = False

    @property
    def line(self) -> str:
        what = "still running there" if self.alive else "not seen to be finished"
        return f"{what}; run again to {'go on waiting' if self.alive else 'look once more'}"


class Interrupted(OxenError):
    pass


class GenerationError(OxenError):
    pass


class GenerationFailed(GenerationError):
    pass


class ModerationBlocked(GenerationFailed):
    pass


class JobOutOfCredits(GenerationFailed):
    pass


class GenerationCancelled(GenerationError):
    pass


class GenerationNotFound(GenerationError):
    pass


class ResultUnavailable(GenerationError):
    retryable = True


class ResultUnreadable(ResultUnavailable):
    """`data` is what came; `may_pass` whether it was not the same each time, so that another download may bring it."""

    def __init__(
        self, message: str, data: bytes = b"", *, may_pass: bool = False, generation_id: str | None = None
    ) -> None:
        super().__init__(message, generation_id=generation_id)
        self.data = data
        self.may_pass = may_pass


class SomeFailed(OxenError):
    pass


class SpendLimitReached(OxenError):
    pass


class ModelAsleep(OxenError):
    pass


class UrlRefused(OxenError):
    pass


class ReplyError(OxenError):
    pass


class Unauthenticated(ReplyError):
    pass


class OutOfCredits(ReplyError):
    pass


class ModelNotFound(ReplyError):
    pass


class RateLimited(ReplyError):
    """429; `retry_after` is the wait in seconds that the service asked for, None where it did not say."""

    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message, status=429)
        self.retry_after = retry_after


class ClientRefused(ReplyError):
    pass


class Upstream(ReplyError):
    pass


class UnexpectedReply(ReplyError):
    """`picture` is what came in a picture's place, where it is that which could not be read."""

    picture: bytes | None = None


class UnknownStatus(UnexpectedReply):
    pass


def about(text: str, generation_ids: Sequence[str]) -> str:
    """A text with the generations that it is about, which stand last: they are for looking up, not for reading."""
    if not generation_ids:
        return text
    shown, more = generation_ids[:_IDS_SHOWN], len(generation_ids) - _IDS_SHOWN
    rest = f" and {more} more" if more > 0 else ""
    return f"{text}{_ABOUT}{'s' if len(generation_ids) > 1 else ''} {', '.join(shown)}{rest}."


def checked(read: Callable[..., T], *value: object) -> T:
    """What `read` makes of a value, before anything is sent; raises InvalidParameters where it is Unfit."""
    try:
        return read(*value)
    except Unfit as error:
        raise InvalidParameters(f"{error} Nothing was sent.") from None
