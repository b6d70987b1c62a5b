"""Kontext Edit Folder (Oxen): a folder of pictures, edited one by one into another folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from comfy_api.latest import io

from ...editing.words import SEED, USD_LIMIT, Keep
from ...oxen.api.models import DEFAULT
from .. import inputs

_USD = 10.0


def _folders() -> list[io.Input]:
    return [
        io.String.Input(
            "folder",
            default="",
            placeholder="folder below ComfyUI's input",
            tooltip="The folder of pictures, as a name below ComfyUI's input folder: shoot, or shoot/day1. PNG, JPEG, "
            "WebP and GIF files, those in folders below it too.",
        ),
    ]


def _edit() -> Iterator[io.Input]:
    """What Kontext Edit begins with, but for its pictures."""
    for one in inputs.remote_inputs(DEFAULT)[1:]:
        if one.id == SEED.name:
            one.tooltip = (
                "The seed of every picture; variations count up from it. The same seed with the same inputs is the "
                "same request, and is not paid again."
            )
        yield one


def _run() -> list[io.Input]:
    return [
        inputs.wait_input(blocking=True),
        inputs.send_as_input(),
        inputs.timeout_input(),
        inputs.namespace_input(),
        io.Combo.Input(
            "keep",
            options=inputs.choice(Keep),
            default=Keep.OFF.value,
            tooltip="auto: only what was edited changes, as with Kontext Keep, and each result has its picture's own "
            "size. off: results are the edits as they came.",
        ),
        io.String.Input(
            "output",
            default="",
            placeholder="output: like folder, if empty",
            tooltip="The folder of results, as a name below ComfyUI's output folder. Empty means the same name as "
            "folder. Results keep the names and folders of their pictures.",
        ),
        io.Float.Input(
            "usd_limit",
            default=_USD,
            min=USD_LIMIT[0],
            max=USD_LIMIT[1],
            step=0.5,
            round=0.01,
            tooltip="US dollars that this folder may cost in all, earlier runs included. It stops before passing them, "
            "and goes on with a higher limit. 0 means none but that of the settings.",
        ),
        io.String.Input(
            "pattern",
            default="",
            placeholder="pattern: all pictures, if empty",
            advanced=True,
            tooltip="Which files of the folder, as *_front.jpg; several are separated by a semicolon. Empty means all "
            "pictures.",
        ),
        io.Boolean.Input(
            "subfolders", default=True, advanced=True, tooltip="Whether pictures in folders below it are edited, too."
        ),
        io.Boolean.Input(
            "whole_names",
            default=False,
            advanced=True,
            tooltip="Call the result of a.jpg a.jpg.png, where a folder has a.jpg and a.png, whose results would meet.",
        ),
        io.Boolean.Input(
            "replace",
            default=False,
            advanced=True,
            tooltip="Write over results of another prompt, or other settings, in the folder of results. Off: such a "
            "run is refused before anything is sent.",
        ),
        io.Boolean.Input(
            "retry_failed",
            default=False,
            advanced=True,
            tooltip="Try pictures again that failed at the service, by its safety checker for one. Each try may be "
            "billed.",
        ),
        io.Boolean.Input(
            "pay_for_lost",
            default=False,
            advanced=True,
            tooltip="Pay anew for pictures of which a run said that they may have been paid for and cannot be had.",
        ),
    ]


class KontextEditFolder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KontextEditFolder",
            display_name="Kontext Edit Folder (Oxen)",
            category=inputs.CATEGORY,
            description="Edits a folder of pictures with FLUX.1 Kontext [dev] at Oxen.ai, into another folder: names "
            "stay, memory stays flat. Stopped at any moment, the next run goes on where it was and pays for nothing "
            "again.",
            search_aliases=[*inputs.edit_aliases("oxen"), "batch folder", "bulk edit", "directory", "many pictures"],
            is_output_node=True,
            inputs=[
                *_folders(),
                *_edit(),
                *map(inputs.optional, _run()),
            ],
            outputs=[
                io.Image.Output(
                    display_name="sheet",
                    tooltip="A contact sheet: small pictures before and after, what failed first and marked.",
                ),
                io.String.Output(
                    display_name="report", tooltip="How many are done, what they cost, which failed, and why."
                ),
                io.String.Output(
                    display_name="path",
                    tooltip="The path of the folder of results, with report.html and report.jsonl in it.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls, folder: str | None = None, output: str | None = None, prompt: str | None = None
    ) -> bool | str:
        from ..media import wrong_with_folders

        return wrong_with_folders(folder, output) or inputs.prompt_is_usable(prompt)

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        return float("nan")  # what lies in the folders may have changed

    @classmethod
    async def execute(cls, **widgets: Any) -> io.NodeOutput:
        from . import folder_work

        made = await folder_work.edit_folder(widgets, cls.hidden.unique_id)
        return io.NodeOutput(made.sheet, made.report, made.path, ui=made.shown)
