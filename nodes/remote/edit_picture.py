"""Edit Picture (Oxen) and Submit Picture (Oxen): every model of the service that takes a picture."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ...editing.words import PROMPT
from .. import inputs
from ..types import KontextJob
from .edit import fingerprint, shown
from .own_inputs import model_input

if TYPE_CHECKING:
    import torch

_MODEL = (
    "Which model of Oxen.ai edits the pictures; below it are the inputs that it has of its own. What each takes, and "
    "its price as far as it is known, is on the node's help page."
)


def _inputs(*more: io.Input, waits: bool) -> list[io.Input]:
    """What both nodes begin with, and the list of models last. waits: whether the node waits for its edits."""
    prompt = io.String.Input(
        "prompt",
        multiline=True,
        default="",
        placeholder=PROMPT.placeholder,
        tooltip=f"{PROMPT.tooltip} Models that take no prompt, such as those that enlarge, are sent none.",
    )
    pictures = io.Image.Input(
        "image",
        tooltip="The pictures to edit. Every picture of a batch is one edit by itself; further pictures for one edit "
        "belong to references, where the model takes several.",
    )
    return [
        pictures,
        *map(inputs.optional, (prompt, inputs.variations_input(" Every one is paid for."), *more)),
        model_input(_MODEL, waits=waits),
    ]


class _AnyModel(io.ComfyNode):
    """What the nodes for every model look at before they run."""

    @classmethod
    def validate_inputs(cls, prompt: str | None = None, model: Any = None) -> bool | str:
        from .chosen import wrong_with

        return wrong_with(prompt, model) or True

    @classmethod
    def fingerprint_inputs(cls, **widgets: Any) -> Any:
        return fingerprint(widgets, cls.hidden)


class OxenEdit(_AnyModel):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OxenEdit",
            display_name="Edit Picture (Oxen)",
            category=inputs.CATEGORY,
            description="Edits pictures with any model of Oxen.ai that takes one, each with its own inputs: every "
            "picture of a batch, side by side. What was paid for once is not paid again.",
            search_aliases=[
                *inputs.edit_aliases("oxen"),
                *(
                    "gpt image",
                    "nano banana",
                    "seedream",
                    "qwen image",
                    "flux 2",
                    "upscale",
                    "topaz",
                    "erase",
                    "fine-tune",
                ),
            ],
            inputs=_inputs(*inputs.run_inputs(), waits=True),
            outputs=[
                io.Image.Output(display_name="image", tooltip="The edited pictures, in order."),
                io.String.Output(
                    display_name="info",
                    tooltip="JSON: the model, how the shape was asked for, the price as far as it is known; for each "
                    "edit its generation id, the seed sent, sizes, seconds, and the cost where the service tells it.",
                ),
                inputs.raw_output(),
                inputs.raw_mask_output(),
            ],
            hidden=[io.Hidden.unique_id],
            accept_all_inputs=True,
        )

    @classmethod
    async def execute(cls, image: torch.Tensor, **widgets: Any) -> io.NodeOutput:
        from . import chosen, runs

        read = partial(chosen.order_of, image)
        gathered = await runs.edit(image, {"prompt": "", **widgets}, cls.hidden.unique_id, read)
        return shown(gathered, gathered.mask)


class OxenSubmit(_AnyModel):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OxenSubmit",
            display_name="Submit Picture (Oxen)",
            category=inputs.CATEGORY,
            description="Puts edits with any model of Oxen.ai into its queue and goes on at once; Kontext Collect "
            "fetches the pictures, in this graph or another day.",
            search_aliases=["oxen queue", "enqueue edit", "async edit"],
            is_output_node=True,
            inputs=_inputs(
                *inputs.submit_inputs(" For several edits of the same request, use variations, or change the seed."),
                waits=False,
            ),
            outputs=[
                KontextJob.Output(display_name="job", tooltip="For Kontext Collect, Queue and Cancel."),
                io.String.Output(display_name="generation_ids", tooltip="One a line, to keep for a later day."),
            ],
            hidden=[io.Hidden.unique_id],
            accept_all_inputs=True,
        )

    @classmethod
    async def execute(cls, image: torch.Tensor, **widgets: Any) -> io.NodeOutput:
        from . import chosen, runs

        read = partial(chosen.order_of, image)
        submitted = await runs.submit(image, {"prompt": "", **widgets}, cls.hidden.unique_id, read)
        return io.NodeOutput(submitted.job, submitted.ids, ui=ui.PreviewText(submitted.text))
