"""Rows side by side: each worker takes the next when it is through, so that no more are begun than are under way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_TICK = 0.2
# For rows under way to end once they were told to stop.
_GRACE = 10.0


class RowPool(Generic[T]):
    """`work` for every item, at most `width` at once, on daemon threads.

    What `work` raises stops the pool: no further item is begun, those under way end, and it is raised by `run`.
    """

    def __init__(self, items: Iterator[T], width: int, work: Callable[[T], None]) -> None:
        self._items = items
        self._width = width
        self._work = work
        self._guard = threading.Lock()
        self._stopped = threading.Event()
        self._error: BaseException | None = None

    def run(self, stop: Callable[[], None]) -> None:
        """Return when all are through. stop: tells those under way to end, where the caller is interrupted."""
        threads = [
            threading.Thread(target=self._turns, name="kontext-bridge row", daemon=True) for _ in range(self._width)
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                threads[0].join(_TICK) if threads[0].is_alive() else _join_any(threads)
        except BaseException:
            self._stopped.set()
            stop()
            for thread in threads:
                thread.join(_GRACE / self._width)
            raise
        if self._error is not None:
            raise self._error

    def _turns(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._guard:
                    if self._stopped.is_set():
                        return
                    item = next(self._items, None)
                if item is None:
                    return
                self._work(item)
            except BaseException as error:  # raised again in the caller's thread
                with self._guard:
                    self._error = self._error or error
                self._stopped.set()
                return


def _join_any(threads: list[threading.Thread]) -> None:
    next(thread for thread in threads if thread.is_alive()).join(_TICK)
