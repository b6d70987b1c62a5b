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
import urllib3.exceptions

from .control import Control
from .errors import OxenError, UnexpectedReply
from .replies import EVENT_NAME, JobEvent, read_event
from .sse import Decoder
from .transport import CONNECT_SECONDS, KeyAuth, Transport

logger = logging.getLogger(__name__)

SILENT_SECONDS = 45.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_REFUSED_PAUSE = 30.0
_KEPT = 1024


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
        self._response: requests.Response | None = None
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
        """Stop listening; returns at once, the reading thread ends by itself."""
        self._closed.set()
        response = self._response
        if response is not None:
            _shut(response)

    def _listen(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closed.is_set():
            try:
                if self._read_one_stream():
                    pause = _FIRST_PAUSE
            except OxenError as error:
                logger.info("Event stream: %s Polling goes on.", error)
                pause = max(pause, _REFUSED_PAUSE)
            except (
                requests.RequestException,
                urllib3.exceptions.HTTPError,
                OSError,
                AttributeError,
            ) as error:
                # AttributeError: urllib3 raises it where close() took the socket away under a read
                logger.debug("Event stream broke: %s", type(error).__name__)
            finally:
                self._connected = False
                self._settle()
            if self._closed.wait(pause):
                return
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _read_one_stream(self) -> bool:
        """Read one connection until it ends; whether it was a stream at all."""
        transport = self._transport
        response = transport.session.get(
            transport.account.base_url + "/api/events",
            headers={"Accept": "text/event-stream", "Accept-Encoding": "identity"},
            auth=KeyAuth(transport.account.require_key()),
            stream=True,
            allow_redirects=False,
            timeout=(CONNECT_SECONDS, self._silent_seconds),
        )
        with contextlib.closing(response):
            if response.status_code != 200:
                raise UnexpectedReply(f"the service refused it (HTTP {response.status_code}).")
            if not response.headers.get("Content-Type", "").lower().startswith("text/event-stream"):
                raise UnexpectedReply("the service answered with something that is no event stream.")
            self._response = response
            self._connected = True
            self._settle()
            decoder = Decoder()
            while not self._closed.is_set():
                chunk = _read_some(response)
                if not chunk:
                    return True
                for event in decoder.feed(chunk):
                    if event.name == EVENT_NAME:
                        self._keep(event.data)
        return True

    def _settle(self) -> None:
        self._settled = True
        self._wake()

    def _wake(self) -> None:
        for control in tuple(self._woken.values()):
            control.notify()

    def _keep(self, data: str) -> None:
        event = read_event(data)
        if event is None:
            return
        error = event.error and self._transport.redact(event.error)
        self._events[event.generation_id] = replace(event, error=error)
        while len(self._events) > _KEPT:
            self._events.popitem(last=False)
        self._wake()


def _read_some(response: requests.Response) -> bytes:
    """What has arrived, without waiting for more; urllib3 before 2.1 can only promise that byte by byte."""
    read1 = getattr(response.raw, "read1", None)
    chunk: bytes = response.raw.read(1) if read1 is None else read1(1 << 16)
    return chunk


def _shut(response: requests.Response) -> None:
    """End a blocked read; without `shutdown` (urllib3 before 2.3) it ends at the next keep-alive."""
    shutdown = getattr(response.raw, "shutdown", None)
    if shutdown is not None:
        with contextlib.suppress(ValueError, OSError):
            shutdown()
