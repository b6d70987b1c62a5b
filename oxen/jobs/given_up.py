"""A job whose picture cannot be had: telling the artist so, with the way to have it made anew.

Nobody but the artist gives a job up, by asking for a new picture after having been told of this one. The job is kept
until the new one was taken.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from http import HTTPStatus

from ..errors import ConnectionFailed, GenerationNotFound, OxenError, ReplyError, ResultUnavailable, TimedOut
from .doubt import PAID_ANEW
from .ledger import Ledger
from .record import Record, State
from .results import ANEW

# What a wait for a job may end in with the job's fate still open.
NO_PICTURE = (ConnectionFailed, GenerationNotFound, ReplyError, ResultUnavailable, TimedOut)
# A store that fails mostly does so for a while: no longer than this is its picture waited for as a matter of course.
_PASSING_SECONDS = 600.0


@dataclass(frozen=True)
class Decision:
    """What the artist decided by asking for new pictures, which pays for one request of each key in a run.

    told: the keys of whose doubts the artist knew when the run began; what the run itself tells is not decided yet.
    sent: the keys of the requests that it sent. Batches that belong together share it.
    """

    told: frozenset[str]
    sent: set[str] = field(default_factory=set)

    def concerns(self, record: Record) -> bool:
        """Whether it is about this record, too."""
        return record.key not in self.sent and (not record.told or record.key in self.told)


@dataclass(frozen=True)
class Consent:
    """To which new requests the artist agreed, by `decision` and by the terms of the run.

    reuse: what is there is handed back. pays_for_lost: what may have been paid for and cannot be had is made anew all
    the same.
    """

    decision: Decision
    reuse: bool
    pays_for_lost: bool

    def is_asked_for(self, record: Record) -> bool:
        """Whether a new picture is asked for on account of this record."""
        return self.pays_for_lost and record.told and self.decision.concerns(record)

    def is_decided(self, record: Record) -> bool:
        """Whether the artist asks for a new picture, although this record may have one."""
        return self.is_asked_for(record) or (not self.reuse and self.decision.concerns(record))

    def gives_up(self, record: Record) -> bool:
        """Whether the artist was told that a job's picture is not to be had, and asks for a new one."""
        return record.state in (State.SENT, State.DONE) and record.told and self.is_decided(record)

    def pays_after(self, record: Record, error: OxenError) -> bool:
        """Whether a record that ended in this error is given up and the edit sent anew.

        Only where the artist asks for a new picture, after having been told of this one, or where this one is
        certainly gone.
        """
        return self.is_decided(record) and (record.told or is_gone(error))


def is_gone(error: OxenError) -> bool:
    """Whether the service itself says that there is no such job, or its store that there is no such picture.

    That a job is unknown is believed of the service alone: a gateway in between says 404 as well.
    """
    if isinstance(error, GenerationNotFound):
        return error.definite
    return isinstance(error, ResultUnavailable) and error.status is not None


def with_way_out(ledger: Ledger, record: Record, error: OxenError) -> OxenError:
    """The error with the way to have the picture made anew, of which the artist has been told then."""
    young = 0.0 <= time.time() - record.sent_at < _PASSING_SECONDS
    if young and isinstance(error, ResultUnavailable) and error.status is None:
        return error
    ledger.told(record)
    if ANEW in error.message:
        return error
    if isinstance(error, GenerationNotFound):
        return error.reworded(f"{error.message} {PAID_ANEW}")
    if isinstance(error, ResultUnavailable | TimedOut):
        return error.reworded(f"{error.message.rstrip('. ')}, or {ANEW}.")
    key = ""
    if error.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        key = " with the right key"
    told = error.reworded(
        f"What became of the edit cannot be seen: {error.message} It is remembered: run again{key} to look once more, "
        f"without paying, or {ANEW}."
    )
    told.generation_id = record.generation_id
    return told
