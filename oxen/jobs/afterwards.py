"""What is done with a job after its run: it is cancelled by its id, or its outcome is told to whoever collects it."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from ..api.replies import JobStatus
from ..errors import GenerationCancelled, Interrupted, JobOutOfCredits, Misconfigured, OxenError
from .order import Outcome
from .record import State
from .results import ANEW
from .session import Session
from .waiting import NOT_TOLD, ONCE_MORE

Picture = TypeVar("Picture")

_MADE_ANEW = "To have it made, and paid, anew use Kontext Edit or Kontext Submit."


def cancelled(session: Session, generation_id: str) -> str:
    """Cancel a job at the service and say what became of it; raises Interrupted, Misconfigured, and InvalidParameters
    for what is no id."""
    session.client.check_id(generation_id)
    try:
        session.client.cancel(generation_id)
        row = session.client.row(generation_id)
    except (Interrupted, Misconfigured):
        raise
    except OxenError as error:
        return error.message
    if row.status is JobStatus.CANCELLED:
        record = session.ledger.by_generation(generation_id)
        if record is not None and record.state in {State.SENDING, State.SENT}:
            session.ledger.ended(record, State.CANCELLED, "Cancelled.")
        return "cancelled"
    if row.status is JobStatus.SUCCEEDED:
        return "finished before it could be cancelled; collect it, it is paid for"
    return str(row.status.value)


def as_collected(outcome: Outcome[Picture]) -> Outcome[Picture]:
    """The outcome with what collecting can promise: it makes nothing, however often it is done."""
    error = outcome.error
    if isinstance(error, GenerationCancelled):
        told = f"The edit was cancelled at Oxen.ai, so there is no picture to collect. {NOT_TOLD}"
    elif isinstance(error, JobOutOfCredits):
        told = error.message.replace(", then run again.", ".")
    elif error is not None and ONCE_MORE in error.message:
        told = error.message.replace(f" {ONCE_MORE}", "")
    elif error is not None and ANEW in error.message:
        told = error.message.replace(f", or {ANEW}", "").removesuffix(f" Or {ANEW}.")
    else:
        return outcome
    return replace(outcome, error=error.reworded(f"{told} {_MADE_ANEW}"))
