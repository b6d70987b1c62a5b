"""Kontext Keep: only what was asked for changes; the rest stays the source's own pixels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from comfy_api.latest import io, ui

from ...imaging.keep.scope import Scope
from .. import checks, inputs

if TYPE_CHECKING:
    import torch

_STRENGTH = (0.0, 1.0)
_FEATHER = (0, 64)


class KontextKeep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextKeep",
            display_name="Kontext Keep",
            category=inputs.CATEGORY,
            description="Lays an edit back onto its source so that only what was edited changes: aligned, its tint "
            "taken back, at the source's own size. Every other pixel stays exactly what it was. Works on any editor's "
            "results.",
            search_aliases=[
                "keep the rest",
                "align edit",
                "color shift",
                "pixel shift",
                "difference mask",
                "paste back",
            ],
            inputs=[
                io.Image.Input("source", tooltip="The pictures as they were before the edit."),
                io.Image.Input(
                    "edited", tooltip="The edits of them, at any size: one for each, or several of one source."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the change may be: 1 inside. Nothing outside it and the feather changes, and inside "
                    "it what was not edited stays. One for all, or one for each edit. An empty mask is no mask.",
                ),
                io.Combo.Input(
                    "change",
                    options=inputs.choice(Scope),
                    default=Scope.AUTO.value,
                    optional=True,
                    tooltip="auto: finds what changed, and hands the edit on where all of it did. local: always keeps "
                    "the rest. whole: hands the edit on, aligned. mask: takes all of the mask, changed or not.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=_STRENGTH[0],
                    max=_STRENGTH[1],
                    step=0.05,
                    round=0.01,
                    optional=True,
                    tooltip="How much of the edit's drift of colour and tone is taken back in what it changed: 1 all "
                    "of it, 0 nothing.",
                ),
                io.Int.Input(
                    "feather",
                    default=4,
                    min=_FEATHER[0],
                    max=_FEATHER[1],
                    optional=True,
                    tooltip="Over how many of the edit's pixels the change fades into the source.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The sources with what was edited, at their own size."),
                io.Mask.Output(
                    display_name="mask", tooltip="What was taken from the edit: 1 all of it, 0 the source's own pixel."
                ),
                io.String.Output(
                    display_name="info",
                    tooltip="JSON: for each edit what was found, in a line and in numbers: shift, scale, turn, bend, "
                    "drift, the share that changed, and how far the rest is from the source before and after.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        source: torch.Tensor,
        edited: torch.Tensor,
        mask: torch.Tensor | None = None,
        change: str = Scope.AUTO.value,
        strength: float = 1.0,
        feather: int = 4,
    ) -> io.NodeOutput:
        from ... import host
        from ...imaging.keep.engine import Options
        from ...imaging.keep.pairs import keep_batch
        from ...imaging.pixels import check_shape

        options = Options(
            checks.member(Scope, change, "change"),
            checks.within(strength, "strength", _STRENGTH),
            checks.whole(feather, "feather", _FEATHER),
        )
        bar = host.bar(len(check_shape(edited)))
        kept = keep_batch(source, edited, mask, options, lambda done, _: bar(done), host.check)
        said = "\n".join(report.line for report in kept.reports)
        info = json.dumps({"edits": [report.numbers() for report in kept.reports]}, indent=2)
        return io.NodeOutput(kept.images, kept.masks, info, ui=ui.PreviewText(said))
