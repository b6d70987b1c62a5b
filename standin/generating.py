"""The paid routes: the synchronous edit and the queue."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

from aiohttp import web

from . import outcomes as results
from . import replies
from .call import Call, current_call
from .masks import BadMask, marked
from .models import MODELS, TEXT_MODEL
from .parameters import SCHEMAS, complaint, edit_of, route_of
from .records import Job, Status
from .rows import listed, row, select
from .sent import BadInput
from .service import SERVICE, Service

MAX_GENERATIONS = 4


async def edit(request: web.Request) -> web.StreamResponse:
    """POST /api/ai/images/edit and /images/generate: everything is checked first; the answer waits for the picture."""
    service, call = request.app[SERVICE], current_call()
    body = call.record.json
    if not isinstance(body, dict):
        return replies.invalid("the body must be a JSON object")
    if str(body.get("model")) not in SCHEMAS:
        return replies.model_not_found(str(body.get("model")))
    if asleep := service.own.refuses(body["model"]):
        return replies.invalid(asleep)
    # whether a model answers on the other route as well is not documented
    if not request.path.endswith(f"/{route_of(body['model'])}"):
        return replies.not_found()
    if body.get("response_format", "url") not in ("url", "b64_json"):
        return replies.invalid("response_format must be url or b64_json")
    strict = service.trip("strict_fields", call.subject(), call.own) is not None
    if wrong := complaint(body, strict_fields=strict):
        return replies.invalid(wrong)
    try:
        sources = await service.fetched(body)
        if sources.mask is not None:
            marked(sources.mask, edit_of(body).marks, sources.pictures[0])
    except (BadInput, BadMask) as e:
        return replies.invalid(str(e))
    job = service.accept(body, call.record, call.own, sources)
    call.jobs.append(job)
    await job.ended.wait()
    if job.status is not Status.SUCCEEDED:
        return _failed(job)
    return web.json_response(_edit_reply(service, job, call), dumps=replies.dumps)


def _failed(job: Job) -> web.Response:
    text = job.error_message or "cancelled"
    if text == "Insufficient credits":
        return replies.out_of_credits()
    if "model response error" in text:
        return replies.envelope(500, "unknown_error", "Something went wrong", text)
    return replies.invalid(text)


def _edit_reply(service: Service, job: Job, call: Call) -> dict[str, Any]:
    trip = service.job_trip(job)
    reply: dict[str, Any] = {"model": job.params["model"], "created": int(time.time())}
    if trip("image_url_reply"):
        return reply | {"image_url": service.result_url(job)}
    wants_b64 = job.params.get("response_format") == "b64_json"
    if trip("url_though_b64") if wants_b64 else trip("b64_though_url"):
        wants_b64 = not wants_b64
    if not wants_b64:
        return reply | {"images": [{"url": service.result_url(job)}]}
    data = results.spoilt(job.result or b"", trip)
    text = base64.b64encode(data).decode()
    if trip("b64_garbage"):
        text = "*" + text[1:]
    elif data is job.result:
        call.carries = job
    return reply | {"images": [{"b64_json": text}]}


async def enqueue(request: web.Request) -> web.StreamResponse:
    """POST /api/ai/queue: model and number are checked, parameters are not."""
    service, call = request.app[SERVICE], current_call()
    body = call.record.json
    if not isinstance(body, dict):
        return replies.invalid("the body must be a JSON object")
    name = str(body.get("model"))
    if name == TEXT_MODEL:
        return web.json_response({"error": {"detail": ":unsupported_media_type"}}, status=400)
    if name not in MODELS and name not in SCHEMAS:
        return replies.model_not_found(name)
    if asleep := service.own.refuses(name):
        return replies.invalid(asleep)
    count = body.get("num_generations", 1)
    if type(count) is not int or not 1 <= count <= MAX_GENERATIONS:
        detail = f"num_generations must be an integer between 1 and {MAX_GENERATIONS}"
        return web.json_response({"error": {"type": "invalid_request", "detail": detail}}, status=400)
    jobs = [service.accept(body, call.record, call.own) for _ in range(count)]
    call.jobs.extend(jobs)
    if service.job_trip(jobs[0])("event_before_answer"):
        await asyncio.gather(*(service.conclude(job) for job in jobs))
        # The event is written in the stream's own task; let it leave first.
        await asyncio.sleep(0.05)
    queued = [{"generation_id": job.id, "status": "queued"} for job in jobs]
    return web.json_response({"generations": queued}, dumps=replies.dumps)


async def list_queue(request: web.Request) -> web.StreamResponse:
    """GET /api/ai/queue: what is active, or what the filters ask for, newest first."""
    service, wanted = request.app[SERVICE], request.query.get("status")
    active = (Status.QUEUED, Status.PROCESSING)
    jobs = [
        job
        for job in select(service, request.query)
        if (job.status.value == wanted if wanted else job.status in active)
    ]
    rows = [row(service, job) for job in jobs]
    return web.json_response({"count": len(rows), "generations": listed(service, rows)}, dumps=replies.dumps)


async def get_row(request: web.Request) -> web.StreamResponse:
    """GET /api/ai/queue/{id}: the bare row."""
    service = request.app[SERVICE]
    job = service.known(request.match_info["id"])
    if job is None:
        return replies.not_found()
    if service.job_trip(job, current_call().own)("row_other_id"):
        job = service.strangers(1)[0]
    return web.json_response(row(service, job), dumps=replies.dumps)


async def cancel(request: web.Request) -> web.StreamResponse:
    """DELETE /api/ai/queue/{id}: 200 whether or not there was anything left to cancel."""
    service = request.app[SERVICE]
    job = service.jobs.get(request.match_info["id"])
    if job is None:
        return replies.not_found()
    if not job.status.terminal and service.job_trip(job, current_call().own)("cancel_loses"):
        await service.conclude(job)
    service.cancel(job)
    return web.json_response({"status": "success", "generation_id": job.id})
