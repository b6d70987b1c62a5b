"""The inputs that several nodes have, so that they have the same names, ranges, tooltips and order.

Saved workflows store widget values by position: append, never insert.
"""

from __future__ import annotations

from enum import Enum

from comfy_api.latest import io

from ..imaging.formats import DEFAULT_FORMAT, ImageFormat
from ..oxen.api.request import GUIDANCE, QUALITY, STEPS, VARIATIONS, AspectRatio, OutputFormat, wrong_with_prompt
from ..oxen.choices import IfSomeFail, Result, SendAs, WaitMode

CATEGORY = "Kontext Bridge"


def choice(members: type[Enum]) -> list[str]:
    return [str(member.value) for member in members]


def edit_inputs() -> list[io.Input]:
    """What every edit node begins with, remote or local, in this order."""
    return [
        io.Image.Input("image", tooltip="The pictures to edit. Every picture of a batch is edited by itself."),
        io.String.Input(
            "prompt",
            multiline=True,
            placeholder="prompt: what to change, in a sentence",
            tooltip="What to change, in a sentence. Say what must stay as it is, too.",
        ),
        io.Combo.Input(
            "aspect_ratio",
            options=choice(AspectRatio),
            default=AspectRatio.MATCH.value,
            tooltip="The shape of the result. match_input_image keeps that of the picture.",
        ),
        io.Int.Input(
            "steps",
            default=28,
            min=STEPS[0],
            max=STEPS[1],
            tooltip="Sampling steps, 4 to 50. Fewer are faster and rougher.",
        ),
        guidance_input(),
        seed_input(
            "Picture 1 gets this seed, picture 2 the next, and so on. The same seed with the same inputs is "
            "the same request, and is not paid again. Seeds above 2147483647 are reduced modulo 2^31 for the service."
        ),
    ]


def guidance_input() -> io.Input:
    return io.Float.Input(
        "guidance",
        default=2.5,
        min=GUIDANCE[0],
        max=GUIDANCE[1],
        step=0.1,
        round=0.01,
        tooltip="How closely the prompt is followed, 0 to 10. Kontext was made for 2.5.",
    )


def seed_input(tooltip: str) -> io.Input:
    """ComfyUI's seed, which stays as it is after a run: another one is another request."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=2**64 - 1,
        control_after_generate=io.ControlAfterGenerate.fixed,
        tooltip=tooltip,
    )


def request_inputs() -> list[io.Input]:
    """How a remote edit is asked for, after `edit_inputs`."""
    return [
        io.Int.Input(
            "variations",
            default=1,
            min=VARIATIONS[0],
            max=VARIATIONS[1],
            advanced=True,
            tooltip="How many results for each picture, each with a seed of its own. Every one is paid for.",
        ),
        io.Combo.Input(
            "output_format",
            options=choice(OutputFormat),
            default=OutputFormat.PNG.value,
            advanced=True,
            tooltip="The file format of the result. png alone is lossless.",
        ),
        io.Int.Input(
            "output_quality",
            default=95,
            min=QUALITY[0],
            max=QUALITY[1],
            advanced=True,
            tooltip="Quality of a webp or jpg result, 0 to 100. Has no effect on png.",
        ),
        io.Boolean.Input(
            "disable_safety_checker",
            default=False,
            advanced=True,
            tooltip="Asks the service to leave its safety checker out.",
        ),
    ]


def wait_input(*, blocking: bool) -> io.Input:
    modes = [mode.value for mode in WaitMode if blocking or mode is not WaitMode.BLOCKING]
    return io.Combo.Input(
        "wait",
        options=modes,
        default=WaitMode.EVENTS.value,
        advanced=True,
        tooltip="How to learn that a job is finished. Events notice it at once, with polling underneath; polling asks "
        "every two seconds." + (" One blocking request cannot be cancelled remotely." if blocking else ""),
    )


SEND_AS_TOOLTIP = (
    "How the picture travels: inside the request as a data URI (auto does that, too), or uploaded to Oxen first, to "
    "the public repository that the settings name or else to your playground."
)


def send_as_input(tooltip: str = SEND_AS_TOOLTIP) -> io.Input:
    return io.Combo.Input(
        "send_as",
        options=choice(SendAs),
        default=SendAs.AUTO.value,
        advanced=True,
        tooltip=tooltip,
    )


def timeout_input() -> io.Input:
    return io.Int.Input(
        "timeout",
        default=300,
        min=5,
        max=7200,
        advanced=True,
        tooltip="Seconds to wait for each picture. A job that takes longer is not lost: run again to go on waiting.",
    )


def namespace_input() -> io.Input:
    return io.String.Input(
        "namespace",
        default="",
        placeholder="namespace: yours if empty",
        advanced=True,
        tooltip="The Oxen user or organisation that pays and keeps the result. Empty means the owner of the key.",
    )


def result_input(more: str = "") -> io.Input:
    """more: a sentence of the node's own, with a space before it."""
    return io.Combo.Input(
        "result",
        options=choice(Result),
        default=Result.REUSE.value,
        advanced=True,
        tooltip="reuse: the same request again gives the picture that was paid for already. always new: an edit that "
        "was paid for and not yet handed to a graph comes first, without paying, as long as it can still be had; "
        "otherwise every run pays for a new one." + more,
    )


def if_some_fail_input(tooltip: str) -> io.Input:
    return io.Combo.Input(
        "if_some_fail",
        options=choice(IfSomeFail),
        default=IfSomeFail.STOP.value,
        advanced=True,
        tooltip=tooltip,
    )


def generation_ids_input() -> io.Input:
    return io.String.Input(
        "generation_ids",
        multiline=True,
        default="",
        optional=True,
        placeholder="generation_ids: one a line",
        tooltip="Generation ids, one a line, for jobs that were submitted another day.",
    )


def format_input() -> io.Input:
    return io.Combo.Input(
        "format",
        options=choice(ImageFormat),
        default=DEFAULT_FORMAT.value,
        tooltip="The file format. png and webp lossless keep every pixel as it is; jpg has no alpha.",
    )


def quality_input() -> io.Input:
    return io.Int.Input(
        "quality", default=90, min=1, max=100, tooltip="Quality of webp and jpg, 1 to 100. Has no effect on the others."
    )


def mask_input() -> io.Input:
    return io.Mask.Input("mask", optional=True, tooltip="Becomes the alpha channel: where the mask is 1, transparent.")


def prompt_is_usable(prompt: str | None) -> bool | str:
    """ComfyUI's answer before anything runs; a prompt that is linked comes as None and is checked later."""
    return True if prompt is None else wrong_with_prompt(prompt) or True
