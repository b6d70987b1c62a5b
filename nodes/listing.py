"""What the service and the ledger hold, told as text: the queue, cancelling, the history. Loaded at first use."""

from __future__ import annotations

import json
import time
from typing import Any

from ..imaging.codec import decode
from ..oxen.batch import Batch
from ..oxen.errors import GenerationNotFound, InvalidParameters
from ..oxen.ledger import Record, State
from ..oxen.progress import Progress
from ..oxen.replies import JobStatus, Row
from ..oxen.secrets import without_query
from ..oxen.session import Session
from .runs import Gathered, gather, in_session

_PROMPT_SHOWN = 60


def rows(session: Session, ids: tuple[str, ...]) -> tuple[Row, ...]:
    """The rows of some generations, or of all that are queued or processing."""
    return tuple(map(session.client.row, ids)) if ids else session.client.active(model=None)


def queue_table(rows: tuple[Row, ...]) -> str:
    """One job a line: id, status, model, age, prompt."""
    return "\n".join(map(_queue_line, rows)) or "Nothing is queued or processing."


def queue_json(rows: tuple[Row, ...]) -> str:
    told = [
        {
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
        for row in rows
    ]
    return json.dumps([{name: value for name, value in one.items() if value is not None} for one in told], indent=2)


def cancel(session: Session, generation_id: str) -> str:
    """Cancel a job at the service and say in a line what became of it."""
    try:
        session.client.cancel(generation_id)
        row = session.client.row(generation_id)
    except GenerationNotFound as error:
        return f"{generation_id}: {error}"
    if row.status is JobStatus.CANCELLED:
        record = session.ledger.by_generation(generation_id)
        if record is not None and record.state in {State.SENDING, State.SENT}:
            session.ledger.ended(record, State.CANCELLED, "Cancelled.")
        return f"{generation_id}: cancelled"
    if row.status is JobStatus.SUCCEEDED:
        return f"{generation_id}: finished before it could be cancelled; collect it, it is paid for"
    return f"{generation_id}: {row.status.value}"


async def history(pick: int, search: str, count: int, node_id: str | None) -> tuple[Gathered, str, str]:
    """The picture of one line of the history, the table and the same as JSON; raises OxenError."""
    progress = Progress(1)

    def work(session: Session) -> tuple[Gathered, str, str]:
        records = session.ledger.recent(max(count, pick), contains=search)
        if len(records) < pick:
            found = f" with {search!r}" if search else ""
            raise InvalidParameters(f"The history has {len(records)} edits{found}, so there is no number {pick}.")
        outcomes = Batch(session, decode).collect([records[pick - 1]], progress)
        records = session.ledger.recent(count, contains=search)
        return gather(outcomes, progress), _history_table(session, records), _history_json(session, records)

    return await in_session(work, progress=progress, node_id=node_id)


def _queue_line(row: Row) -> str:
    age = f"{max(0, time.time() - row.enqueued_at):.0f} s ago" if row.enqueued_at else ""
    prompt = _shortened(str(row.parameters.get("prompt", "")))
    return "  ".join(part for part in (row.generation_id, row.status.value, row.model, age, prompt) if part)


def _history_table(session: Session, records: tuple[Record, ...]) -> str:
    lines = [_history_line(number, record) for number, record in enumerate(records, 1)]
    count, total = session.ledger.totals()
    return "\n".join([*lines, f"{count} edits in all, {total} USD as far as the service told."])


def _history_line(number: int, record: Record) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.created_at))
    cost = record.cost if record.cost is not None else record.price
    price = f"{cost} USD" if cost is not None else "cost unknown"
    return f"{number}  {when}  {record.state.value}  seed {record.seed}  {price}  {_shortened(record.prompt)}"


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


def _shortened(prompt: str) -> str:
    line = " ".join(prompt.split())
    return line if len(line) <= _PROMPT_SHOWN else line[: _PROMPT_SHOWN - 1] + "…"
