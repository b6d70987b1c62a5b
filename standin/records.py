"""What the stand-in remembers: requests, jobs, bills, and how long things take."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any

from .faults import Trips
from .sent import Sources


@dataclass(frozen=True)
class Timing:
    """How long things take, in seconds."""

    queued_s: float = 0.05
    processing_s: float = 0.3
    keepalive_s: float = 15.0
    result_ttl_s: float = 3600.0


class Bearer(str, Enum):
    """What a request's Authorization header held."""

    NONE = "none"
    RIGHT = "right"
    OTHER = "other"


@dataclass(frozen=True)
class Request:
    """One request as it arrived. The key itself is withheld from path and headers; `bearer` judges it.

    body_bytes is 0 where the body was not read to its end, which also means that nothing was accepted.
    number counts from 1, connection is the accepted connection's number from 1, arrived is Unix time.
    carries_key: the key's text was somewhere in the path, the headers or the body.
    """

    number: int
    method: str
    path: str
    route: str
    headers: dict[str, str]
    arrived: float
    connection: int
    body_bytes: int
    json: Any
    bearer: Bearer
    carries_key: bool


@dataclass(frozen=True)
class Bill:
    """One image that the service would charge for.

    what: the generation id, or "sync-N" for the N-th synchronous edit.
    digest: SHA-256 of the request body as canonical JSON. request: that request's number. usd: what it costs; None
    where the model's price is not documented.
    """

    what: str
    digest: str
    time: float
    request: int
    usd: Decimal | None = None


class Status(str, Enum):
    """The states a generation can be in."""

    QUEUED = "queued"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the state is final."""
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


@dataclass(eq=False)
class Job:
    """One generation. `params` is the request body as sent; times are Unix seconds.

    sources are its files, where they were fetched before the job was accepted, as synchronous edits do.
    told is set to end the job now; verdict, where set, is the text it then fails with.
    """

    params: dict[str, Any]
    billed_as: str = ""
    sources: Sources | None = None
    trips: Trips | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: Status = Status.QUEUED
    enqueued_at: float = field(default_factory=time.time)
    started_at: float | None = None
    completed_at: float | None = None
    error_message: str | None = None
    result: bytes | None = None
    verdict: str | None = None
    told: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def __post_init__(self) -> None:
        self.billed_as = self.billed_as or self.id

    @property
    def sync(self) -> bool:
        """Whether the synchronous route made it."""
        return self.sources is not None

    @property
    def prompt(self) -> str:
        """The prompt as text, whatever was sent."""
        return str(self.params.get("prompt") or "")

    @property
    def subject(self) -> str:
        """What a fault's `match` is looked for in."""
        return f"{self.id} {self.prompt}"


def digest(body: Any) -> str:
    """SHA-256, in hexadecimal, of a JSON value written with sorted keys and without spaces."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
