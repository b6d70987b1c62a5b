"""The account behind the stand-in: what was asked, what runs, what was billed and what was fetched."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from aiohttp import web

from .events import Hub, completion
from .faults import Fault, Faults, Trip, Trips
from .masks import BadMask
from .own_models import OwnModels
from .parameters import SCHEMAS, complaint, cost_of, edit_of, mask_of, pictures_of
from .picture import BadPicture, Paint, make_edit
from .records import Bearer, Bill, Job, Request, Status, Timing, digest
from .samples import DOCUMENTED_HOST, is_sample, sample
from .sent import BadInput, Sources, client_error, fetch_all
from .signing import Signer
from .storage import USERNAME, Files
from .strangers import strange_job

logger = logging.getLogger(__name__)

Behaviour = Callable[[Request], Faults | None]


class Service:
    """Everything that outlives a request. Lives on the stand-in's loop; readers elsewhere take copies."""

    def __init__(
        self,
        faults: Faults,
        timing: Timing,
        key: str,
        behaviour: Behaviour | None,
        shrink: int = 1,
        paint: Paint | None = None,
    ) -> None:
        self.trips = Trips(faults)
        self.timing = timing
        self.key = key
        self.behaviour = behaviour
        self.shrink = shrink
        self.paint = paint
        self.url = ""
        self.elsewhere_url = ""
        self.requests: list[Request] = []
        self.elsewhere: list[Request] = []
        self.jobs: dict[str, Job] = {}
        self.billed: list[Bill] = []
        self.delivered: set[str] = set()
        self.shown: Counter[str] = Counter()
        self.files = Files()
        self.own = OwnModels(self.files)
        self.signer = Signer()
        self.expired: set[str] = set()
        self.hub = Hub()
        self.changed = threading.Condition()
        self.stopping = asyncio.Event()
        self._flowing = {Status.QUEUED: asyncio.Event(), Status.PROCESSING: asyncio.Event()}
        self._lives: set[asyncio.Task[None]] = set()
        self._strangers: dict[str, Job] = {}
        self.release()

    # faults

    def trip(self, name: str, subject: str = "", *own: Trips | None) -> Fault | None:
        """The fault if this use is to misbehave: the request's or job's own switches, then everyone's."""
        for trips in (*own, self.trips):
            if trips is not None and (fault := self.take(trips, name, subject)):
                return fault
        return None

    def take(
        self, trips: Trips, name: str, subject: str, concerns: Callable[[Fault], bool] | None = None
    ) -> Fault | None:
        """`Trips.take`, counted in `shown`."""
        fault = trips.take(name, subject, concerns)
        if fault is not None:
            self.shown[name] += 1
            self.notify()
        return fault

    def job_trip(self, job: Job, *own: Trips | None) -> Trip:
        """`trip` for one job: `match` is looked for in its id and prompt."""
        return lambda name: self.trip(name, job.subject, *own, job.trips)

    def notify(self) -> None:
        """Wake everyone who waits for something to change."""
        with self.changed:
            self.changed.notify_all()

    # jobs

    def accept(
        self, params: Mapping[str, Any], request: Request, trips: Trips | None, sources: Sources | None = None
    ) -> Job:
        """Take a job on: bill it and set it going. sources: a synchronous edit's files."""
        job = Job(dict(params), sources=sources, trips=trips)
        if job.sync:
            job.billed_as = f"sync-{1 + sum(j.sync for j in self.jobs.values())}"
        self.jobs[job.id] = job
        usd = cost_of(params) if params.get("model") in SCHEMAS else None
        self.billed.append(Bill(job.billed_as, digest(request.json), time.time(), request.number, usd))
        life = asyncio.ensure_future(self._live(job))
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)
        self.notify()
        return job

    def strangers(self, count: int) -> list[Job]:
        """So many finished jobs of somebody else with the same key, oldest first; none is billed or in `jobs`."""
        while len(self._strangers) < count:
            job = strange_job(len(self._strangers))
            self._strangers[job.id] = job
        return list(self._strangers.values())[:count]

    def found(self, generation_id: str) -> Job | None:
        """The job of that id, a stranger's too."""
        return self.jobs.get(generation_id) or self._strangers.get(generation_id)

    def known(self, generation_id: str) -> Job | None:
        """`found`, once the service knows its own job."""
        job = self.found(generation_id)
        late = job and self.job_trip(job)("row_late")
        return None if job and late and time.time() - job.enqueued_at < late.number(1.0) else job

    def hold(self, stage: Status) -> None:
        """Let no job leave this stage of its own accord."""
        self._flowing[stage].clear()

    def release(self) -> None:
        """Let jobs go on by themselves."""
        for flowing in self._flowing.values():
            flowing.set()

    async def conclude(self, job: Job, verdict: str | None = None) -> None:
        """End the job now, whatever holds it: failed with the verdict, or as it would have ended."""
        job.verdict = verdict
        job.told.set()
        await job.ended.wait()

    def cancel(self, job: Job) -> None:
        """Cancel a job that has not ended; others stay as they are."""
        if not job.status.terminal:
            job.status = Status.CANCELLED
            self._end(job)
            job.told.set()

    async def _live(self, job: Job) -> None:
        trip = self.job_trip(job)
        await self._stage(job, Status.QUEUED, self.timing.queued_s, stuck=trip("stuck_queued") is not None)
        if job.status.terminal:
            return
        job.status, job.started_at = Status.PROCESSING, time.time()
        self.notify()
        drawing = asyncio.ensure_future(self._draw(job))
        if not job.sync and trip("events_early"):
            self.hub.announce(completion(job, Status.SUCCEEDED, self.result_url(job)))
        try:
            await self._stage(job, Status.PROCESSING, self.timing.processing_s, stuck=trip("stuck") is not None)
            if job.status.terminal:
                return
            result, error = await drawing
        finally:
            drawing.cancel()
        if job.status.terminal:
            return
        job.error_message = error if job.verdict is None else job.verdict
        job.result = result if job.error_message is None else None
        job.status = Status.SUCCEEDED if job.error_message is None else Status.FAILED
        self._end(job)
        if not job.sync and not trip("events_lost"):
            self.hub.announce(completion(job, job.status, self.result_url(job)))

    def _end(self, job: Job) -> None:
        job.completed_at = time.time()
        job.ended.set()
        self.notify()

    async def _stage(self, job: Job, stage: Status, seconds: float, stuck: bool) -> None:
        async def pass_by_itself() -> None:
            await asyncio.sleep(seconds)
            await self._flowing[stage].wait()
            if stuck:
                await asyncio.Event().wait()

        ways = [asyncio.ensure_future(pass_by_itself()), asyncio.ensure_future(job.told.wait())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()

    async def _draw(self, job: Job) -> tuple[bytes | None, str | None]:
        """The picture, or the text with which the job fails."""
        trip = self.job_trip(job)
        if fault := trip("run_fails"):
            return None, fault.text("Getting model response error: 500 - the worker died")
        if trip("run_moderated"):
            return None, "Getting model response error: 422 - The input was flagged by the safety checker."
        if trip("run_out_of_credits"):
            return None, "Insufficient credits"
        wrong = complaint(job.params, strict_fields=trip("strict_fields") is not None)
        if wrong is not None:
            return None, wrong
        try:
            sources = job.sources or await self.fetched(job.params)
            edit, (first, *others) = edit_of(job.params), sources.pictures
            made = await asyncio.to_thread(make_edit, first, edit, self.shrink, self.paint, others, sources.mask)
            return made, None
        except (BadInput, BadPicture, BadMask) as e:
            return None, str(e)
        except Exception as e:  # a job that nobody ends is waited for until the time is up
            logger.exception("The stand-in could not draw.")
            return None, f"The stand-in itself failed: {e!r}"

    async def fetched(self, params: Mapping[str, Any]) -> Sources:
        """The files behind a request's pictures and mask; raises BadInput."""
        return await fetch_all(pictures_of(params), mask_of(params), self.own_file)

    def deliver(self, job: Job) -> None:
        """Note that the job's picture left here whole; a stranger's is nobody's business."""
        if job.id not in self.jobs:
            return
        self.delivered.add(job.billed_as)
        self.notify()

    async def settle(self) -> None:
        """Let tasks note what they have sent: who has just received the last byte may already ask."""
        for _ in range(5):
            await asyncio.sleep(0)

    def leaks(self) -> list[Request]:
        """Requests to the other host that carried an Authorization header or the key's text."""
        return [r for r in list(self.elsewhere) if r.bearer is not Bearer.NONE or r.carries_key]

    # addresses

    def result_url(self, job: Job) -> str | None:
        """A fresh address of the job's picture, None where there is none to expect."""
        if job.status is not Status.PROCESSING and job.result is None:
            return None
        kind = job.params.get("output_format", "webp")
        path = f"/api/repos/{USERNAME}/generations/files/{job.id}/image.{kind}"
        return self.url + self.signer.sign(path, self.timing.result_ttl_s)

    def own_file(self, url: str) -> bytes | None:
        """The bytes behind an address of this server; None for an address elsewhere.

        Raises BadInput, as a worker that has no key would report it, where the file is not open to everyone.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        path, host = unquote(parts.path), f"{parts.scheme}://{parts.netloc}"
        if host in (self.url, DOCUMENTED_HOST) and is_sample(self.files.locate(path)):
            return sample()
        if host != self.url:
            return None
        opened = self.signer.opens(path, dict(parse_qsl(parts.query)))
        job = self.jobs.get(path.split("/")[6]) if path.count("/") == 7 else None
        if opened and job is not None and job.result is not None:
            return job.result
        where = self.files.locate(path)
        if where is None or opened is False or not (opened or self.files.repos.get(where[:2])):
            raise client_error(403, url)
        if where not in self.files.blobs:
            raise client_error(404, url)
        return self.files.blobs[where]

    async def stop(self) -> None:
        """End every stream, answer nobody who was to wait for ever, stop all jobs."""
        self.stopping.set()
        self.hub.close()
        for life in list(self._lives):
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)


SERVICE = web.AppKey("service", Service)
