"""GET /api/events: the open event streams and everything that can go wrong on them."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from . import replies
from .faults import Trip
from .records import Job, Status

Event = dict[str, Any]
KEEP_ALIVE = b": keep-alive\n\n"


@dataclass(eq=False)
class Stream:
    """One open event stream. Its queue holds events, raw bytes to send as they are, or None to end it."""

    trip: Trip
    queue: asyncio.Queue[Event | bytes | None] = field(default_factory=asyncio.Queue)


class Hub:
    """Every open event stream. Nothing is kept for those who come later."""

    def __init__(self) -> None:
        self._streams: set[Stream] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def announce(self, event: Event) -> None:
        """Send the event to every open stream, each with what its switches make of it."""
        self._put(event)

    def emit(self, raw: bytes) -> None:
        """Put these bytes on every open stream as they are."""
        self._put(raw)

    def close(self) -> None:
        """End every stream properly."""
        self._put(None)

    def _put(self, item: Event | bytes | None) -> None:
        for stream in self._streams:
            stream.queue.put_nowait(item)

    async def serve(self, request: web.Request, trip: Trip, keepalive_s: float) -> web.StreamResponse:
        """One stream from headers to end."""
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        stream = Stream(trip)
        # Before the headers: who has seen them has subscribed.
        self._streams.add(stream)
        try:
            await reply.prepare(request)
            if fault := trip("events_long_line"):
                await replies.pour(request, reply, b"data: ", b"a" * 1_000_000, int(fault.number(100)))
            if not trip("events_closed"):
                await self._feed(request, reply, stream, keepalive_s)
        except ConnectionError:
            pass
        finally:
            self._streams.discard(stream)
        return reply

    async def _feed(self, request: web.Request, reply: web.StreamResponse, stream: Stream, keepalive_s: float) -> None:
        silent = stream.trip("events_silent") is not None
        while True:
            item = await _next(request, stream, keepalive_s)
            if item is None:
                return
            if silent:
                continue
            if isinstance(item, bytes):
                await reply.write(item)
                continue
            raw = dressed(frame(item), stream.trip)
            if stream.trip("events_cut"):
                await reply.write(raw[: len(raw) // 2])
                await asyncio.sleep(0.05)
                replies.reset(request)
                return
            await _write(reply, raw, stream.trip)


async def _next(request: web.Request, stream: Stream, keepalive_s: float) -> Event | bytes | None:
    """What to send next: an event, raw bytes, a keep-alive, None to end. Notices a client that has gone."""
    deadline = time.monotonic() + keepalive_s
    while request.transport is not None:
        left = deadline - time.monotonic()
        if left <= 0:
            return KEEP_ALIVE
        try:
            return await asyncio.wait_for(stream.queue.get(), min(left, 0.1))
        except asyncio.TimeoutError:
            continue
    return None


async def _write(reply: web.StreamResponse, raw: bytes, trip: Trip) -> None:
    if not trip("events_bytewise"):
        await reply.write(raw)
        return
    for n in range(len(raw)):
        await reply.write(raw[n : n + 1])
        await asyncio.sleep(0.0005)


def completion(job: Job, status: Status, url: str | None) -> Event:
    """The data of media_generation_completed, whose names differ from the row's."""
    data: Event = {"generation_id": job.id, "status": status.value, "media_type": "image"}
    if status is Status.SUCCEEDED:
        return data | {"model": job.params.get("model"), "url": url}
    return data | {"error": job.error_message}


def frame(data: Event, name: str = "media_generation_completed") -> bytes:
    """One event as it goes over the wire."""
    return f"event: {name}\ndata: {replies.dumps(data)}\n\n".encode()


def dressed(raw: bytes, trip: Trip) -> bytes:
    """The event with whatever the switches put around it."""
    if trip("events_twice"):
        raw = raw + raw
    if trip("events_someone_else"):
        stranger = {"generation_id": str(uuid.uuid4()), "status": "failed", "media_type": "image", "error": "x"}
        raw = frame(stranger) + raw
    if trip("events_foreign"):
        deployed = frame({"deployment_id": str(uuid.uuid4()), "status": "live"}, "deployment_status")
        raw = b": a comment\n\n" + deployed + b"data: no name\n\n" + raw + b"event: empty\n\n" + deployed
    return raw.replace(b"\n", b"\r\n") if trip("events_crlf") else raw
