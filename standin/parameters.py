"""The parameters of each picture model as the service documents them: schema, defaults, and what is wrong."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
            "x-workbench-default": "https://hub.oxen.ai/api/repos/ox/Oxen-Images/file/main/ox.jpg",
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

# The models that the stand-in paints for. A new one is added here, and is served by every route.
SCHEMAS: dict[str, dict[str, Any]] = {MODEL: SCHEMA}
DISPLAY_NAMES = {MODEL: "FLUX.1-Kontext [dev]"}


@dataclass(frozen=True)
class AskedEdit:
    """One edit with the service's defaults filled in; a missing seed is drawn at random."""

    prompt: str
    aspect_ratio: str
    steps: int
    guidance: float
    seed: int
    output_format: str
    output_quality: int


def complaint(params: Mapping[str, Any], strict_fields: bool = False) -> str | None:
    """What is wrong with the parameters for their model, naming the field; None where nothing is.

    The picture itself is judged where it is fetched.
    """
    model = params["model"]
    schema = SCHEMAS[model]
    properties: dict[str, dict[str, Any]] = schema["properties"]
    if "prompt" in schema["required"] and not str(params.get("prompt") or "").strip():
        return "Prompt cannot be empty"
    if strict_fields and (extra := set(params) - set(properties) - LAYER_FIELDS):
        return f"Invalid parameters: {', '.join(sorted(extra))}: not a parameter of {model}"
    for name, rule in properties.items():
        if name == _picture_field(schema) or name not in params:
            continue
        value = params[name]
        if value is None and rule.get("nullable"):
            continue
        if wrong := _broken_rule(value, rule):
            return f"Invalid parameters: {name} {wrong}"
    return None


def picture_of(params: Mapping[str, Any]) -> Any:
    """What was sent as the picture to edit."""
    return params.get(_picture_field(SCHEMAS[params["model"]]))


def _picture_field(schema: Mapping[str, Any]) -> str:
    properties: dict[str, dict[str, Any]] = schema["properties"]
    return next(name for name, rule in properties.items() if rule.get("format") == "uri")


def _broken_rule(value: Any, rule: Mapping[str, Any]) -> str | None:
    types: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
    }
    kind = rule["type"]
    if not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return f"must be of type {kind}"
    if "enum" in rule and value not in rule["enum"]:
        return f"must be one of {', '.join(rule['enum'])}"
    if "minimum" in rule and not rule["minimum"] <= value <= rule["maximum"]:
        return f"must be between {rule['minimum']} and {rule['maximum']}"
    return None


def edit_of(params: Mapping[str, Any]) -> AskedEdit:
    """The edit that sound parameters ask for; what their model has not is as flux-kontext-dev has it."""
    documented = {**SCHEMA["properties"], **SCHEMAS[params["model"]]["properties"]}
    asked = {name: rule.get("default") for name, rule in documented.items()} | dict(params)
    return AskedEdit(
        prompt=str(asked["prompt"] or ""),
        aspect_ratio=asked["aspect_ratio"],
        steps=asked["num_inference_steps"],
        guidance=float(asked["guidance"]),
        seed=random.randrange(2**31) if asked["seed"] is None else int(asked["seed"]),
        output_format=asked["output_format"],
        output_quality=asked["output_quality"],
    )
