"""The service's event stream, read in the background: it makes waits prompt, and is never needed.

Events before the connection are lost at the service, so subscribe before the enqueue. A stream that is silent
for 45 s (three keep-alives) is dead; a refused or broken one is tried again while polling goes on underneath.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace

import requests

from ..control import Control
from ..errors import OxenError, UnexpectedReply
from ..http.connections import CONNECT_SECONDS
from ..http.line import Line
from ..http.sse import Decoder
from ..http.structure import looks_too_intricate
from ..http.transport import KeyAuth, Transport
from ..http.way import way_to
from .replies import EVENT_NAME, JobEvent, read_event

logger = logging.getLogger(__name__)

SILENT_SECONDS = 45.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_REFUSED_PAUSE = 30.0
_KEPT = 1024
# Of what an event says; its row says it in full.
_LONGEST_ERROR = 300
_LONGEST_URL = 8192
_MAX_SIGNS = 20_000


class EventStream:
    """Completion events of the account, kept by generation id from the moment of subscription.

    Each arrival wakes the transport's `Control`, and those that are `waking`, so that one stream serves many runs.
    Use as a context manager, or call `start` and `close`.
    """

    def __init__(self, transport: Transport, *, silent_seconds: float = SILENT_SECONDS) -> None:
        self._transport = transport
        self._silent_seconds = silent_seconds
        self._events: OrderedDict[str, JobEvent] = OrderedDict()
        self._settled = False
        self._closed = threading.Event()
        self._line: Line | None = None
        self._connected = False
        self._woken = {id(transport.control): transport.control}
        self._thread = threading.Thread(target=self._listen, name="kontext-bridge events", daemon=True)

    def __enter__(self) -> EventStream:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Listen from now on, once; where no thread is to be had the stream counts as refused, and polling goes on."""
        try:
            self._thread.start()
        except RuntimeError as error:
            logger.info("Event stream: %s. Polling goes on.", error)
            self._settle()

    @contextlib.contextmanager
    def waking(self, control: Control) -> Iterator[None]:
        """Wake another run's `Control` as well, for the length of a with block."""
        self._woken[id(control)] = control
        try:
            yield
        finally:
            self._woken.pop(id(control), None)

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def settled(self) -> bool:
        """Whether the first subscription stands or has failed; the runs are woken when it does."""
        return self._settled

    def get(self, generation_id: str) -> JobEvent | None:
        """The completion event of a generation, if it has come."""
        return self._events.get(generation_id)

    def close(self) -> None:
        """Stop listening; returns at once, and the reading thread ends at once, whatever it waits for."""
        self._closed.set()
        line = self._line
        if line is not None:
            line.cut()

    def _listen(self) -> None:
        pause = _FIRST_PAUSE
        while not self._over:
            try:
                if self._read_one_stream():
                    pause = _FIRST_PAUSE
            except OxenError as error:
                logger.info("Event stream: %s Polling goes on.", error)
                pause = max(pause, _REFUSED_PAUSE)
            except Exception as error:  # whatever it is: polling needs no events, and the next try may get them
                logger.debug("Event stream broke: %s", type(error).__name__)
            finally:
                self._connected = False
                self._settle()
            if self._over or self._closed.wait(pause):
                return
            pause = min(pause * 2, _LONGEST_PAUSE)

    @property
    def _over(self) -> bool:
        return self._closed.is_set() or self._transport.control.stopped

    def _read_one_stream(self) -> bool:
        """Read one connection until it ends; whether it was a stream at all."""
        self._line = line = Line(self._silent_seconds)
        if self._over:  # it may have been closed before there was a line to cut
            return False
        with self._transport.control.on_stop(line.cut), line, self._open() as response:
            self._transport.learn_clock(response.headers)
            if response.status_code != 200:
                raise UnexpectedReply(f"the service refused it (HTTP {response.status_code}).")
            if not response.headers.get("Content-Type", "").lower().startswith("text/event-stream"):
                raise UnexpectedReply("the service answered with something that is no event stream.")
            line.until = None
            self._connected = True
            self._settle()
            decoder = Decoder()
            while not self._over:
                chunk = _read_some(response)
                if not chunk:
                    return True
                for event in decoder.feed(chunk):
                    if event.name == EVENT_NAME:
                        self._keep(event.data)
        return True

    def _open(self) -> requests.Response:
        transport = self._transport
        url = transport.account.base_url + "/api/events"
        way = way_to(url, transport.session)
        return transport.session.get(
            url,
            headers={"Accept": "text/event-stream", "Accept-Encoding": "identity"},
            auth=KeyAuth(transport.account.require_key()),
            stream=True,
            allow_redirects=False,
            timeout=(CONNECT_SECONDS, self._silent_seconds),
            proxies=dict(way.proxies),
            verify=way.verify,
        )

    def _settle(self) -> None:
        self._settled = True
        self._wake()

    def _wake(self) -> None:
        for control in tuple(self._woken.values()):
            control.notify()

    def _keep(self, data: str) -> None:
        if looks_too_intricate(data.encode(), _MAX_SIGNS):
            return
        event = read_event(data)
        if event is None:
            return
        error = event.error and self._transport.redact(event.error[: 2 * _LONGEST_ERROR])[:_LONGEST_ERROR]
        url = event.url if event.url is not None and len(event.url) <= _LONGEST_URL else None
        self._events[event.generation_id] = replace(event, error=error, url=url)
        while len(self._events) > _KEPT:
            self._events.popitem(last=False)
        self._wake()


def _read_some(response: requests.Response) -> bytes:
    """What has arrived, without waiting for more; urllib3 before 2.1 can only promise that byte by byte."""
    read1 = getattr(response.raw, "read1", None)
    chunk: bytes = response.raw.read(1) if read1 is None else read1(1 << 16)
    return chunk
