"""The parameters of each picture model as the service documents them: defaults, and what is wrong with a request."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .own_models import EDITING
from .schemas import PictureModel, picture_models
from .sizes import Wanted, wanted

MODEL = "flux-kontext-dev"
ASPECT_RATIOS = (
    *("1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21"),
    "match_input_image",
)
# Fields of the request that belong to the service, not to the model.
LAYER_FIELDS = {"model", "response_format", "target_namespace", "num_generations", "target_repo", "target_directory"}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Input",
    "required": ["prompt", "input_image"],
    "properties": {
        "prompt": {
            "type": "string",
            "title": "Prompt",
            "x-order": 0,
            "x-workbench-default": "Give the ox a red hat",
        },
        "input_image": {
            "type": "string",
            "format": "uri",
            "title": "Input Image",
            "x-order": 1,
            "x-workbench-default": "https://hub.oxen.ai/api/repos/elau/assets/file/main/bloxy/bloxy_cropped_512x512.png",
        },
        "aspect_ratio": {"type": "string", "enum": list(ASPECT_RATIOS), "default": "16:9", "x-order": 2},
        "num_inference_steps": {"type": "integer", "minimum": 4, "maximum": 50, "default": 28, "x-order": 3},
        "guidance": {"type": "number", "minimum": 0, "maximum": 10, "default": 2.5, "x-order": 4},
        "seed": {"type": "integer", "nullable": True, "x-order": 5},
        "output_format": {"type": "string", "enum": ["webp", "jpg", "png"], "default": "webp", "x-order": 6},
        "output_quality": {"type": "integer", "minimum": 0, "maximum": 100, "default": 80, "x-order": 7},
        "disable_safety_checker": {"type": "boolean", "default": False, "x-order": 8},
    },
}

# Made up: what the service asks for Kontext is not documented.
COST_PER_IMAGE = 0.04
_KONTEXT = PictureModel(
    "FLUX.1-Kontext [dev]", SCHEMA, pricing={"method": "per_image", "cost_per_image": COST_PER_IMAGE}
)
# The models that the stand-in paints for, each served by every route. A new one is a file in `oxen/api/models/`.
# The account's own are fine-tunes of Kontext, which are billed by the hour and not by the picture.
PICTURE_MODELS = {
    MODEL: _KONTEXT,
    **picture_models(),
    **{id: PictureModel(id, SCHEMA) for id in EDITING},
}
SCHEMAS: dict[str, dict[str, Any]] = {name: model.schema for name, model in PICTURE_MODELS.items()}
_EVERY_FIELD = {field for schema in SCHEMAS.values() for field in schema["properties"]}
# Where a model's scale of quality has names.
_QUALITIES = {"standard": 80, "high": 95}


@dataclass(frozen=True)
class AskedEdit:
    """One edit with the service's defaults filled in; a missing seed is drawn at random.

    wanted: the size of the result; None for Kontext, which has its own. marks: as in `PictureModel`.
    """

    prompt: str
    aspect_ratio: str
    steps: int
    guidance: float
    seed: int
    output_format: str
    output_quality: int
    wanted: Wanted | None = None
    marks: str = ""


def complaint(params: Mapping[str, Any], strict_fields: bool = False) -> str | None:
    """What is wrong with the parameters for their model, naming the field; None where nothing is.

    A single picture and a mask are judged where they are fetched. What the service makes of a parameter that it does
    not know is not documented: one that another model has is refused, and with `strict_fields` every one.
    """
    model = params["model"]
    schema = SCHEMAS[model]
    properties: dict[str, dict[str, Any]] = schema["properties"]
    if "prompt" in schema["required"] and not str(params.get("prompt") or "").strip():
        return "Prompt cannot be empty"
    extra = set(params) - set(properties) - LAYER_FIELDS
    if forbidden := sorted(extra & set(_known(model).never)):
        return f"Invalid parameters: {', '.join(forbidden)}: must not be sent to {model}"
    if refused := sorted(extra if strict_fields else extra & _EVERY_FIELD):
        return f"Invalid parameters: {', '.join(refused)}: not a parameter of {model}"
    for name, rule in properties.items():
        if rule.get("format") == "uri" and not is_mask(name):
            continue
        if name not in params:
            if name in schema["required"]:
                return f"Invalid parameters: {name} is required"
            continue
        value = params[name]
        if value is None and rule.get("nullable"):
            continue
        if wrong := _broken_rule(value, rule):
            return f"Invalid parameters: {name} {wrong}"
    return None


def pictures_of(params: Mapping[str, Any]) -> list[Any]:
    """What was sent as the pictures to edit, in order."""
    properties: dict[str, dict[str, Any]] = SCHEMAS[params["model"]]["properties"]
    found: list[Any] = []
    for name, rule in properties.items():
        if rule.get("format") == "uri" and not is_mask(name):
            found.append(params.get(name))
        elif rule["type"] == "array":
            key = next(iter(rule["items"].get("required", ())), None)
            found += [one if key is None else one[key] for one in params[name]]
    return found


def mask_of(params: Mapping[str, Any]) -> Any:
    """What was sent as the mask; None where nothing was."""
    names = SCHEMAS[params["model"]]["properties"]
    return next((params[name] for name in names if is_mask(name) and name in params), None)


def addresses(body: Any) -> list[str]:
    """Whatever a request's body, sound or not, has as an address of a picture or a mask."""
    if not isinstance(body, dict) or body.get("model") not in SCHEMAS:
        return []
    found: list[str] = []
    for name in picture_fields(body["model"]):
        values = body.get(name)
        for one in values if isinstance(values, list) else [values]:
            found += [text for text in (one.values() if isinstance(one, dict) else [one]) if isinstance(text, str)]
    return found


def picture_fields(model: str) -> list[str]:
    """The parameters that hold pictures and masks."""
    properties: dict[str, dict[str, Any]] = SCHEMAS[model]["properties"]
    return [name for name, rule in properties.items() if rule.get("format") == "uri" or rule["type"] == "array"]


def is_mask(name: str) -> bool:
    return name.startswith("mask")


def route_of(model: str) -> str:
    """Where, after `images/`, a blocking request for the model goes."""
    return _known(model).route


def _known(model: str) -> PictureModel:
    return PICTURE_MODELS.get(model) or PictureModel(model, SCHEMAS[model])


def _broken_rule(value: Any, rule: Mapping[str, Any]) -> str | None:
    types: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
        "array": (list,),
        "object": (dict,),
    }
    kind = rule["type"]
    if not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return f"must be of type {kind}"
    if isinstance(value, list):
        return _broken_list(value, rule)
    if isinstance(value, dict):
        return _broken_object(value, rule)
    if "enum" in rule and value not in rule["enum"]:
        return f"must be one of {', '.join(rule['enum'])}"
    if "minimum" in rule and not rule["minimum"] <= value <= rule["maximum"]:
        return f"must be between {rule['minimum']} and {rule['maximum']}"
    return None


def _broken_list(value: list[Any], rule: Mapping[str, Any]) -> str | None:
    if not value:
        return "must hold a picture: the stand-in paints none from words alone"
    if len(value) > rule.get("maxItems", len(value)):
        return f"must hold at most {rule['maxItems']} items"
    wrongs = (_broken_rule(one, rule["items"]) for one in value)
    return next((f"holds what {wrong}" for wrong in wrongs if wrong), None)


def _broken_object(value: Mapping[str, Any], rule: Mapping[str, Any]) -> str | None:
    if strange := sorted(set(value) - set(rule["properties"])):
        return f"must not hold {', '.join(strange)}"
    for name, of_one in rule["properties"].items():
        if name not in value:
            if name in rule["required"]:
                return f"must hold {name}"
        elif wrong := _broken_rule(value[name], of_one):
            return f"must hold a {name} that {wrong}"
    return None


def edit_of(params: Mapping[str, Any]) -> AskedEdit:
    """The edit that sound parameters ask for; what their model has not is as flux-kontext-dev has it."""
    model = params["model"]
    properties = SCHEMAS[model]["properties"]
    documented: dict[str, dict[str, Any]] = SCHEMA["properties"] | properties
    asked: dict[str, Any] = {name: rule.get("default") for name, rule in documented.items()} | dict(params)
    own = {name: asked[name] for name in properties}
    quality = asked["output_quality"]
    return AskedEdit(
        prompt=str(asked["prompt"] or ""),
        aspect_ratio=asked["aspect_ratio"] if "aspect_ratio" in properties else "match_input_image",
        steps=asked["num_inference_steps"],
        guidance=float(asked.get("guidance_scale", asked["guidance"])),
        seed=random.randrange(2**31) if asked["seed"] is None else int(asked["seed"]),
        output_format=asked["output_format"],
        output_quality=_QUALITIES.get(quality, 80) if isinstance(quality, str) else quality,
        wanted=None if model in (MODEL, *EDITING) else wanted(own, follows_last=_known(model).last),
        marks=_known(model).marks,
    )


def cost_of(params: Mapping[str, Any]) -> Decimal | None:
    """What a picture with these parameters costs; None where that is not documented."""
    pricing = _known(params["model"]).pricing or {}
    properties = SCHEMAS[params["model"]]["properties"]
    asked = {name: params.get(name, properties.get(name, {}).get("default")) for name in ("quality", "resolution")}
    cost = pricing.get("cost_per_image")
    if rows := pricing.get("cost_per_image_grid"):
        row = rows.get(str(asked["quality"]), {}) if "quality" in properties else next(iter(rows.values()))
        cost = row.get(str(asked["resolution"]))
    return None if cost is None else Decimal(str(cost))
