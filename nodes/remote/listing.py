"""What the service and the ledger hold, told as text: the queue, cancelling, the history. Loaded at first use."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import torch

from ... import host
from ...imaging.errors import ImageError
from ...imaging.pixels import check_image
from ...imaging.stack import Stack
from ...oxen.api.models import DEFAULT
from ...oxen.api.replies import Row
from ...oxen.errors import (
    GenerationFailed,
    GenerationNotFound,
    InvalidParameters,
    OxenError,
)
from ...oxen.jobs.afterwards import as_collected, cancelled
from ...oxen.jobs.batch import Batch
from ...oxen.jobs.ends import dollars
from ...oxen.jobs.progress import Progress, Stage
from ...oxen.jobs.record import Record, State
from ...oxen.jobs.session import Session
from ...oxen.secrets import without_query
from ..sessions import in_session
from .keeping import Keeping, checked_source
from .runs import Gathered, decode, gather

# As many characters as stand on a line of a node in either renderer.
_WIDE = 80
_LINES = 1000
_AS_IT_CAME = "raw gives the edit as it came; nothing is paid."


def rows(session: Session, ids: tuple[str, ...]) -> tuple[Row | str, ...]:
    """The rows of some generations, or of all that are queued or processing.

    An id that the service does not know stays an id; raises GenerationNotFound where it knows none of them.
    """
    if not ids:
        return session.client.active(model=None).rows
    found: list[Row | str] = []
    unknown = []
    for generation_id in ids:
        try:
            found.append(session.client.row(generation_id))
        except GenerationNotFound as error:
            found.append(generation_id)
            unknown.append(error)
    if len(unknown) == len(ids):
        raise unknown[0]
    return tuple(found)


def queue_table(rows: tuple[Row | str, ...]) -> str:
    """How many there are, then one job a line: id, status, model, age, prompt."""
    if not rows:
        return "Nothing is queued or processing."
    states = Counter("unknown" if isinstance(row, str) else row.status.value for row in rows)
    total = [", ".join(f"{count} {state}" for state, count in states.items())] if len(rows) > 1 else []
    return "\n".join([*total, *map(_queue_line, rows)])


def queue_json(rows: tuple[Row | str, ...]) -> str:
    return json.dumps([_queue_entry(row) for row in rows], indent=2)


def cancel(session: Session, generation_id: str) -> str:
    """Cancel a job at the service and say in a line what became of it; raises Interrupted, Misconfigured, and
    InvalidParameters for what is no id.
    """
    return f"{generation_id}: {cancelled(session, generation_id)}"


@dataclass(frozen=True)
class PastEdits:
    """The picture of one line, IMAGE [1,H,W,C] or blocked with the reason; the table; the same as JSON.

    raw: the picture as it came, and mask, 1 where that is transparent. says: what Keep says of it.
    """

    image: Any
    table: str
    as_json: str
    raw: Any
    mask: Any
    says: str | None


async def history(pick: int, search: str, count: int, source: torch.Tensor | None, *, keeps: bool) -> PastEdits:
    """What was made, and the picture of one line. source: the picture before that edit, where it is to be kept."""
    progress = Progress(1, keeps=keeps)

    def work(session: Session) -> PastEdits:
        found = _picture(session, pick, search, progress, source, keeps=keeps)
        records = session.ledger.recent(count, contains=search)
        table, as_json = _history_table(session, records, search), _history_json(session, records)
        return PastEdits(found.image, table, as_json, found.raw, found.mask, found.says)

    return await in_session(work)


def _picture(
    session: Session, pick: int, search: str, progress: Progress, source: torch.Tensor | None, *, keeps: bool
) -> Gathered:
    records = [record for record in session.ledger.recent(_LINES, contains=search) if _has_picture(record)]
    if len(records) < pick:
        progress.at(0, Stage.FAILED)
        return _without(_no_number(pick, len(records), search))
    picked = records[pick - 1]
    batch, stack = Batch(session, decode), Stack(1)
    outcomes = tuple(map(as_collected, batch.collect([picked], progress, stack.put)))
    error = outcomes[0].error
    if error is not None:
        return _without(_not_brought(pick, picked, error))
    try:
        keeping = Keeping(check_image(checked_source(source, 1)), 1, session.control.check) if keeps else None
    except (InvalidParameters, ImageError) as wrong:
        # the picture is there all the same
        progress.kept(0)
        return replace(gather(batch, outcomes, progress, stack), image=host.blocked(f"{wrong} {_AS_IT_CAME}"))
    return gather(batch, outcomes, progress, stack, keeping=keeping)


def _without(why: str) -> Gathered:
    blocked = host.blocked(why)
    return Gathered(blocked, "", blocked, mask=blocked)


def _no_number(pick: int, found: int, search: str) -> str:
    having = f" with {search!r}" if search else ""
    if found:
        return f"The history has {_counted(found, 'picture')}{having}, so there is no number {pick}."
    return f"The history has no picture{having or ' yet'}."


def _not_brought(pick: int, record: Record, error: OxenError) -> str:
    lost = isinstance(error, GenerationFailed) and record.state is State.DONE
    if lost or isinstance(error, GenerationNotFound) or error.status == HTTPStatus.GONE:
        return (
            f"Picture {pick} of the history is gone: neither this machine nor Oxen.ai has it any more. It can be made "
            "again, and is paid again, with Kontext Edit, from the same picture, prompt and seed."
        )
    return str(error)


def _queue_line(row: Row | str) -> str:
    if isinstance(row, str):
        return f"{row}  unknown to Oxen.ai"
    age = f"{max(0, time.time() - row.enqueued_at):.0f} s ago" if row.enqueued_at else ""
    prompt = str(row.parameters.get("prompt", ""))
    model = "" if row.model == DEFAULT.id else row.model
    return _fitted("  ".join(part for part in (row.generation_id, row.status.value, model, age, prompt) if part))


def _queue_entry(row: Row | str) -> dict[str, Any]:
    if isinstance(row, str):
        return {"generation_id": row, "status": "unknown"}
    entry = {
        "generation_id": row.generation_id,
        "status": row.status.value,
        "model": row.model,
        "prompt": row.parameters.get("prompt"),
        "seed": row.parameters.get("seed"),
        "enqueued_at": row.enqueued_at,
        "started_at": row.started_at,
        "completed_at": row.completed_at,
        "result": without_query(row.result_url) if row.result_url else None,
        "error": row.error_message,
    }
    return {name: value for name, value in entry.items() if value is not None}


def _has_picture(record: Record) -> bool:
    """Whether there is something to bring back; its file may be pruned, and then comes from the service."""
    return record.state in {State.DONE, State.SENT}


def _history_table(session: Session, records: Sequence[Record], search: str) -> str:
    """The total, then one edit a line, numbered where it can be brought back."""
    numbers = itertools.count(1)
    lines = [_history_line(str(next(numbers)) if _has_picture(one) else "-", one) for one in records]
    count, total = session.ledger.totals()
    if not lines and not search:
        return "Nothing was made on this machine yet."
    lines = lines or [f"No edit has {search!r} in its prompt or generation id."]
    return "\n".join([f"{_counted(count, 'edit')} in all, {dollars(total)} as far as is known.", *lines])


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _history_line(number: str, record: Record) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.created_at))
    seed = "" if record.seed is None else f"seed {record.seed}"
    parts = (f"{number:>3}", when, record.state.value, _price(record), seed, record.prompt or "")
    return _fitted("  ".join(part for part in parts if part))


def _price(record: Record) -> str:
    """What an edit cost, where that is known; a price is no cost where nothing came of it."""
    if record.state is State.REFUSED or record.cost == 0:
        return "not billed"
    if record.cost is not None:
        return dollars(record.cost)
    came = record.price is not None and record.state in {State.DONE, State.SENT}
    return f"about {dollars(record.price)}" if came and record.price is not None else "cost unknown"


def _history_json(session: Session, records: tuple[Record, ...]) -> str:
    count, total = session.ledger.totals()
    edits: list[dict[str, Any]] = [
        {
            "generation_id": record.generation_id,
            "state": record.state.value,
            "made_at": round(record.created_at),
            "prompt": record.prompt,
            "seed": record.seed,
            "cost_usd": None if record.cost is None else float(record.cost),
            "price_usd": None if record.price is None else float(record.price),
            "kept": record.file is not None,
            "error": record.error,
        }
        for record in records
    ]
    return json.dumps({"edits": edits, "count": count, "total_usd": float(total)}, indent=2)


def _fitted(text: str) -> str:
    """A text on one line that a node of usual width shows without breaking it."""
    line = "".join(" " if character in "\r\n\t" else character for character in text)
    return line if len(line) <= _WIDE else line[: _WIDE - 1].rstrip() + "…"
