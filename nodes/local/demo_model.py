"""Load Kontext Demo: the small model that comes with the pack, to try the local nodes with."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .. import inputs


class KontextLoadDemo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextLoadDemo",
            display_name="Load Kontext Demo",
            category=inputs.CATEGORY,
            description="Loads the small demo model that comes with the pack: MODEL, CLIP and VAE, nothing to "
            "download. It edits drawn scenes of about 128x128 pixels as it is told. It is a "
            "demonstration of the nodes, not Kontext.",
            search_aliases=["try kontext", "demo model", "example model", "without download", "tiny kontext"],
            inputs=[],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="The demo model, for the local nodes or any stock sampler."
                ),
                io.Clip.Output(
                    display_name="clip", tooltip="Its text encoder, which knows the words that it was taught."
                ),
                io.Vae.Output(display_name="vae", tooltip="Its VAE. FLUX's own does not fit this model."),
                io.String.Output(display_name="info", tooltip="What it is, its size, how it is computed."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> Any:
        from ...kontext.demo.shipped import stamps

        return stamps()

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from . import work as edits

        loaded = edits.load_demo()
        return io.NodeOutput(
            loaded.model, loaded.clip, loaded.vae, loaded.description, ui=ui.PreviewText(loaded.description)
        )
