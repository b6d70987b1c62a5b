"""Kontext Models (Oxen): the account's own models, awake or asleep, what they cost, and their weights."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...oxen.choices import Tend
from .. import inputs


class OxenModels(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OxenModels",
            display_name="Kontext Models (Oxen)",
            category=inputs.CATEGORY,
            description="Your own fine-tunes at Oxen.ai: which there are, from what they were trained, whether they "
            "are awake and what that costs. Wakes one, puts one to sleep, or brings its LoRA here.",
            search_aliases=["fine-tune", "custom model", "my models", "deploy", "download lora", "oxen lora"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "action",
                    options=inputs.choice(Tend),
                    default=Tend.LIST.value,
                    optional=True,
                    tooltip="list: costs nothing and wakes nothing. wake it: starts the model, which is billed by the "
                    "hour until it sleeps; a finished fine-tune is deployed. put it to sleep: ends that. bring its "
                    "LoRA: downloads the weights, for Kontext LoRA.",
                ),
                io.String.Input(
                    "model_id",
                    default="",
                    optional=True,
                    placeholder="model_id: of the model to wake, put to sleep or bring",
                    tooltip="Which model, as the list shows it. For its LoRA, NAMESPACE/REPOSITORY/NAME will do.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="model_ids",
                    is_output_list=True,
                    tooltip="The ids of your fine-tunes of Kontext, a list: for model_id of Edit Picture.",
                ),
                io.String.Output(
                    display_name="info", tooltip="JSON: every model of your own, its state, base and cost per hour."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, action: str = Tend.LIST.value, **_: Any) -> Any:
        # what was brought is not downloaded again for nothing; all else may have changed
        return action if action == Tend.BRING.value else float("nan")

    @classmethod
    async def execute(cls, action: str = Tend.LIST.value, model_id: str = "") -> io.NodeOutput:
        from . import tending

        tended = await tending.tend(action, model_id, cls.hidden.unique_id)
        return io.NodeOutput(tended.ids, tended.info, ui=ui.PreviewText(tended.text))
