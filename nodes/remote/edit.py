"""Kontext Edit (Oxen) and Kontext Model Info (Oxen)."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ...oxen.api.models import DEFAULT
from ...oxen.choices import Result
from .. import inputs
from . import left_out

if TYPE_CHECKING:
    import torch

    from .runs import Gathered


class KontextEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextEdit",
            display_name="Kontext Edit (Oxen)",
            category=inputs.CATEGORY,
            description="Edits pictures with FLUX.1 Kontext [dev] at Oxen.ai: every picture of a batch, side by side. "
            "What was paid for once is not paid again.",
            search_aliases=inputs.edit_aliases("oxen"),
            inputs=[*inputs.remote_inputs(DEFAULT), *map(inputs.optional, inputs.run_inputs())],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The edited pictures, in order."),
                io.String.Output(
                    display_name="info",
                    tooltip="JSON: for each edit its generation id, the seed sent, sizes, seconds, and the cost "
                    "where the service tells it; and what Keep found, where it was asked.",
                ),
                inputs.raw_output(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None) -> bool | str:
        return inputs.prompt_is_usable(prompt)

    @classmethod
    def fingerprint_inputs(cls, **widgets: Any) -> Any:
        return fingerprint(widgets, cls.hidden)

    @classmethod
    async def execute(cls, image: torch.Tensor, **widgets: Any) -> io.NodeOutput:
        from . import runs

        gathered = await runs.edit(image, widgets, cls.hidden.unique_id)
        return shown(gathered)


class KontextModelInfo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextModelInfo",
            display_name="Kontext Model Info (Oxen)",
            category=inputs.CATEGORY,
            description="What Oxen.ai says of a model: its parameters, its price, its description. Needs no key.",
            search_aliases=["oxen price", "model schema"],
            is_output_node=True,
            inputs=[
                io.String.Input("model", default=DEFAULT.id, tooltip="The model's id at Oxen.ai."),
            ],
            outputs=[
                io.String.Output(display_name="schema", tooltip="The model's request schema, as JSON."),
                io.String.Output(display_name="price", tooltip="The price of one picture, where it is published."),
                io.String.Output(display_name="description", tooltip="The model's name and description."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    async def execute(cls, model: str) -> io.NodeOutput:
        from ...oxen.api.models import bundled
        from ...oxen.api.models.from_schema import disagreements
        from ..checks import text
        from ..sessions import in_session

        name = text(model, "model").strip()
        found = await in_session(lambda session: session.client.model(name))
        price = found.price.told("not published")
        schema = json.dumps(found.schema or {}, indent=2)
        known = bundled().get(found.id)
        apart = "" if known is None else "\n".join(disagreements(known, found))
        description = "\n".join(filter(None, (found.name, found.description, apart)))
        return io.NodeOutput(schema, price, description, ui=ui.PreviewText(f"{price}\n{description}"))


def shown(gathered: Gathered, *more: Any) -> io.NodeOutput:
    """Image, info, raw picture and what else the node gives, and on it what Keep says, where it was asked."""
    says = None if gathered.says is None else ui.PreviewText(gathered.says)
    return io.NodeOutput(gathered.image, gathered.info, gathered.raw, *more, ui=says)


def fingerprint(widgets: dict[str, Any], hidden: Any = None) -> Any:
    """Equal for equal inputs, so that ComfyUI may reuse the picture, unless a new one is wanted every time, or the last
    run went on without one that is paid for.

    Whether a new one is, is not known here where `result` comes over a link: ComfyUI then gives None for it. hidden:
    the node's, where it waits for its edits.
    """
    if widgets.get("result", Result.REUSE.value) != Result.REUSE.value:
        return time.time_ns()
    return left_out.runs(getattr(hidden, "unique_id", None))
