"""GET /api/ai/models: open to everyone, as on the service."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from . import replies
from .call import current_call
from .own_models import EDITING, model_object
from .parameters import COST_PER_IMAGE, MODEL, PICTURE_MODELS
from .service import SERVICE, Service

TEXT_MODEL = "stand-in-text-model"
_CREATED = 1748563200


def _model(name: str, display: str, output: str, pricing: dict[str, Any] | None, schema: Any) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": _CREATED,
        "owned_by": "oxen",
        "display_name": display,
        "description": f"{display}, as the stand-in has it. It makes no picture with it.",
        "summary": display,
        "model_type": "base",
        "endpoint": "/images/generate" if output == "image" else "/chat/completions",
        "capabilities": {"input": ["text", "image"] if output == "image" else ["text"], "output": [output]},
        "pricing": pricing,
        "deployments": [],
        "developer": {"name": "Black Forest Labs" if name == MODEL else "Stand-in", "logo": None},
        "request_schema": schema,
    }


_PER_IMAGE = {"method": "per_image", "cost_per_image": COST_PER_IMAGE}
_PER_TOKEN = {"method": "token", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0}
MODELS: dict[str, dict[str, Any]] = {
    **{
        name: _model(name, one.name, "image", one.pricing, one.schema)
        for name, one in PICTURE_MODELS.items()
        if name not in EDITING
    },
    TEXT_MODEL: _model(TEXT_MODEL, "A text model", "text", _PER_TOKEN, None),
}


def _shown(service: Service, model: dict[str, Any]) -> dict[str, Any]:
    shown = dict(model)
    if service.trip("json_request_schema"):
        shown["json_request_schema"] = shown.pop("request_schema")
    if service.trip("price_missing"):
        shown["pricing"] = None
    return shown


async def list_models(request: web.Request) -> web.StreamResponse:
    """GET /api/ai/models and /models/search: `search` looks in name and display name."""
    service, wanted = request.app[SERVICE], request.query.get("search", "").lower()
    developer = request.query.get("developer_name")
    data = [
        _shown(service, model)
        for name, model in MODELS.items()
        if wanted in f"{name} {model['display_name']}".lower() and developer in (None, model["developer"]["name"])
    ]
    if current_call().authorized:
        data += [model_object(one) for one in service.own.deployed() if wanted in one.name]
    return web.json_response({"object": "list", "data": data})


async def one_model(request: web.Request) -> web.StreamResponse:
    """GET /api/ai/models/{id}: the bare model."""
    service, name = request.app[SERVICE], request.match_info["id"]
    own = service.own.find(name) if current_call().authorized else None
    if own is not None:
        return web.json_response(model_object(own))
    if name not in MODELS:
        return replies.model_not_found(name)
    return web.json_response(_shown(service, MODELS[name]))
