"""Downloads of finished pictures, and the other host that a download may be redirected to."""

from __future__ import annotations

import gzip
import time

from aiohttp import web

from . import replies
from .call import Call, current_call
from .faults import Fault, Trip
from .picture import bomb, media_type
from .records import Job
from .service import SERVICE, Service


async def result(request: web.Request) -> web.StreamResponse:
    """GET of a result_url: open to whoever has the signed address."""
    service = request.app[SERVICE]
    job = service.found(request.match_info["id"])
    if job is None or job.result is None:
        return replies.not_found()
    call = current_call()
    if request.raw_path in service.expired or not service.signer.opens(request.path, request.query):
        return _expired()
    if (refusal := _refused(request, service, job, call)) is not None:
        return refusal
    return await send_picture(request, service, job, service.job_trip(job, call.own))


def _expired() -> web.Response:
    return replies.envelope(403, "forbidden", "The signature is wrong or has expired.")


def _refused(request: web.Request, service: Service, job: Job, call: Call) -> web.StreamResponse | None:
    """What comes instead of the picture; None where it comes."""
    trip = service.job_trip(job, call.own)
    if trip("result_expired"):
        service.expired.add(request.raw_path)
        return _expired()
    if (fault := trip("result_late")) and (status := _too_early(job, fault)):
        return replies.envelope(status, "resource_not_found", "The requested file could not be found")
    if trip("result_missing"):
        return replies.not_found()
    if not call.authorized and (fault := trip("result_needs_bearer")):
        return replies.envelope(int(fault.number(401)), "unauthenticated", "This file is private.")
    if fault := trip("result_error"):
        return replies.html(int(fault.number(503)))
    if trip("result_html"):
        return replies.html(200)
    if trip("result_redirect_loop"):
        return web.Response(status=302, headers={"Location": str(request.rel_url)})
    if fault := trip("result_redirects"):
        away = f"{service.elsewhere_url}/{job.id}"
        return web.Response(status=302, headers={"Location": fault.text(away)})
    return None


def _too_early(job: Job, fault: Fault) -> int:
    """The status that an address not yet there answers with, 0 where it is there."""
    status, _, seconds = fault.text("404:1").rpartition(":")
    return int(status or 404) if time.time() - (job.completed_at or 0.0) < float(seconds) else 0


def spoilt(data: bytes, trip: Trip) -> bytes:
    """The picture's bytes, or what a switch sends in their place; the same object where none does."""
    if trip("result_truncated"):
        return data[: len(data) // 2]
    if trip("result_empty"):
        return b""
    return bomb() if trip("result_bomb") else data


async def send_picture(request: web.Request, service: Service, job: Job, trip: Trip) -> web.StreamResponse:
    """The picture, whole unless a switch says otherwise; a whole one counts as delivered."""
    data = job.result or b""
    kind = media_type(data)
    if fault := trip("result_wrong_type"):
        kind = fault.text("text/plain")
    if trip("result_cut"):
        return await replies.cut_short(request, data, kind)
    if trip("result_endless"):
        return await replies.pour(request, web.StreamResponse(headers={"Content-Type": kind}), data[:64], bytes(65536))
    if trip("result_hangs"):
        reply = web.StreamResponse(headers={"Content-Type": kind, "Content-Length": str(len(data))})
        await reply.prepare(request)
        await reply.write(data[:64])
        await service.stopping.wait()
        return reply
    sent = spoilt(data, trip)
    whole = sent is data
    headers = {"Content-Type": kind}
    if trip("result_gzip"):
        headers["Content-Encoding"], sent = "gzip", gzip.compress(sent, 1)
    if fault := trip("result_aws_chunked"):
        headers["Content-Encoding"] = fault.text("aws-chunked")
    reply = web.StreamResponse(headers=headers | {"Content-Length": str(len(sent))})
    left = await replies.send_whole(request, reply, sent)
    if left and whole and request.method == "GET":
        service.deliver(job)
    return reply


async def elsewhere(request: web.Request) -> web.StreamResponse:
    """The other host: serves what it is asked for, and has no business with the key."""
    service = request.app[SERVICE]
    job = service.jobs.get(request.match_info["id"])
    if job is None or job.result is None:
        return web.Response(status=404)
    return await send_picture(request, service, job, service.job_trip(job))
