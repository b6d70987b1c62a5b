"""The stand-in as one object: a loopback server in a thread of its own, steered from the test's thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from . import switchboard
from .app import Site
from .faults import Faults, Switch
from .own_models import OwnModels
from .picture import Paint
from .records import Bill, Job, Request, Status, Timing
from .service import Behaviour, Service

T = TypeVar("T")


class StandIn:
    """A loopback Oxen.ai, from entering the `with` block to leaving it.

    faults, timing: how it behaves from the start. key: the only key it knows.
    port: 0 takes a free one. behaviour: called with each request on the server's thread; the Faults it
    returns hold for that request and for the jobs it makes, before the general ones
    (`reset_before_body` excepted, which is decided before there is a request to show).
    shrink: divides the sides of the pictures that it makes, where many are made and none is looked at.
    paint: makes the edits, as a Painter does; without it they are only tinted.

    What it has seen is read through the properties, each a copy.
    """

    def __init__(
        self,
        faults: Faults | None = None,
        timing: Timing | None = None,
        key: str = "standin-key",
        *,
        port: int = 0,
        behaviour: Behaviour | None = None,
        shrink: int = 1,
        paint: Paint | None = None,
    ) -> None:
        self.key = key
        self._port = port
        self._setup = faults or Faults(), timing or Timing(), key, behaviour, shrink, paint
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread
        self._site: Site | None = None

    def __enter__(self) -> StandIn:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stand-in", daemon=True)
        self._thread.start()
        try:
            self._site = self._call(self._open())
        except BaseException:
            self._end_loop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._running.close())
        self._end_loop()

    async def _open(self) -> Site:
        site = Site(Service(*self._setup))
        await site.open(self._port)
        return site

    def _end_loop(self) -> None:
        # A picture still being drawn reports to the loop when it is done.
        self._call(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T], timeout: float = 60.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    async def _settled(self) -> set[str]:
        await self._service.settle()
        return set(self._service.delivered)

    @property
    def _running(self) -> Site:
        if self._site is None:
            raise RuntimeError("the stand-in is not running; use it in a `with` block")
        return self._site

    @property
    def _service(self) -> Service:
        return self._running.service

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT."""
        return self._service.url

    @property
    def requests(self) -> list[Request]:
        """Every API request in order of arrival."""
        return list(self._service.requests)

    @property
    def connections(self) -> int:
        """How many connections were accepted, those of the control routes left out."""
        return self._running.connections

    @property
    def jobs(self) -> dict[str, Job]:
        """Every generation by id, in order of acceptance; the Job objects are live."""
        return dict(self._service.jobs)

    @property
    def billed(self) -> list[Bill]:
        """What would have been charged, in order."""
        return list(self._service.billed)

    @property
    def own(self) -> OwnModels:
        """The account's own models, live: how they behave can be set here."""
        return self._service.own

    @property
    def delivered(self) -> set[str]:
        """What was downloaded whole at least once: generation ids and "sync-N"."""
        return self._call(self._settled())

    @property
    def elsewhere(self) -> list[Request]:
        """Every request to the other host that `result_redirects` sends clients to."""
        return list(self._service.elsewhere)

    @property
    def leaks(self) -> list[Request]:
        """Requests to the other host that carried an Authorization header or the key's text."""
        return self._service.leaks()

    @property
    def shown(self) -> Counter[str]:
        """How often each fault really showed."""
        return Counter(self._service.shown)

    @property
    def streams(self) -> int:
        """How many event streams are open now."""
        return len(self._service.hub)

    def state(self) -> dict[str, Any]:
        """What GET /_standin/state answers."""
        return switchboard.state(self._running)

    def set(self, **faults: Switch) -> None:
        """Change some switches now; their counts start again. Raises KeyError for an unknown name."""
        self._service.trips.set(faults)

    def hold(self, stage: Status | str = Status.PROCESSING) -> None:
        """From now on no job leaves this stage by itself."""
        self._loop.call_soon_threadsafe(self._service.hold, Status(stage))

    def release(self) -> None:
        """Let jobs go on by themselves."""
        self._loop.call_soon_threadsafe(self._service.release)

    def refuse_connections(self) -> None:
        """Refuse new connections until `accept_connections`; those that are open stay."""
        self._call(self._running.shut())

    def accept_connections(self) -> None:
        """Accept connections again, on the same port."""
        self._call(self._running.reopen())

    def finish(self, generation_id: str) -> None:
        """End the job now as it would have ended, and wait until it has."""
        self._call(self._service.conclude(self.jobs[generation_id]))

    def fail(self, generation_id: str, message: str) -> None:
        """Fail the job now with this text, and wait until it has."""
        self._call(self._service.conclude(self.jobs[generation_id], message))

    def emit(self, raw: bytes) -> None:
        """Put these bytes on every open event stream."""
        self._loop.call_soon_threadsafe(self._service.hub.emit, raw)

    def close_streams(self) -> None:
        """End every open event stream properly."""
        self._loop.call_soon_threadsafe(self._service.hub.close)

    def wait_for(self, predicate: Callable[[StandIn], object], timeout: float = 60.0) -> None:
        """Return once the predicate holds. Raises TimeoutError after so many seconds."""
        deadline = time.monotonic() + timeout
        changed = self._service.changed
        while not predicate(self):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"not so within {timeout:g} s; the stand-in saw {self.state()}")
            # Streams open and close without a word, so look now and then unasked.
            with changed:
                changed.wait(min(left, 0.02))

    def write_state(self, path: Path) -> None:
        """Write the state as JSON; the file appears whole or not at all."""
        self._call(self._settled())
        switchboard.write_state(self._running, path)
