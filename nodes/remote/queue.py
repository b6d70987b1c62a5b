"""Submitting jobs and coming back for them: Submit, Collect, Queue, Cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ...editing.words import Keep
from ...oxen.api.models import DEFAULT
from ...oxen.choices import IfSomeFail, WaitMode
from .. import inputs
from ..types import JobHandle, KontextJob
from . import left_out
from .edit import fingerprint, shown

if TYPE_CHECKING:
    import torch


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
                *inputs.remote_inputs(DEFAULT),
                *map(inputs.optional, inputs.submit_inputs(" For several edits of the same request, change the seed.")),
            ],
            outputs=[
                KontextJob.Output(display_name="job", tooltip="For Kontext Collect, Queue and Cancel."),
                io.String.Output(display_name="generation_ids", tooltip="One a line, to keep for a later day."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None) -> bool | str:
        return inputs.prompt_is_usable(prompt)

    @classmethod
    def fingerprint_inputs(cls, **widgets: Any) -> Any:
        return fingerprint(widgets)

    @classmethod
    async def execute(cls, image: torch.Tensor, **widgets: Any) -> io.NodeOutput:
        from . import runs

        submitted = await runs.submit(image, widgets, cls.hidden.unique_id)
        return io.NodeOutput(submitted.job, submitted.ids, ui=ui.PreviewText(submitted.text))


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
                inputs.optional(inputs.wait_input(blocking=False)),
                inputs.optional(inputs.timeout_input()),
                inputs.optional(
                    inputs.if_some_fail_input(
                        "Where some of several jobs fail: stop with the error; or go on with the pictures that came, "
                        "and info names the failed ones. What came is kept either way; nothing is paid here."
                    )
                ),
                _job_input(),
                inputs.generation_ids_input(),
                inputs.source_input(),
                inputs.keep_input(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The edited pictures, in the order of the ids."),
                io.String.Output(display_name="info", tooltip="JSON, as Kontext Edit gives it."),
                inputs.raw_output(),
                inputs.raw_mask_output(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> Any:
        # what a run went on without may have come: ComfyUI's cache would never ask for it
        return left_out.runs(getattr(cls.hidden, "unique_id", None))

    @classmethod
    async def execute(
        cls,
        job: JobHandle | None = None,
        generation_ids: str = "",
        wait: str = WaitMode.EVENTS.value,
        timeout: int = 300,
        if_some_fail: str = IfSomeFail.STOP.value,
        source: torch.Tensor | None = None,
        keep: str = Keep.OFF.value,
    ) -> io.NodeOutput:
        from . import runs

        node_id = cls.hidden.unique_id
        found = await runs.collect(job, generation_ids, wait, timeout, if_some_fail, source, keep, node_id)
        return shown(found, found.mask)


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
    async def execute(cls, job: JobHandle | None = None, generation_ids: str = "") -> io.NodeOutput:
        from ..sessions import in_session
        from . import listing, runs

        ids = runs.generation_ids(job, generation_ids, required=False)
        rows = await in_session(lambda session: listing.rows(session, ids))
        table = listing.queue_table(rows)
        return io.NodeOutput(table, listing.queue_json(rows), ui=ui.PreviewText(table))


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
    async def execute(cls, job: JobHandle | None = None, generation_ids: str = "") -> io.NodeOutput:
        from ..sessions import in_session
        from . import listing, runs

        ids = runs.generation_ids(job, generation_ids, required=True)
        text = "\n".join(await in_session(lambda session: [listing.cancel(session, one) for one in ids]))
        return io.NodeOutput(text, ui=ui.PreviewText(text))
