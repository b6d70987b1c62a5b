"""Kontext History (Oxen): what was made and paid for, and any of it back without paying."""

from __future__ import annotations

import json
import time
from typing import Any

from comfy_api.latest import io, ui

from ..imaging.codec import decode
from ..oxen.batch import Batch
from ..oxen.errors import InvalidParameters
from ..oxen.ledger import Record
from ..oxen.progress import Progress
from ..oxen.session import Session
from . import inputs
from .runs import Gathered, gather, in_session

_PROMPT_SHOWN = 60


class KontextHistory(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextHistory",
            display_name="Kontext History (Oxen)",
            category=inputs.CATEGORY,
            description="What was made on this machine: when, from what prompt and seed, for how much. Brings one "
            "picture back without paying.",
            search_aliases=["oxen history", "past edits", "restore result", "cost"],
            is_output_node=True,
            inputs=[
                io.Int.Input(
                    "pick",
                    default=1,
                    min=1,
                    max=1000,
                    tooltip="Which line of the table to bring back; 1 is the newest.",
                ),
                io.String.Input(
                    "search",
                    default="",
                    placeholder="search: words of the prompt, or a generation id",
                    tooltip="Only what has this in its prompt or generation id.",
                ),
                io.Int.Input("count", default=20, min=1, max=1000, tooltip="How many lines the table has."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture of the chosen line."),
                io.String.Output(display_name="table", tooltip="One edit a line, and the total."),
                io.String.Output(display_name="json", tooltip="The same as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        return float("nan")

    @classmethod
    async def execute(cls, pick: int, search: str = "", count: int = 20) -> io.NodeOutput:
        progress = Progress(1)

        def work(session: Session) -> tuple[Gathered, str, str]:
            records = session.ledger.recent(max(count, pick), contains=search.strip())
            if len(records) < pick:
                raise InvalidParameters(
                    f"The history has {len(records)} edits" + (f" with {search!r}" if search.strip() else "") + f", so "
                    f"there is no number {pick}."
                )
            outcomes = Batch(session, decode).collect([records[pick - 1]], progress)
            records = session.ledger.recent(count, contains=search.strip())
            return gather(outcomes, progress), _table(session, records), _json(session, records)

        gathered, table, text = await in_session(work, progress=progress, node_id=cls.hidden.unique_id)
        return io.NodeOutput(gathered.image, table, text, ui=ui.PreviewText(table))


def _table(session: Session, records: tuple[Record, ...]) -> str:
    lines = [_line(number, record) for number, record in enumerate(records, 1)]
    count, total = session.ledger.totals()
    return "\n".join([*lines, f"{count} edits in all, {total} USD as far as the service told."])


def _line(number: int, record: Record) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.created_at))
    cost = record.cost if record.cost is not None else record.price
    prompt = " ".join(record.prompt.split())
    shown = prompt if len(prompt) <= _PROMPT_SHOWN else prompt[: _PROMPT_SHOWN - 1] + "…"
    price = f"{cost} USD" if cost is not None else "cost unknown"
    return f"{number}  {when}  {record.state.value}  seed {record.seed}  {price}  {shown}"


def _json(session: Session, records: tuple[Record, ...]) -> str:
    count, total = session.ledger.totals()
    edits = [
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
