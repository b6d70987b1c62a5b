"""The inputs that a model of the service has of its own, below the list from which it is chosen. Light: no torch."""

from __future__ import annotations

from functools import cache

from comfy_api.latest import io

from ...editing.fields import Field
from ...oxen.api.models.shape import AS_PICTURE
from ...oxen.api.models.spec import Form, Marks, ModelSpec
from .. import inputs
from .known_models import known

REFERENCES, MASK = "references", "mask"
_MARKED = {
    Marks.WHITE: "It is sent as white on black.",
    Marks.TRANSPARENT: "It is sent as a picture that is transparent there.",
    Marks.UNKNOWN: "Which part of it this model changes is not known, so that none is sent.",
}


def model_input(tooltip: str) -> io.Input:
    """The list of models, with what each of them has of its own.

    It stands last: values of widgets are saved by position, and how many it has below it differs.
    """
    return io.DynamicCombo.Input("model", options=list(_options()), optional=True, tooltip=tooltip)


@cache
def _options() -> tuple[io.DynamicCombo.Option, ...]:
    return tuple(io.DynamicCombo.Option(id, own_inputs(spec)) for id, spec in known().items())


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
