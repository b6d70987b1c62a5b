"""The routes of the account's own models: waking, sleeping, the list of fine-tunes, both ways to deploy one."""

from __future__ import annotations

from aiohttp import web

from . import replies
from .call import current_call
from .own_models import REPOSITORY, AccountModel, fine_tune, model_object
from .service import SERVICE, Service

_STEP = 3000


async def activate(request: web.Request) -> web.StreamResponse:
    """POST /api/ai/models/{id}/activate: starts what is asleep, and leaves alone what is not."""
    return _changed(request, starts=True)


async def deactivate(request: web.Request) -> web.StreamResponse:
    """POST /api/ai/models/{id}/deactivate."""
    return _changed(request, starts=False)


def _changed(request: web.Request, *, starts: bool) -> web.StreamResponse:
    service = request.app[SERVICE]
    model = service.own.find(request.match_info["id"])
    if model is None:
        return replies.model_not_found(request.match_info["id"])
    if starts:
        model.start()
    else:
        model.stop()
    service.notify()
    return web.json_response(model_object(model))


async def list_fine_tunes(request: web.Request) -> web.StreamResponse:
    """GET /api/user/fine_tunes, in pages."""
    service, query = request.app[SERVICE], request.query
    size, page = int(query.get("page_size", 10)), int(query.get("page", 1))
    told = [fine_tune(model) for model in service.own.models.values() if model.state or "new" in model.name]
    told.append(fine_tune(service.own.models["ox-in-training"]))
    return web.json_response(
        {"fine_tunes": told[(page - 1) * size : page * size], "status": "success", "status_message": "resource_found"}
    )


async def one_fine_tune(request: web.Request) -> web.StreamResponse:
    """GET /api/repos/{namespace}/{repo}/fine_tunes/{id}."""
    model = _model(request)
    if model is None:
        return replies.not_found()
    return web.json_response({"fine_tune": fine_tune(model), "status": "success", "status_message": "resource_found"})


async def checkpoints(request: web.Request) -> web.StreamResponse:
    """GET .../fine_tunes/{id}/checkpoints: one of an unfinished training, two of a finished one."""
    service, model = request.app[SERVICE], _model(request)
    if model is None:
        return replies.not_found()
    steps = [_STEP // 2] if model.name == "ox-in-training" else [_STEP // 2, _STEP]
    told = [
        {
            "step": step,
            "path": f"models/{model.name}/step-{step}",
            "size_bytes": service.own.size,
            "model_name": f"{model.name}-step-{step}",
            "model_id": model.id if model.state and step == _STEP else None,
            "deployment_status": model.state or None,
        }
        for step in steps
    ]
    return web.json_response(
        {"fine_tune_id": f"ft_{model.name}", "branch": f"models/{model.name}", "checkpoints": told, "status": "success"}
    )


async def deploy(request: web.Request) -> web.StreamResponse:
    """POST .../fine_tunes/{id}/deploy, as the tutorials have it."""
    service, model = request.app[SERVICE], _model(request)
    if model is None or "whole" not in service.own.deploys:
        return replies.not_found()
    _start(service, model)
    deployment = {"model_slug": model.id, "status": "deploying", "endpoint": f"{service.url}/api/ai/images/edit"}
    return web.json_response({"deployment": deployment, "status": "success"})


async def deploy_checkpoint(request: web.Request) -> web.StreamResponse:
    """POST .../fine_tunes/{id}/checkpoints/{step}/deploy, as the published specification has it."""
    service, model = request.app[SERVICE], _model(request)
    if model is None or "checkpoint" not in service.own.deploys:
        return replies.not_found()
    body = current_call().record.json or {}
    if body.get("deployment_type", "normal") not in ("normal", "fast"):
        return replies.invalid("deployment_type must be normal or fast")
    _start(service, model)
    return web.json_response(
        {"deployment_id": f"dep_{model.name}", "fine_tune": fine_tune(model), "model": model_object(model)}
    )


def _start(service: Service, model: AccountModel) -> None:
    # a second deployment is a second one that is paid for: there is no model that is only looked at here
    model.state = model.state or "inactive"
    if model.state in ("active", "deploying"):
        model.wakings += 1
    model.start()
    service.notify()


def _model(request: web.Request) -> AccountModel | None:
    service, found = request.app[SERVICE], request.match_info
    if (found["namespace"], found["repo"]) != REPOSITORY:
        return None
    return service.own.models.get(found["id"].removeprefix("ft_"))
