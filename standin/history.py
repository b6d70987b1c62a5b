"""GET /api/ai/generations: what was made, and what it cost."""

from __future__ import annotations

from decimal import Decimal

from aiohttp import web

from . import replies
from .parameters import cost_of
from .records import Status
from .rows import history_row, listed, select
from .service import SERVICE


async def history(request: web.Request) -> web.StreamResponse:
    """The list: every state unless `status` is given, newest first, in pages."""
    service, query = request.app[SERVICE], request.query
    try:
        page, size = int(query.get("page", 1)), int(query.get("page_size", 50))
    except ValueError:
        return replies.invalid("page and page_size must be integers")
    if page < 1 or not 1 <= size <= 1000:
        return replies.invalid("page must be at least 1, page_size between 1 and 1000")
    if cap := service.trip("list_small_pages"):
        size = min(size, int(cap.number(5)))
    if service.trip("list_page_ignored"):
        page = 1
    jobs = [job for job in select(service, query) if job.status.value == query.get("status", job.status.value)]
    rows = [history_row(service, job) for job in jobs]
    known = [usd for job in jobs if job.status is Status.SUCCEEDED and (usd := cost_of(job.params)) is not None]
    shown = rows[(page - 1) * size : page * size]
    pages: int | None = max(1, -(-len(rows) // size))
    if fault := service.trip("list_pages"):
        pages = None if fault.text("null") == "null" else int(fault.number(1))
    entries: int | None = len(rows)
    if fault := service.trip("list_entries"):
        entries = None if fault.text("null") == "null" else int(fault.number(1))
    reply = {
        "count": len(shown),
        "generations": listed(service, shown),
        "page_number": page,
        "page_size": size,
        "total_pages": pages,
        "total_entries": entries,
        "total_cost": str(sum(known, Decimal(0))) if known else None,
    }
    return web.json_response(reply, dumps=replies.dumps)


async def generation(request: web.Request) -> web.StreamResponse:
    """One generation, wrapped, unlike the queue's row."""
    service = request.app[SERVICE]
    job = service.known(request.match_info["id"])
    if job is None:
        return replies.not_found()
    reply = {
        "generation": history_row(service, job),
        "status": "success",
        "status_message": "resource_found",
    }
    return web.json_response(reply, dumps=replies.dumps)
