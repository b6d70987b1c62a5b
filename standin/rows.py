"""How a job looks from outside: the queue's row and the history's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .files import USERNAME
from .records import Job, Status
from .service import COST_PER_IMAGE, Service


def row(service: Service, job: Job) -> dict[str, Any]:
    """The bare row of GET /api/ai/queue/{id}: the parameters as sent, and the job's state over them."""
    trip = service.job_trip(job)
    sent = {k: v for k, v in job.params.items() if k not in ("model", "num_generations")}
    status: str = job.status.value
    url = service.result_url(job) if job.status is Status.SUCCEEDED and not trip("no_result_url") else None
    if fault := trip("poll_odd_status"):
        status = fault.text("completed")
    return sent | {
        "generation_id": job.id,
        "model_name": job.params.get("model"),
        "prompt": job.prompt,
        "media_type": "image",
        "status": status,
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


def history_row(service: Service, job: Job) -> dict[str, Any]:
    """The row of GET /api/ai/generations: the queue's, with what it cost as a decimal text."""
    cost = f"{COST_PER_IMAGE:.2f}" if job.status is Status.SUCCEEDED else None
    user = {"user_id": "1", "username": USERNAME, "user_image": None}
    return row(service, job) | {"cost": cost} | user


def select(service: Service, query: Mapping[str, str]) -> list[Job]:
    """The jobs that the list filters of the query let through, newest first; `status` is the caller's."""
    found = []
    for job in reversed(service.jobs.values()):
        asked = {
            "namespace": job.params.get("target_namespace", USERNAME),
            "model": job.params.get("model"),
            "media_type": "image",
            "repo": job.params.get("target_repo"),
            "folder": job.params.get("target_directory"),
        }
        if all(query.get(name, value) == value for name, value in asked.items()) and _listed(service, job):
            found.append(job)
    return found


def _listed(service: Service, job: Job) -> bool:
    trip = service.job_trip(job)
    if job.sync and trip("history_without_sync"):
        return False
    lag = trip("list_lags")
    return lag is None or time.time() - job.enqueued_at >= lag.number(1.0)
