"""Kontext History (Oxen): what was made and paid for, and any of it back without paying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ...editing.words import Keep
from .. import inputs

if TYPE_CHECKING:
    import torch

_LINES = 1000


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
                    max=_LINES,
                    tooltip="Which line of the table to bring back; 1 is the newest.",
                ),
                io.String.Input(
                    "search",
                    default="",
                    placeholder="search: words of the prompt, or a generation id",
                    tooltip="Only what has this in its prompt or generation id.",
                ),
                io.Int.Input("count", default=20, min=1, max=_LINES, tooltip="How many lines the table has."),
                inputs.source_input(),
                inputs.keep_input(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture of the chosen line."),
                io.String.Output(display_name="table", tooltip="One edit a line, and the total."),
                io.String.Output(display_name="json", tooltip="The same as JSON."),
                inputs.raw_output(),
                inputs.raw_mask_output(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        return float("nan")

    @classmethod
    async def execute(
        cls,
        pick: int,
        search: str = "",
        count: int = 20,
        source: torch.Tensor | None = None,
        keep: str = Keep.OFF.value,
    ) -> io.NodeOutput:
        from ..checks import member, text, whole
        from . import listing

        pick, count = whole(pick, "pick", (1, _LINES)), whole(count, "count", (1, _LINES))
        search = text(search, "search").strip()
        keeps = member(Keep, keep, "keep") is Keep.AUTO
        found = await listing.history(pick, search, count, source, keeps=keeps)
        said = "\n".join(text for text in (found.table, found.says) if text)
        return io.NodeOutput(found.image, found.table, found.as_json, found.raw, found.mask, ui=ui.PreviewText(said))
