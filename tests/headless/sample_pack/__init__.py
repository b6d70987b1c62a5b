"""A pack that uses what a V3 pack can use; both ComfyUI and the headless side must read it alike."""

from __future__ import annotations

import asyncio
import json
from enum import Enum
from typing import Any

from comfy_api.latest import ComfyExtension, io, ui

Token = io.Custom("SAMPLE_TOKEN")


class Shape(str, Enum):
    match = "match_input_image"
    wide = "16:9"


def told(values: object) -> io.NodeOutput:
    text = json.dumps(values, sort_keys=True, default=str)
    return io.NodeOutput(text, ui=ui.PreviewText(text))


class SampleEcho(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SampleEcho",
            display_name="Sample Echo",
            category="sample/one",
            description="Says what it was given.",
            search_aliases=["repeat"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.String.Input("text", multiline=True, placeholder="say it", tooltip="What to say."),
                io.Int.Input("steps", default=28, min=4, max=50, display_mode=io.NumberDisplay.slider),
                io.Float.Input("guidance", default=2.5, min=0.0, max=10.0, step=0.1, round=0.01),
                io.Combo.Input("shape", options=Shape, default=Shape.match),
                io.Combo.Input("count", options=[1, 2, 3], default=1, advanced=True),
                io.Boolean.Input("loud", default=False, label_on="yes", label_off="no", optional=True),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    optional=True,
                ),
                Token.Input("token", optional=True, display_name="a token", extra_dict={"extra": 1}),
                io.AnyType.Input("anything", optional=True),
                io.String.Input("linked", optional=True, force_input=True, socketless=False),
            ],
            outputs=[io.String.Output(display_name="said", tooltip="What was said.")],
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        return told({**values, "id": cls.hidden.unique_id, "extra": cls.hidden.extra_pnginfo})


class SampleChecked(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SampleChecked",
            is_output_node=True,
            is_experimental=True,
            inputs=[
                io.Int.Input("small", default=1, min=0, max=3),
                io.Int.Input("own", default=1, min=0, max=3),
                io.String.Input("text", default=""),
            ],
            outputs=[io.String.Output()],
        )

    @classmethod
    def validate_inputs(cls, own: int | None, text: str | None) -> bool | str:
        return "no text" if text == "" else True

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        return told(values)


class SampleRefs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        prefixed = io.Autogrow.TemplatePrefix(io.String.Input("ref"), prefix="ref_", min=0, max=4)
        needed = io.Autogrow.TemplatePrefix(io.String.Input("side"), prefix="side_", min=1, max=2)
        return io.Schema(
            node_id="SampleRefs",
            is_output_node=True,
            inputs=[io.Autogrow.Input("refs", prefixed), io.Autogrow.Input("sides", needed)],
            outputs=[io.String.Output()],
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        return told(values)


class SampleChoice(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        refs = io.Autogrow.TemplatePrefix(io.String.Input("ref"), prefix="ref_", min=0, max=2)
        large = [
            io.Combo.Input("size", options=["1K", "2K"], default="2K", optional=True, tooltip="How large."),
            io.Int.Input("steps", default=4, min=1, max=9),
            io.Autogrow.Input("refs", refs, optional=True),
        ]
        options = [io.DynamicCombo.Option("plain", []), io.DynamicCombo.Option("large", large)]
        return io.Schema(
            node_id="SampleChoice",
            is_output_node=True,
            accept_all_inputs=True,
            inputs=[
                io.String.Input("text", default=""),
                io.DynamicCombo.Input("model", options, optional=True, tooltip="Which one."),
            ],
            outputs=[io.String.Output()],
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        return told(values)


class SampleList(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SampleList",
            inputs=[io.String.Input("words", default="a b c")],
            outputs=[io.String.Output(is_output_list=True), Token.Output(display_name="token")],
        )

    @classmethod
    def execute(cls, words: str) -> io.NodeOutput:
        return io.NodeOutput(words.split(), words)


class SampleJoin(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SampleJoin",
            is_input_list=True,
            is_output_node=True,
            inputs=[io.String.Input("words"), io.String.Input("by", default="-")],
            outputs=[io.String.Output()],
        )

    @classmethod
    def execute(cls, words: list[str], by: list[str]) -> io.NodeOutput:
        return told(by[0].join(words))


class SampleBlock(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SampleBlock",
            inputs=[io.String.Input("why", default="")],
            outputs=[io.String.Output(), io.String.Output()],
        )

    @classmethod
    def execute(cls, why: str) -> io.NodeOutput:
        return io.NodeOutput(None, None, block_execution=why)


class SampleFail(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SampleFail",
            is_output_node=True,
            inputs=[io.String.Input("text", default="it broke")],
            outputs=[io.String.Output()],
        )

    @classmethod
    async def execute(cls, text: str) -> io.NodeOutput:
        await asyncio.sleep(0.01)
        raise RuntimeError(text)


NODES: list[type[io.ComfyNode]] = [
    SampleEcho,
    SampleChecked,
    SampleRefs,
    SampleChoice,
    SampleList,
    SampleJoin,
    SampleBlock,
    SampleFail,
]


class SampleExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> ComfyExtension:
    return SampleExtension()
