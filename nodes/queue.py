"""Submitting jobs and coming back for them: Submit, Collect, Queue, Cancel."""

from __future__ import annotations

import json
import time
from typing import Any

import torch
from comfy_api.latest import io, ui

from .. import host
from ..imaging.codec import decode
from ..oxen.batch import Batch
from ..oxen.edits import Terms, WaitMode
from ..oxen.errors import GenerationNotFound, InvalidParameters, SomeFailed
from ..oxen.ledger import Record, State
from ..oxen.progress import Progress
from ..oxen.replies import JobStatus, Row, is_generation_id
from ..oxen.request import member_of
from ..oxen.secrets import without_query
from ..oxen.session import Session
from . import inputs
from .remote import fingerprint, prompt_is_usable
from .runs import Gathered, Order, gather, in_session, listed
from .types import Job, KontextJob

_PROMPT_SHOWN = 60


def _job_input() -> io.Input:
    return KontextJob.Input("job", optional=True, tooltip="What Kontext Submit gives.")


class KontextSubmit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextSubmit",
            display_name="Kontext Submit (Oxen)",
            category=inputs.CATEGORY,
            description="Puts edits into Oxen.ai's queue and goes on at once; Kontext Collect fetches the pictures, in "
            "this graph or another day.",
            search_aliases=["oxen queue", "enqueue edit", "async edit"],
            is_output_node=True,
            inputs=[
                *inputs.edit_inputs(),
                *inputs.request_inputs(),
                inputs.send_as_input(),
                inputs.namespace_input(),
                inputs.result_input(),
                inputs.if_some_fail_input(),
            ],
            outputs=[
                KontextJob.Output(display_name="job", tooltip="For Kontext Collect, Queue and Cancel."),
                io.String.Output(display_name="generation_ids", tooltip="One a line, to keep for a later day."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None) -> bool | str:
        return prompt_is_usable(prompt)

    @classmethod
    def fingerprint_inputs(cls, **widgets: Any) -> Any:
        return fingerprint(widgets)

    @classmethod
    async def execute(cls, image: torch.Tensor, **widgets: Any) -> io.NodeOutput:
        order = Order.read(**widgets, submit_only=True)
        progress = Progress(order.count(image))
        run_id = host.run_id()

        def work(session: Session) -> Job:
            outcomes = Batch(session, decode, order.terms, run_id).edit(order.edits(session, image), progress)
            records = [o.record for o in outcomes if o.record is not None]
            failed = [(number, o.error) for number, o in enumerate(outcomes, 1) if o.error is not None]
            if failed and (not records or order.if_some_fail is inputs.IfSomeFail.STOP):
                if len(outcomes) == 1 and failed[0][1] is not None:
                    raise failed[0][1]
                named = " ".join(f"Edit {number}: {error}" for number, error in failed)
                raise SomeFailed(
                    f"{len(failed)} of {len(outcomes)} edits could not be submitted. {named} The others are under way: "
                    "run again and only what failed is paid for."
                )
            ids = tuple(r.generation_id for r in records if r.generation_id is not None)
            return Job(tuple(r.id for r in records), ids)

        job = await in_session(work, progress=progress, node_id=cls.hidden.unique_id)
        ids = "\n".join(job.generation_ids)
        return io.NodeOutput(job, ids, ui=ui.PreviewText(ids))


class KontextCollect(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextCollect",
            display_name="Kontext Collect (Oxen)",
            category=inputs.CATEGORY,
            description="Waits for submitted jobs and gives their pictures. Costs nothing, however often it is run.",
            search_aliases=["oxen result", "fetch generation"],
            inputs=[
                _job_input(),
                inputs.generation_ids_input(),
                inputs.wait_input(blocking=False),
                inputs.timeout_input(),
                inputs.if_some_fail_input(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The edited pictures, in the order of the ids."),
                io.String.Output(display_name="info", tooltip="JSON, as Kontext Edit gives it."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    async def execute(
        cls,
        job: Job | None = None,
        generation_ids: str = "",
        wait: str = WaitMode.EVENTS.value,
        timeout: int = 300,
        if_some_fail: str = inputs.IfSomeFail.STOP.value,
    ) -> io.NodeOutput:
        ids = _ids(job, generation_ids, required=True)
        terms = Terms(wait=member_of(WaitMode, wait, "wait"), seconds=float(timeout))
        policy = member_of(inputs.IfSomeFail, if_some_fail, "if_some_fail")
        progress = Progress(len(job.records) if job else len(ids))

        def work(session: Session) -> Gathered:
            outcomes = Batch(session, decode, terms).collect(_records(session, job, ids), progress)
            return gather(outcomes, progress, if_some_fail=policy)

        gathered = await in_session(work, progress=progress, node_id=cls.hidden.unique_id)
        return io.NodeOutput(gathered.image, gathered.info)


class KontextQueueStatus(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextQueueStatus",
            display_name="Kontext Queue (Oxen)",
            category=inputs.CATEGORY,
            description="How submitted jobs stand; without a job or ids, all that are queued or processing.",
            search_aliases=["oxen status", "job status"],
            is_output_node=True,
            inputs=[_job_input(), inputs.generation_ids_input()],
            outputs=[
                io.String.Output(display_name="table", tooltip="One job a line: id, status, model, age, prompt."),
                io.String.Output(display_name="json", tooltip="The same as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        return float("nan")

    @classmethod
    async def execute(cls, job: Job | None = None, generation_ids: str = "") -> io.NodeOutput:
        ids = _ids(job, generation_ids, required=False)
        rows = await in_session(
            lambda session: tuple(map(session.client.row, ids)) if ids else session.client.active(model=None)
        )
        table = "\n".join(map(_line, rows)) or "Nothing is queued or processing."
        return io.NodeOutput(table, json.dumps([_told(row) for row in rows], indent=2), ui=ui.PreviewText(table))


class KontextCancel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextCancel",
            display_name="Kontext Cancel (Oxen)",
            category=inputs.CATEGORY,
            description="Cancels submitted jobs at Oxen.ai. One that has finished by then stays and can be collected.",
            search_aliases=["oxen cancel", "stop generation"],
            is_output_node=True,
            inputs=[_job_input(), inputs.generation_ids_input()],
            outputs=[io.String.Output(display_name="text", tooltip="What became of each job, one a line.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        return float("nan")

    @classmethod
    async def execute(cls, job: Job | None = None, generation_ids: str = "") -> io.NodeOutput:
        ids = _ids(job, generation_ids, required=True)
        lines = await in_session(lambda session: [_cancel(session, generation_id) for generation_id in ids])
        text = "\n".join(lines)
        return io.NodeOutput(text, ui=ui.PreviewText(text))


def _ids(job: Job | None, text: str, *, required: bool) -> tuple[str, ...]:
    """The generation ids of a job and of a text, in order; raises InvalidParameters for what is none."""
    ids = tuple(dict.fromkeys((*(job.generation_ids if job else ()), *listed(text))))
    for generation_id in ids:
        if not is_generation_id(generation_id):
            raise InvalidParameters(
                f"{generation_id[:60]!r} is not a generation id. Give one a line, as Kontext Submit shows them."
            )
    if required and not ids and not (job and job.records):
        raise InvalidParameters("There is no job: connect Kontext Submit's job, or write generation ids, one a line.")
    return ids


def _records(session: Session, job: Job | None, ids: tuple[str, ...]) -> list[Record]:
    """The ledger's records of a job and of ids, each once."""
    known = [session.ledger.by_id(number) for number in (job.records if job else ())]
    records = [record for record in known if record is not None]
    taken = {record.generation_id for record in records}
    return records + [session.ledger.adopt(generation_id) for generation_id in ids if generation_id not in taken]


def _cancel(session: Session, generation_id: str) -> str:
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


def _line(row: Row) -> str:
    prompt = " ".join(str(row.parameters.get("prompt", "")).split())
    shown = prompt if len(prompt) <= _PROMPT_SHOWN else prompt[: _PROMPT_SHOWN - 1] + "…"
    age = f"{max(0, time.time() - row.enqueued_at):.0f} s ago" if row.enqueued_at else ""
    return "  ".join(part for part in (row.generation_id, row.status.value, row.model, age, shown) if part)


def _told(row: Row) -> dict[str, Any]:
    told = {
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
    return {name: value for name, value in told.items() if value is not None}
