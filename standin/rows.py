"""How a job looks from outside: the queue's row and the history's, and the lists of them."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .echo import altered
from .parameters import cost_of
from .records import Job, Status
from .service import Service
from .storage import USERNAME


def row(service: Service, job: Job) -> dict[str, Any]:
    """The bare row of GET /api/ai/queue/{id}: the parameters as sent, and the job's state over them."""
    trip = service.job_trip(job)
    sent = {k: v for k, v in job.params.items() if k not in ("model", "num_generations")}
    url = service.result_url(job) if job.status is Status.SUCCEEDED and not trip("no_result_url") else None
    whole = sent | {
        "generation_id": job.id,
        "model_name": job.params.get("model"),
        "prompt": job.prompt,
        "media_type": "image",
        "status": job.status.value,
        "result_url": url,
        "error_message": job.error_message,
        "error_retryable": None,
        "enqueued_at": int(job.enqueued_at),
        "started_at": None if job.started_at is None else int(job.started_at),
        "completed_at": None if job.completed_at is None else int(job.completed_at),
        "target_namespace": job.params.get("target_namespace", USERNAME),
        "target_repo": job.params.get("target_repo"),
        "target_directory": job.params.get("target_directory"),
    }
    return altered(whole, job, trip, service.url)


def history_row(service: Service, job: Job) -> dict[str, Any]:
    """The row of GET /api/ai/generations: the queue's, with what it cost as a decimal text, where that is known."""
    usd = cost_of(job.params) if job.status is Status.SUCCEEDED else None
    cost = None if usd is None else str(usd)
    if fault := service.job_trip(job)("cost_odd"):
        cost = fault.text("1e9999999")
    user = {"user_id": "1", "username": USERNAME, "user_image": None}
    return row(service, job) | {"cost": cost} | user


def select(service: Service, query: Mapping[str, str]) -> list[Job]:
    """The jobs that the list filters of the query let through, newest first; `status` is the caller's."""
    found = []
    newer = service.trip("list_newer")
    strangers = service.strangers(int(newer.number(15))) if newer else []
    for job in [*reversed(strangers), *reversed(service.jobs.values())]:
        asked = {
            "namespace": job.params.get("target_namespace", USERNAME),
            "model": _model(service, job),
            "media_type": "image",
            "repo": job.params.get("target_repo"),
            "folder": job.params.get("target_directory"),
        }
        if all(query.get(name, value) == value for name, value in asked.items()) and _listed(service, job):
            found.append(job)
    if order := service.trip("list_order"):
        return random.sample(found, len(found)) if order.value == "shuffled" else found[::-1]
    return found


def listed(service: Service, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """What a list's `generations` holds of these rows."""
    if service.trip("list_null"):
        return None
    if fault := service.trip("list_null_id"):
        nameless = [row | {"generation_id": None} for row in rows]
        return nameless if fault.value == "all" else [*nameless[:1], *rows]
    return list(rows)


def _model(service: Service, job: Job) -> str:
    name = str(job.params.get("model"))
    fault = service.job_trip(job)("list_model")
    return fault.text("black-forest-labs/{}").format(name) if fault else name


def _listed(service: Service, job: Job) -> bool:
    trip = service.job_trip(job)
    if job.sync and trip("history_without_sync"):
        return False
    lag = trip("list_lags")
    return lag is None or time.time() - job.enqueued_at >= lag.number(1.0)
