"""The inputs that several nodes have, so that they have the same names, ranges, tooltips and order.

Saved workflows store widget values by position: append, never insert.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..editing.fields import Field, Kind
from ..editing.words import SEED, VARIATIONS, Keep, wrong_with_prompt
from ..imaging.formats import DEFAULT_FORMAT, ImageFormat
from ..oxen.choices import IfSomeFail, Result, SendAs, WaitMode

if TYPE_CHECKING:
    from ..oxen.api.models import ModelSpec

CATEGORY = "Kontext Bridge"


def edit_aliases(own: str) -> list[str]:
    """What an artist may search for who wants a picture edited; `own` is the node's own word."""
    return ["kontext", "edit image", "image edit", "inpaint", "flux kontext", "instruct edit", "image to image", own]


def choice(members: type[Enum]) -> list[str]:
    return [str(member.value) for member in members]


def widget(field: Field) -> io.Input:
    """The widget of a field."""
    shared: dict[str, Any] = {"tooltip": field.tooltip, "advanced": field.advanced or None}
    low, high = field.bounds
    if field.kind is Kind.TEXT:
        shared |= {"default": field.default, "placeholder": field.placeholder}
        return io.String.Input(field.name, multiline=True, **shared)
    if field.kind is Kind.SWITCH:
        return io.Boolean.Input(field.name, default=field.default, **shared)
    if field.kind is Kind.CHOICE:
        return io.Combo.Input(field.name, options=list(field.choices), default=field.default, **shared)
    shared |= {"default": field.default, "min": low, "max": high}
    if field.kind is Kind.NUMBER:
        return io.Float.Input(field.name, step=field.step, round=field.decimals, **shared)
    # ComfyUI's seed, which stays as it is after a run: another one is another request
    fixed = io.ControlAfterGenerate.fixed if field.name == SEED.name else None
    return io.Int.Input(field.name, control_after_generate=fixed, **shared)


def optional(one: io.Input) -> io.Input:
    """The same input, which a workflow may leave out: its default then holds."""
    one.optional = True
    return one


def edit_inputs(fields: Iterable[Field]) -> list[io.Input]:
    """What an edit node begins with, remote or local: pictures, and what is asked of them."""
    return [
        io.Image.Input("image", tooltip="The pictures to edit. Every picture of a batch is edited by itself."),
        *(widget(field) if field.default is None else optional(widget(field)) for field in fields),
    ]


def variations_input(more: str = "") -> io.Input:
    """more: a sentence of the node's own, with a space before it."""
    return io.Int.Input(
        "variations",
        default=1,
        min=VARIATIONS[0],
        max=VARIATIONS[1],
        advanced=True,
        tooltip="How many results for each picture, each with a seed of its own." + more,
    )


def remote_inputs(model: ModelSpec) -> list[io.Input]:
    """What an edit node of a model begins with."""
    shared = [field for field in model.fields if not field.advanced]
    own = [field for field in model.fields if field.advanced]
    more = (variations_input(" Every one is paid for."), *map(widget, own))
    return [*edit_inputs(shared), *map(optional, more)]


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


def run_inputs() -> list[io.Input]:
    """How an edit at the service is run, whichever model makes it, in the order of the widgets."""
    return [
        wait_input(blocking=True),
        send_as_input(),
        timeout_input(),
        namespace_input(),
        result_input(),
        if_some_fail_input(
            "Where some edits of a batch fail: stop, keep what came, and pay only for the failed ones next time; or go "
            "on with what succeeded, and info names the failed ones."
        ),
        keep_input(),
    ]


def submit_inputs(more: str) -> list[io.Input]:
    """The same for edits that are only put into the queue. more: what `result` says besides."""
    return [
        send_as_input(),
        namespace_input(),
        result_input(more),
        if_some_fail_input(
            "Where some edits of a batch are not accepted: stop with the error; or go on with the others, and the text "
            "on the node names those that were not submitted. What was submitted is kept either way, and the next run "
            "sends only the rest."
        ),
    ]


def generation_ids_input() -> io.Input:
    return io.String.Input(
        "generation_ids",
        multiline=True,
        default="",
        optional=True,
        placeholder="generation_ids: one a line",
        tooltip="Generation ids, one a line, for jobs that were submitted another day.",
    )


def keep_input() -> io.Input:
    return io.Combo.Input(
        "keep",
        options=choice(Keep),
        default=Keep.OFF.value,
        optional=True,
        tooltip="auto: only what was edited changes, as with Kontext Keep, and image has the picture's own size; raw "
        "is the edit as it came. off: image is the edit as it came.",
    )


def source_input() -> io.Input:
    return io.Image.Input(
        "source",
        optional=True,
        tooltip="The pictures as they were before the edit. Needed where keep is auto: the records hold none.",
    )


def raw_output() -> io.Output:
    return io.Image.Output(display_name="raw", tooltip="The edits as they came, whatever keep is set to.")


def raw_mask_output() -> io.Output:
    return io.Mask.Output(display_name="mask", tooltip="Where raw is transparent: 1 there, and 0 where it is not.")


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
