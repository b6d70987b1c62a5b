"""Kontext Fast: approximations on a MODEL, all off by default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from .. import inputs

if TYPE_CHECKING:
    import torch


class KontextFast(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextFast",
            display_name="Kontext Fast",
            category=inputs.CATEGORY,
            description="Makes edits on this machine faster by leaving work out, which changes the picture a little: "
            "every option is off until you set it. Says after each run what was left out, and how far the result is "
            "from the exact one where measure is on.",
            search_aliases=["speed up", "first block cache", "teacache", "easycache", "faster sampling", "optimize"],
            inputs=[
                io.Model.Input("model", tooltip="From Load Kontext (FP8), or any FLUX.1 MODEL. LoRA may come before."),
                io.Float.Input(
                    "cache",
                    default=0.0,
                    min=0.0,
                    max=0.9,
                    step=0.01,
                    round=0.001,
                    tooltip="Lets a step end early while the picture changes little from the step before. 0 is off; "
                    "0.1 is a start. More is faster and further from the exact edit.",
                ),
                io.Float.Input(
                    "reference",
                    default=1.0,
                    min=1.0,
                    max=4.0,
                    step=0.25,
                    round=0.01,
                    tooltip="Divides the sides of the reference pictures, which then cost less in every step. 1 is "
                    "off; 2 leaves a quarter of their tokens, and less of their detail. Leave it at 1 for the demo "
                    "model.",
                ),
                io.Float.Input(
                    "settled",
                    default=0.0,
                    min=0.0,
                    max=0.9,
                    step=0.01,
                    round=0.001,
                    tooltip="With a mask: once the picture outside it changes by less than this from step to step, "
                    "that part is left out of all later steps and taken from the source. 0 is off; 0.1 is a start.",
                ),
                io.Boolean.Input(
                    "measure",
                    default=False,
                    tooltip="Samples each run a second time, exactly and from the same noise, and says how far apart "
                    "the two are and what time was saved. Takes more than twice as long: for trying settings.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What is to be edited, on the picture that is the first reference. Needs settled.",
                ),
                io.Vae.Input(
                    "vae", optional=True, tooltip="With measure: also says how far the two pictures are apart."
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The MODEL, whose runs leave out what was set.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        cache: float = 0.0,
        reference: float = 1.0,
        settled: float = 0.0,
        measure: bool = False,
        mask: torch.Tensor | None = None,
        vae: Any = None,
    ) -> io.NodeOutput:
        from . import fast_work

        return io.NodeOutput(fast_work.fast(model, cache, reference, settled, measure, mask, vae))
