"""Stopping a run from outside, and waking its waits at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from .errors import Interrupted


class Control:
    """The handle by which a run is stopped; every wait of the run goes through it.

    `interrupt()` is the artist's Cancel: waits raise `Interrupted` and remote jobs are cancelled. `detach()`
    only stops the waiting: jobs go on at the service and are found again in the ledger.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._stopped = False
        self._interrupted = False
        self._to_call: dict[object, Callable[[], None]] = {}

    def interrupt(self) -> None:
        self._stop(interrupted=True)

    def detach(self) -> None:
        self._stop(interrupted=False)

    def _stop(self, *, interrupted: bool) -> None:
        with self._changed:
            self._stopped = True
            self._interrupted = self._interrupted or interrupted
            self._changed.notify_all()
            to_call = list(self._to_call.values())
            self._to_call.clear()
        for call in to_call:
            call()

    @contextlib.contextmanager
    def on_stop(self, call: Callable[[], None]) -> Iterator[None]:
        """For the length of a with block, have `call` called once when the run is stopped, at once if it is already.

        It is called by the thread that stops the run, and has to return at once.
        """
        mark = object()
        with self._changed:
            stopped = self._stopped
            if not stopped:
                self._to_call[mark] = call
        if stopped:
            call()
        try:
            yield
        finally:
            with self._changed:
                self._to_call.pop(mark, None)

    def notify(self) -> None:
        """Wake every wait so that it looks at its predicate again."""
        with self._changed:
            self._changed.notify_all()

    @property
    def stopped(self) -> bool:
        return self._stopped

    @property
    def cancel_remotely(self) -> bool:
        """True where the run was stopped by the artist, so that its remote jobs should stop as well."""
        return self._interrupted

    def check(self) -> None:
        """Raise `Interrupted` if the run was stopped."""
        if self._stopped:
            raise Interrupted("The run was stopped.")

    def wait_for(self, predicate: Callable[[], bool], seconds: float) -> bool:
        """Wait until `predicate()` holds or `seconds` have passed; its last value.

        Raises Interrupted as soon as the run is stopped.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or predicate(), max(0.0, seconds))
            self.check()
            return predicate()

    def wait_on(
        self, changed: threading.Condition, predicate: Callable[[], bool], seconds: float | None = None
    ) -> bool:
        """`wait_for` on a condition of the caller's own, which it holds, and for ever where `seconds` is None."""

        def wake() -> None:
            with changed:
                changed.notify_all()

        with self.on_stop(wake):
            changed.wait_for(lambda: self._stopped or predicate(), seconds)
        self.check()
        return predicate()

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`; raises Interrupted as soon as the run is stopped."""
        self.wait_for(lambda: False, seconds)


class Deadline:
    """A point in time that a caller is willing to wait for, in seconds from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.left <= 0.0
