"""A model's file from what the service says of it, for one that has none here; and where such a file disagrees with it.

Only what the schema says for certain is taken over: which part of a mask is changed stands in no field of it, so that
such a model is sent none; a number of pictures, which all are paid for, is never sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...secrets import PICTURE_FIELDS
from ..prices import Price
from ..replies import Model
from .shape import ratio
from .spec import ModelSpec
from .spec_files import TAKEN, UNREADABLE, BadSpec, spec_of

_MASK = "mask_url"
_PICTURES = tuple(name for name in PICTURE_FIELDS if name != _MASK)
_COUNTS = {"n", "num_images", "num_generations", "num_outputs", "batch_size"}
_OURS = {"num_inference_steps": "steps", "guidance_scale": "guidance"}
# Of every request, sent by the client itself.
_ENVELOPE = {"model", "target_namespace"}
_KEEPS = "match_input_image"
_LONGEST = 20_000
# Of a model's file: ComfyUI sends them all to every page that it opens.
_MOST_BYTES = 50_000


def file_of(model: Model) -> dict[str, Any]:
    """What the file of a model would hold; raises BadSpec for one that takes no picture, or that cannot be read."""
    properties, needed = _schema_of(model)
    properties = {name: _plain(rule) for name, rule in properties.items() if name not in _ENVELOPE}
    ordered = sorted(properties.items(), key=lambda one: _order(one[1]))
    pictures = _pictures({name: rule for name, rule in ordered if name in _PICTURES})
    if pictures is None:
        raise BadSpec(f"{model.id} takes no picture, as far as Oxen.ai says.")
    said: dict[str, Any] = {
        "id": model.id,
        "name": model.name,
        "about": "As Oxen.ai describes it; it came after this version of the pack.",
        "pictures": pictures,
        "fields": {},
        "never": [],
    }
    for wire, rule in ordered:
        if wire in _PICTURES:
            continue
        if wire == _MASK:
            said["mask"] = {"field": wire, "marks": "unknown", "required": wire in needed}
            continue
        field = None if wire in _COUNTS else _field(wire, rule, required=wire in needed)
        if field is None:
            if wire in needed:
                raise BadSpec(
                    f"{model.id} needs {wire}, and what Oxen.ai says of it is nothing that a node can ask for. Nothing "
                    "was written."
                )
            said["never"].append(wire)
        else:
            said["fields"][_name_of(wire)] = field
    _add_shape(said)
    if (price := _price(model.price)) is not None:
        said["price"] = price
    try:
        spec_of(said)
        length = len(json.dumps(said, ensure_ascii=False).encode())
    except UNREADABLE as error:
        raise BadSpec(f"What Oxen.ai says of {model.id} cannot be used: {error}") from None
    if length > _MOST_BYTES:
        raise BadSpec(f"What Oxen.ai says of {model.id} is {length:,} bytes long, too much for a node.")
    return said


def disagreements(spec: ModelSpec, model: Model) -> list[str]:
    """Where a model's file here and the service are of different minds, a sentence each."""
    properties = (model.schema or {}).get("properties")
    if not isinstance(properties, Mapping):
        return []
    known = {field.wire: field for field in spec.fields if field.name not in spec.pictures.each}
    ours = {*known, *spec.pictures.fields, *spec.never} | ({spec.mask.field} if spec.mask else set())
    found = [
        f"Oxen.ai has {name}, which this version does not know." for name in properties if name not in ours | _ENVELOPE
    ]
    found += [f"Oxen.ai no longer has {name}." for name in sorted(ours) if name not in properties]
    for wire, field in known.items():
        rule = properties.get(wire)
        choices = rule.get("enum") if isinstance(rule, Mapping) else None
        if field.choices and isinstance(choices, list) and set(map(str, choices)) != set(field.choices):
            found.append(f"{wire} takes {', '.join(map(str, choices))} at Oxen.ai.")
    return found


def _schema_of(model: Model) -> tuple[Mapping[str, Mapping[str, Any]], list[Any]]:
    schema = model.schema or {}
    properties, needed = schema.get("properties"), schema.get("required")
    if not isinstance(properties, Mapping) or not all(isinstance(rule, Mapping) for rule in properties.values()):
        raise BadSpec(f"Oxen.ai gives no schema of {model.id}.")
    return properties, needed if isinstance(needed, list) else []


def _order(rule: Mapping[str, Any]) -> float:
    place = rule.get("x-order")
    return float(place) if isinstance(place, int | float) else 1e9


def _pictures(rules: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    if not rules:
        return None
    if len(rules) > 1:
        return {"fields": list(rules), "form": "fields"}
    ((name, rule),) = rules.items()
    if rule.get("type") not in ("array", "string"):
        raise BadSpec(f"Oxen.ai says that {name} takes pictures, and not in which form. Nothing was written.")
    if rule["type"] != "array":
        return {"field": name, "form": "one"}
    items, most = rule.get("items"), rule.get("maxItems")
    said: dict[str, Any] = {"field": name, "form": "list"}
    if isinstance(items, Mapping) and items.get("type") == "object":
        inside = items.get("properties")
        keys = [key for key, one in inside.items() if one.get("format") == "uri"] if isinstance(inside, Mapping) else []
        said |= {"form": "objects", "key": keys[0] if keys else ""}
    return said | ({"most": most} if isinstance(most, int) and most > 0 else {})


def _field(wire: str, rule: Mapping[str, Any], *, required: bool) -> dict[str, Any] | None:
    """A field; None where the schema does not say enough of it, so that it is left out."""
    kind, choices, default = rule.get("type"), rule.get("enum"), rule.get("default")
    if wire == "prompt":
        longest = rule.get("maxLength")
        most = longest if isinstance(longest, int) and 0 < longest < _LONGEST else _LONGEST
        if kind != "string" or choices is not None:
            return None
        return {"text": most} if required else {"text": most, "default": ""}
    if wire == "seed":
        return {} if kind == "integer" and choices is None else None
    said: dict[str, Any] | None = None
    if isinstance(choices, list) and choices and all(isinstance(one, str) for one in choices):
        best = "png" if wire == "output_format" and "png" in choices else default
        said = {"choices": choices, "default": best if best in choices else choices[0]}
    elif isinstance(choices, list):
        said = None
    elif kind in {"integer", "number"} and isinstance(default, int | float):
        bounds = [rule.get("minimum", -(2**31)), rule.get("maximum", 2**31 - 1)]
        said = {"whole" if kind == "integer" else "number": bounds, "default": default}
    elif kind == "boolean" and isinstance(default, bool):
        said = {"switch": default}
    elif kind == "string":
        said = {"text": _LONGEST, "default": ""}
    if said is None:
        return None
    if _name_of(wire) != wire:
        said["wire"] = wire
    told = rule.get("description")
    return said | ({"tooltip": told[:300]} if isinstance(told, str) and told else {})


def _plain(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    """A rule whose type is one word: that a value may also be null changes nothing, for none is ever sent."""
    ways = rule.get("anyOf", rule.get("oneOf"))
    if isinstance(ways, list):
        real = [one for one in ways if isinstance(one, Mapping) and one.get("type") != "null"]
        rule = {**real[0], **rule} if len(real) == 1 else {}
    kinds = rule.get("type")
    if not isinstance(kinds, list):
        return rule if isinstance(kinds, str | None) else {}
    own = [kind for kind in kinds if kind != "null"]
    return {**rule, "type": own[0] if len(own) == 1 and isinstance(own[0], str) else None}


def _name_of(wire: str) -> str:
    """Our name of a field: no name that an input of the node's has, and none that stands for a path of inputs."""
    name = _OURS.get(wire, wire).replace(".", "_")
    return f"own_{name}" if name in TAKEN or not name else name


def _add_shape(said: dict[str, Any]) -> None:
    field = said["fields"].get("aspect_ratio", {})
    choices = field.get("choices", [])
    if not any(ratio(one) for one in choices):
        return
    said["shape"] = {"field": "aspect_ratio"}
    if _KEEPS in choices:
        said["shape"]["keeps"] = field["default"] = _KEEPS
        return
    del field["default"]
    if "switch" in said["fields"].get(_KEEPS, {}):
        said["shape"]["switch"] = _KEEPS
        field["idle"] = {_KEEPS: True}


def _price(price: Price) -> dict[str, Any] | None:
    if price.grid:
        return {"grid": {row: {one: float(usd) for one, usd in of.items()} for row, of in price.grid.items()}}
    if price.flat is not None:
        return {"flat": float(price.flat)}
    return None if price.per_credit is None else {"per_credit": float(price.per_credit)}
