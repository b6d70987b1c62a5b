"""One edit as it is asked for, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from ..api.request import ALONE, Beside, EditParameters
from ..choices import WaitMode
from ..errors import OxenError
from .record import Record

Picture = TypeVar("Picture")


class How(str, Enum):
    """Where a picture came from; only NEW was paid for in this run."""

    NEW = "new"
    REUSED = "reused"
    RESUMED = "resumed"
    FOUND = "found again"


@dataclass(frozen=True)
class Edit:
    """One picture to edit.

    pixels: a digest of the decoded pixels, of all that goes with the picture, too. input_image: makes the data URI, or
    the URL that the service can download; called only when the edit is really sent, so that nothing is encoded or
    uploaded in vain. beside: so for what goes with it.
    """

    parameters: EditParameters
    pixels: str
    input_image: Callable[[], str]
    beside: Callable[[], Beside] = lambda: ALONE


@dataclass(frozen=True)
class Outcome(Generic[Picture]):
    """What became of one edit: a picture, or (submitted only) neither, or an error. `seconds` is what it took."""

    record: Record | None = None
    how: How | None = None
    picture: Picture | None = field(default=None, repr=False)
    error: OxenError | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Terms:
    """How edits are run. reuse: hand back a picture that was paid for before. seconds: patience for one edit."""

    wait: WaitMode = WaitMode.EVENTS
    reuse: bool = True
    seconds: float = 300.0
    submit_only: bool = False


@dataclass(frozen=True)
class Claim(Generic[Picture]):
    """A record that answers an edit, and its picture where it is at hand."""

    record: Record
    how: How
    picture: Picture | None = None
