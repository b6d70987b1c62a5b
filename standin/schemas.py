"""Every picture model's parameters as a JSON schema, made from the pack's file of the model by a reader of its own.

The client reads the same files into its specs and builds requests from those. Nothing of that reading is used here, so
that a mistake in it shows: what is read here are names, kinds, ranges and defaults, and requests are held against the
schema alone. Kontext has no such file; its schema is written out in `parameters.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent.parent / "oxen" / "api" / "models"
_WIRES = {"steps": "num_inference_steps"}
_MARKS = {
    "white": "White marks what is changed, black what is kept.",
    "transparent": "Transparent marks what is changed, opaque what is kept.",
}
# What the service itself takes where nothing is sent: of a shape 16:9, but for these.
_SHAPES = {"bytedance-seedream-5-pro": "1:1", "krea-v2-large-text-to-image": "1:1", "gpt-image-1-5": "auto"}
_SHAPES |= {"gpt-image-2-edit": "auto", "flux-3-image": "auto", "qwen-image-3": "auto"}
_WEBP = {"flux-2-dev", "flux-2-flex", "flux-2-pro", "xai-grok-imagine-image-edit"}
_QUALITY = 80
_SEEDS_TOLD = {"qwen-image-2", "qwen-image-3"}
_MOST_SEED = 2**31 - 1
Schema = dict[str, Any]


@dataclass(frozen=True)
class PictureModel:
    """What the stand-in knows of a model.

    schema: its parameters, in the form of the service's `request_schema`. never: parameters that the service has and
    nobody may send. marks: "white" or "transparent", what of a mask is changed; empty where it takes none. pricing: the
    model object's. last: whether the shape follows the last of several pictures. route: where, after `images/`, the
    service's documents send a blocking request.
    """

    name: str
    schema: Schema
    never: tuple[str, ...] = ()
    marks: str = ""
    pricing: dict[str, Any] | None = None
    last: bool = False
    route: str = "edit"


def picture_models() -> dict[str, PictureModel]:
    """The models that have a file, by id."""
    found = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(_FOLDER.glob("*.json")))
    return {said["id"]: _model(said) for said in found}


def _model(said: Mapping[str, Any]) -> PictureModel:
    schema = _schema(said)
    return PictureModel(
        name=said["name"],
        schema=schema,
        never=tuple(said.get("never", ())),
        marks=said.get("mask", {}).get("marks", ""),
        pricing=_pricing(said.get("price", {}), schema["properties"]),
        last=said.get("shape", {}).get("follows_last", False),
        route=said.get("route", "edit"),
    )


def _schema(said: Mapping[str, Any]) -> Schema:
    pictures, mask = said["pictures"], said.get("mask")
    own = {name: _property(said["id"], name, one) for name, one in said["fields"].items()}
    inside = {name: own.pop(name) for name in pictures.get("each", ())}
    properties = {said["fields"][name].get("wire", _WIRES.get(name, name)): one for name, one in own.items()}
    names = pictures["fields"] if pictures["form"] == "fields" else [pictures["field"]]
    properties |= {name: _pictures(pictures, inside) for name in names}
    required = [*(["prompt"] if "prompt" in own and "default" not in own["prompt"] else []), *names]
    if mask is not None:
        properties[mask["field"]] = {**_URI, "title": "Mask", "description": _MARKS.get(mask["marks"], "")}
        required += [mask["field"]] if mask.get("required") else []
    for order, (name, one) in enumerate(properties.items()):
        one.setdefault("title", name.replace("_", " ").title())
        one["x-order"] = order
    return {"type": "object", "title": "Input", "required": required, "properties": properties}


_URI: Schema = {"type": "string", "format": "uri"}


def _pictures(said: Mapping[str, Any], inside: Mapping[str, Schema]) -> Schema:
    if said["form"] in ("one", "fields"):
        return dict(_URI)
    of_one = dict(_URI)
    if said["form"] == "objects":
        of_one = {"type": "object", "required": [said["key"]], "properties": {said["key"]: of_one, **inside}}
    return {"type": "array", "items": of_one} | ({"maxItems": said["most"]} if "most" in said else {})


def _property(model: str, name: str, said: Mapping[str, Any]) -> Schema:
    if name == "seed":
        told = {"minimum": 0, "maximum": _MOST_SEED} if model in _SEEDS_TOLD else {}
        return {"type": "integer", "nullable": True, **told}
    found = _kind(said)
    if name == "aspect_ratio" or (name in ("size", "resolution") and "default" not in said):
        found["default"] = _SHAPES.get(model, "16:9")
    elif name == "output_format" and model in _WEBP:
        found["default"] = "webp"
    elif name == "output_quality" and found["type"] == "integer":
        found["default"] = _QUALITY
    elif said.get("default", "") != "":
        found["default"] = said["default"]
    elif name == "prompt" and "default" in said:
        found["default"] = ""
    return found


def _kind(said: Mapping[str, Any]) -> Schema:
    if "choices" in said:
        return {"type": "string", "enum": list(said["choices"])}
    if "switch" in said:
        return {"type": "boolean", "default": said["switch"]}
    for kind, name in (("whole", "integer"), ("number", "number")):
        if kind in said:
            return {"type": name, "minimum": said[kind][0], "maximum": said[kind][1]}
    return {"type": "string"}


def _pricing(said: Mapping[str, Any], properties: Mapping[str, Schema]) -> dict[str, Any] | None:
    if "per_credit" in said:
        return {"method": "per_provider_credit", "cost_per_credit": said["per_credit"]}
    if not said:
        return None
    if "grid" not in said:
        return {"method": "per_image", "cost_per_image": said["flat"]}
    row = said["grid"].get(properties.get("quality", {}).get("default", "high"), {})
    flat = said.get("flat", row.get(properties["resolution"]["default"]))
    return {"method": "per_image", "cost_per_image": flat, "cost_per_image_grid": said["grid"]}
