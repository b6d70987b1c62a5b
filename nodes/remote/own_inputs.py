"""The inputs that a model of the service has of its own, below the list from which it is chosen. Light: no torch."""

from __future__ import annotations

from functools import cache

from comfy_api.latest import io

from ...editing.fields import Field
from ...oxen.api.models import DEFAULT, OWN
from ...oxen.api.models.shape import AS_PICTURE
from ...oxen.api.models.spec import Form, Marks, ModelSpec
from ...oxen.choices import Afterwards, IfAsleep
from .. import inputs
from .known_models import known

REFERENCES, MASK = "references", "mask"
# Below a model of one's own, before its base's inputs; the last of them only where a run waits for its edits.
MODEL_ID, IF_ASLEEP, AFTERWARDS = "model_id", "if_asleep", "afterwards"
_MARKED = {
    Marks.WHITE: "It is sent as white on black.",
    Marks.TRANSPARENT: "It is sent as a picture that is transparent there.",
    Marks.UNKNOWN: "Which part of it this model changes is not known, so that none is sent.",
}


def model_input(tooltip: str, *, waits: bool) -> io.Input:
    """The list of models, with what each of them has of its own. waits: whether the node waits for its edits.

    It stands last: values of widgets are saved by position, and how many it has below it differs.
    """
    return io.DynamicCombo.Input("model", options=list(_options(waits)), optional=True, tooltip=tooltip)


@cache
def _options(waits: bool) -> tuple[io.DynamicCombo.Option, ...]:
    first, *others = (io.DynamicCombo.Option(id, own_inputs(spec)) for id, spec in known().items())
    return first, io.DynamicCombo.Option(OWN, _own_kontext_inputs(waits)), *others


def _own_kontext_inputs(waits: bool) -> list[io.Input]:
    """Which fine-tune, whether it may be woken, whether it sleeps afterwards; then Kontext's own."""
    id = io.String.Input(
        MODEL_ID,
        default="",
        optional=True,
        placeholder="model_id: as Kontext Models shows it",
        tooltip="The id of your fine-tune of FLUX.1 Kontext [dev], as Kontext Models shows it, for example "
        "oxen:ox-busy-scarlet-beaver.",
    )
    asleep = io.Combo.Input(
        IF_ASLEEP,
        options=inputs.choice(IfAsleep),
        default=IfAsleep.STOP.value,
        optional=True,
        tooltip="Your model is billed by the hour from waking until it sleeps. stop: it is not woken, and the error "
        "says what an hour costs. wake it: it is woken where an edit needs it, which takes some minutes.",
    )
    after = io.Combo.Input(
        AFTERWARDS,
        options=inputs.choice(Afterwards),
        default=Afterwards.SLEEP.value,
        optional=True,
        tooltip="Once the edits are done, have failed or were cancelled: put it to sleep, which ends its cost, if it "
        "was woken from here; or leave it awake for the next edits, and go on paying. What was awake before stays so.",
    )
    return [id, asleep, *([after] if waits else []), *own_inputs(DEFAULT)]


def own_inputs(spec: ModelSpec) -> list[io.Input]:
    """Further pictures, a mask, then the model's widgets; its prompt is the node's."""
    own: list[io.Input] = []
    if spec.pictures.most > 1:
        own.append(_references(spec))
    if spec.mask is not None:
        must = " This model needs one." if spec.mask.required else ""
        told = f"The part to change: where the mask is 1, in the picture's size. {_MARKED[spec.mask.marks]}{must}"
        own.append(io.Mask.Input(MASK, optional=not spec.mask.required, tooltip=told))
    return own + [_widget(spec, field) for field in own_fields(spec)]


def own_fields(spec: ModelSpec) -> list[Field]:
    """The fields that have a widget of their own: what follows from another, and the prompt, have none."""
    switch = None if spec.shape is None else spec.shape.switch
    fields = [field for field in spec.fields if field.name not in {"prompt", switch}]
    return sorted(fields, key=lambda field: field.advanced)


def shapes(spec: ModelSpec) -> list[str]:
    """What can be chosen for the shape of the result, the picture's own first."""
    assert spec.shape is not None
    return [AS_PICTURE, *(one for one in spec.named[spec.shape.field].choices if one != spec.shape.keeps)]


def _references(spec: ModelSpec) -> io.Input:
    told = (
        "Further pictures for every edit, in the order of the sockets; each picture of a batch is one more. The "
        "pictures to edit are image's."
    )
    if spec.pictures.form is Form.FIELDS:
        told = "The second picture of every edit: here the garment. One picture, no batch."
    needed = spec.pictures.least - 1
    socket = io.Image.Input("reference", optional=not needed, tooltip=told)
    grows = io.Autogrow.TemplatePrefix(socket, prefix="reference_", min=needed, max=spec.pictures.most - 1)
    return io.Autogrow.Input(REFERENCES, template=grows, optional=not needed, tooltip=told)


def _widget(spec: ModelSpec, field: Field) -> io.Input:
    if spec.shape is None or field.name != spec.shape.field:
        return inputs.optional(inputs.widget(field))
    told = f"{field.tooltip.rstrip('.')}. {AS_PICTURE}: that of the picture, or the nearest that this model has."
    return io.Combo.Input(field.name, options=shapes(spec), default=AS_PICTURE, optional=True, tooltip=told)
