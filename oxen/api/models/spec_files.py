"""A model's file: JSON with what it takes, read into a spec, or told what is wrong in it.

    {
      "id": "…", "name": "…", "about": "…",
      "pictures": {"field": "input_image", "form": "list", "most": 10},
      "mask": {"field": "mask_url", "marks": "white"},
      "shape": {"field": "aspect_ratio", "keeps": "auto"},
      "fields": {"prompt": {}, "resolution": {"choices": ["1K", "2K"], "default": "2K"}, "seed": {}},
      "never": ["num_images"],
      "price": {"flat": 0.04}
    }

pictures: `form` is one of `Form`; `most` is left out where the service does not say. mask: `marks` is one of `Marks`.
shape: as `Shape`, with `ratios` of those choices that are none themselves, and `among` where the nearest is to be one
of some choices only; left out where nothing sets the shape. fields: by our names, in the order of the widgets; of each
one kind: `text` with the most characters, `whole` or `number` with its bounds, `choices`, or `switch` with its default,
and `wire` where the service's name is another. What is not said of a field comes from `field_words`. price: as `Price`.
route: `generate` where the service's documents send a blocking request to that route and not to `edit`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields as fields_of
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from ....editing.fields import Field, Kind
from ....editing.values import ANY
from ....editing.words import PROMPT, SEEDS
from ..prices import UNKNOWN, Price
from .field_words import MOST_CHARACTERS, words
from .shape import Shape, ratio
from .spec import Form, Marks, MaskRule, ModelSpec, Pictures

_Member = TypeVar("_Member", bound=Enum)
# what any 32-bit service takes
_SEEDS_OF_32_BITS = 2**31
_KINDS = {"text": Kind.TEXT, "whole": Kind.WHOLE, "number": Kind.NUMBER, "choices": Kind.CHOICE, "switch": Kind.SWITCH}
_ROUTES = ("edit", "generate")
# What Edit Picture calls inputs of its own, and Python its own arguments: no field can have such a name there.
TAKEN = frozenset(
    {
        *(
            "self",
            "cls",
            "model",
            "image",
            "mask",
            "references",
            "variations",
            "wait",
            "send_as",
            "timeout",
            "namespace",
        ),
        *("result", "if_some_fail", "keep", "submit_only"),
    }
)
# What reading a file that is no model's raises.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
_OF_A_FIELD = {*_KINDS, "default", "wire", "idle", "tooltip", "advanced", "step"}


class BadSpec(ValueError):
    """A file that is no model's: its text names the file and what is wrong in it."""


def read_spec(path: Path) -> ModelSpec:
    """The model of a file; raises BadSpec, and OSError where it cannot be read."""
    try:
        return spec_of(json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal))
    except UNREADABLE as error:
        told = f"it lacks {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise BadSpec(f"{path.name} is no file of a model: {told}") from None


def spec_of(said: Mapping[str, Any]) -> ModelSpec:
    """A model as its file has it; raises one of UNREADABLE for what is none."""
    _only(said, {"id", "name", "about", "pictures", "mask", "shape", "fields", "never", "price", "route"})
    fields = tuple(_field(name, one) for name, one in said["fields"].items())
    spec = ModelSpec(
        id=_text(said["id"]),
        fields=fields,
        name=_text(said["name"]),
        about=_text(said["about"]),
        pictures=_pictures(said["pictures"]),
        mask=_mask(said["mask"]) if "mask" in said else None,
        shape=_shape(said["shape"], {one.name: one for one in fields}) if "shape" in said else None,
        never=tuple(map(_text, said.get("never", ()))),
        price=_price(said["price"]) if "price" in said else UNKNOWN,
        route=said.get("route", _ROUTES[0]),
    )
    _hold_together(spec)
    return spec


def _hold_together(spec: ModelSpec) -> None:
    if spec.route not in _ROUTES:
        raise ValueError(f"route is {spec.route!r}; it is one of {', '.join(_ROUTES)}.")
    odd = [one.name for one in spec.fields if one.name in TAKEN or not one.name or "." in one.name]
    if odd:
        raise ValueError(f"{', '.join(odd)}: no field can be called so; give it another name, and this one as wire.")
    wires = ["model", "target_namespace", *(one.wire for one in spec.fields), *spec.pictures.fields]
    if spec.mask is not None:
        wires.append(spec.mask.field)
    wrong = [wire for wire in dict.fromkeys(wires) if wires.count(wire) > 1 or wire in spec.never]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: named twice, or must not be sent.")
    lacking = [name for name in spec.pictures.each if name not in spec.named]
    if lacking:
        raise ValueError(f"pictures: there is no field {', '.join(lacking)}.")


def _field(name: str, said: Mapping[str, Any]) -> Field:
    _only(said, _OF_A_FIELD, name)
    known = words(name)
    shared: dict[str, Any] = {
        "wire": said.get("wire", known.wire or name),
        "tooltip": said.get("tooltip", known.tooltip),
        "advanced": said.get("advanced", known.advanced),
        "default": said.get("default"),
        "idle": _pair(said["idle"]) if "idle" in said else None,
    }
    kinds = [one for one in _KINDS if one in said]
    if name == "seed" and not kinds:
        whole = shared | {"default": 0}
        return Field(name, kind=Kind.WHOLE, bounds=(0, SEEDS - 1), wraps=_SEEDS_OF_32_BITS, **whole)
    if name == "prompt" and not kinds:
        kinds, said = ["text"], {"text": MOST_CHARACTERS, **said}
    if len(kinds) != 1:
        raise ValueError(f"{name} is of {len(kinds)} kinds: it needs one of {', '.join(_KINDS)}.")
    kind, what = _KINDS[kinds[0]], said[kinds[0]]
    if kind is Kind.TEXT:
        optional = shared["default"] is not None
        placeholder = PROMPT.placeholder if name == "prompt" and not optional else f"{name}: empty sends none"
        return Field(name, kind=kind, bounds=(1, what), placeholder=placeholder, omits_empty=optional, **shared)
    if kind is Kind.CHOICE:
        one = Field(name, kind=kind, choices=tuple(map(_text, what)), **shared)
    elif kind is Kind.SWITCH:
        one = Field(name, kind=kind, **shared | {"default": what})
    else:
        bounds = (float(what[0]), float(what[1]))
        if not all(ANY[0] <= one <= ANY[1] for one in bounds):
            raise ValueError(f"{name}: its bounds are no numbers that a node takes.")
        if kind is Kind.WHOLE:
            one = Field(name, kind=kind, bounds=(int(what[0]), int(what[1])), **shared)
        else:
            steps = {"step": float(said.get("step", 0.1)), "decimals": 0.01, "default": float(shared["default"])}
            one = Field(name, kind=kind, bounds=bounds, **shared | steps)
    if one.default is not None:
        one.read(one.default)
    return one


def _pictures(said: Mapping[str, Any]) -> Pictures:
    _only(said, {"field", "fields", "form", "most", "key", "each"}, "pictures")
    form = _member(Form, said["form"])
    fields = tuple(map(_text, said["fields"])) if form is Form.FIELDS else (_text(said["field"]),)
    most = 1 if form is Form.ONE else said.get("most")
    return Pictures(fields, form, most, said.get("key", ""), tuple(said.get("each", ())))


def _mask(said: Mapping[str, Any]) -> MaskRule:
    _only(said, {"field", "marks", "required"}, "mask")
    return MaskRule(_text(said["field"]), _member(Marks, said["marks"]), said.get("required", False))


def _shape(said: Mapping[str, Any], fields: Mapping[str, Field]) -> Shape:
    _only(said, {"among", *(one.name for one in fields_of(Shape))}, "shape")
    named = said.get("ratios", {})
    choices = fields[said["field"]].choices
    among = said.get("among", choices)
    ratios = {one: found for one in choices if one in among and (found := ratio(named.get(one, one))) is not None}
    keeps, switch = said.get("keeps"), said.get("switch")
    if not ratios or (keeps is not None and keeps not in choices) or (switch is not None and switch not in fields):
        raise ValueError("shape: its field has no ratio, or not what keeps the picture's.")
    return Shape(said["field"], ratios, keeps, switch, said.get("follows_last", False))


def _price(said: Mapping[str, Any]) -> Price:
    _only(said, {one.name for one in fields_of(Price)}, "price")
    grid = said.get("grid")
    rows = (
        None if grid is None else {row: {one: Decimal(str(usd)) for one, usd in of.items()} for row, of in grid.items()}
    )
    flat, credit = (None if said.get(name) is None else Decimal(str(said[name])) for name in ("flat", "per_credit"))
    return Price(flat, rows, credit)


def _only(said: Mapping[str, Any], known: set[str], where: str = "") -> None:
    strange = sorted(set(said) - known)
    if strange:
        raise ValueError(f"{where or 'it'} has {', '.join(strange)}, which is not known.")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} stands where a text belongs.")
    return value


def _pair(said: Mapping[str, Any]) -> tuple[str, Any]:
    ((name, value),) = said.items()
    return name, value


def _member(kind: type[_Member], value: Any) -> _Member:
    return kind(value)
