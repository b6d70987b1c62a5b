"""From Edit Picture's inputs, of whichever model, to an order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ...editing.values import one_of, shown
from ...editing.words import wrong_with_prompt
from ...imaging.pixels import check_shape
from ...oxen.api.models import DEFAULT, OWN, ModelSpec, own_kontext
from ...oxen.api.models.shape import AS_PICTURE
from ...oxen.choices import Afterwards, IfAsleep
from ...oxen.errors import InvalidParameters, checked
from ...oxen.jobs.awake import Rule
from ..checks import member, text
from .along import checked_along
from .known_models import known
from .orders import Order, costless
from .own_inputs import AFTERWARDS, IF_ASLEEP, MASK, MODEL_ID, REFERENCES, shapes

_OWN = "model."
_NO_FIELDS = {"model", REFERENCES, MASK}
_OF_ONES_OWN = {MODEL_ID, IF_ASLEEP, AFTERWARDS}
_SOCKET = re.compile(r"reference_[0-9]{1,3}")


@costless()
def order_of(
    image: torch.Tensor, *, prompt: str = "", model: object = None, submit_only: bool = False, **widgets: Any
) -> Order:
    """What is asked for, checked; raises InvalidParameters or ImageError.

    model: the chosen model's own inputs with its id under `model`, as a DynamicCombo gives them; None is Kontext. The
    id alone is that of a model which is not in the list, and comes with its inputs among `widgets`.
    """
    spec, own = chosen(model)
    rule = _rule(own, waits=not submit_only) if own.get("model") == OWN else None
    strays = [name.removeprefix(_OWN) for name in widgets if name.startswith(_OWN)]
    # ComfyUI gives None for what a workflow leaves out below the list
    given = {name: value for name, value in own.items() if value is not None}
    no_fields = _NO_FIELDS if rule is None else _NO_FIELDS | _OF_ONES_OWN
    fields = {name: value for name, value in given.items() if name not in no_fields}
    strays += [name for name in fields if name not in spec.named]
    if strays:
        has = ", ".join(name for name in spec.named if name != "prompt") or "none"
        raise InvalidParameters(
            f"{spec.id} has no {', '.join(strays)}; its own inputs are: {has}. Nothing was sent. "
            "Remove what it has not, or choose its model."
        )
    told: dict[str, Any] = {"model": spec.id}
    along = checked_along(spec, check_shape(image), _references(own), own.get(MASK))
    pictures = 1 + sum(map(len, along.references))
    asked = _asked_shape(spec, fields)
    fields |= _prompt(spec, prompt, told) | _shape(spec, asked, image, pictures, told)
    known = {name: widgets[name] for name in _SHARED if name in widgets}
    order = Order.read(spec, submit_only=submit_only, **known, **fields)
    price = spec.price.of(order.parameters.priced)
    if rule is not None:
        told["price"] = "by the hour that your model is awake; of one picture it is not known"
    else:
        told |= {"price": spec.price.told()} if price is None else {"price_usd": float(price)}
    return replace(order, along=along, told=told, own=rule, same_shape=asked in (None, AS_PICTURE))


_SHARED = ("variations", "wait", "send_as", "timeout", "namespace", "result", "if_some_fail", "keep")


def chosen(model: object) -> tuple[ModelSpec, Mapping[str, Any]]:
    """The model that was chosen and its own inputs; raises InvalidParameters for one that there is not."""
    if not model:
        return DEFAULT, {}
    own = model if isinstance(model, Mapping) else {"model": model}
    name = own.get("model", DEFAULT.id)
    if name == OWN:
        return own_kontext(str(own.get(MODEL_ID) or OWN).strip()), own
    spec = known().get(name) if isinstance(name, str) else None
    if spec is None:
        raise InvalidParameters(
            f"There is no model {shown(name)} in the list of Edit Picture. Nothing was sent. Choose one from its list: "
            f"{', '.join((*known(), OWN))}. A newer one is added by python -m kontext_bridge.models update ID; a "
            f"fine-tune of your own is {OWN}, with its id below."
        )
    return spec, own


def _rule(own: Mapping[str, Any], *, waits: bool) -> Rule:
    """What was decided about waking a model of one's own; raises InvalidParameters where it has no id."""
    id = text(own.get(MODEL_ID) or "", MODEL_ID).strip()
    if not id:
        raise InvalidParameters(
            f"{OWN} needs the id of your fine-tune in model_id. Copy it from Kontext Models. Nothing was sent."
        )
    asleep = member(IfAsleep, own.get(IF_ASLEEP) or IfAsleep.STOP.value, IF_ASLEEP)
    after = member(Afterwards, own.get(AFTERWARDS) or Afterwards.SLEEP.value, AFTERWARDS)
    return Rule(id, wakes=asleep is IfAsleep.WAKE, sleeps=waits and after is Afterwards.SLEEP)


def wrong_with(prompt: object, model: object) -> str | None:
    """What is wrong before anything runs, with what to do; None where nothing is. A value that is linked is None."""
    try:
        spec, _ = chosen(model)
    except InvalidParameters as error:
        return str(error)
    needs = "prompt" in spec.named and spec.named["prompt"].default is None
    return wrong_with_prompt(prompt) if needs and prompt is not None else None


def _references(own: Mapping[str, Any]) -> list[torch.Tensor]:
    """The connected references, in the order of their sockets."""
    connected = own.get(REFERENCES) or {}
    strange = [name for name in connected if not _SOCKET.fullmatch(name)] if isinstance(connected, Mapping) else ["it"]
    if strange:
        raise InvalidParameters(
            f"{REFERENCES} has no socket {', '.join(map(shown, strange))}; they are called reference_0, reference_1 "
            "and so on. Nothing was sent. Connect the pictures to these."
        )
    sockets = sorted(connected, key=lambda name: int(name.rpartition("_")[2]))
    return [connected[name] for name in sockets if connected[name] is not None]


def _prompt(spec: ModelSpec, prompt: object, told: dict[str, Any]) -> dict[str, Any]:
    written = text(prompt, "prompt")
    if "prompt" in spec.named:
        return {"prompt": written if written.strip() else ""}
    if written.strip():
        told["prompt"] = f"not sent: {spec.name} takes none"
    return {}


def _asked_shape(spec: ModelSpec, given: Mapping[str, Any]) -> str | None:
    """One of `shapes`, None where the model has no setting for it; raises InvalidParameters."""
    if spec.shape is None:
        return None
    value = given.get(spec.shape.field, AS_PICTURE)
    return AS_PICTURE if value == spec.shape.keeps else checked(one_of, shapes(spec), value, spec.shape.field)


def _shape(
    spec: ModelSpec, asked: str | None, image: torch.Tensor, pictures: int, told: dict[str, Any]
) -> dict[str, Any]:
    """The fields by which the model is told the shape of its result, for the size of the pictures."""
    if spec.shape is None or asked is None:
        told["shape"] = "the model's own: it has no setting for it"
        return {}
    height, width = image.shape[1:3]
    fitted = spec.shape.fit(asked, width, height, pictures)
    told["shape"] = f"{asked}: {fitted.rule}"
    return fitted.values
