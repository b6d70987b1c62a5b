"""How long a test waits, and which of the seconds that passed a busy machine took from it.

PATIENCE is for what comes at once where all is well: it says only when a test gives up. A promise in seconds is
held against `timed`, so that it means the same on a machine that others keep busy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PATIENCE = 60.0
_TICK = 0.005


@dataclass
class Took:
    """seconds: how long a with block took. lost: how much of it a thread that only slept meanwhile was late."""

    seconds: float = 0.0
    lost: float = 0.0

    @property
    def own(self) -> float:
        """The seconds that are left where the machine's own delays are taken off."""
        return self.seconds - self.lost


@contextmanager
def timed() -> Iterator[Took]:
    """Measures a with block that waits; one that computes holds the sleeping thread up itself."""
    took, over = Took(), threading.Event()

    def sleep() -> None:
        while True:
            since = time.monotonic()
            if over.wait(_TICK):
                return
            took.lost += max(0.0, time.monotonic() - since - _TICK)

    thread = threading.Thread(target=sleep, name="patience", daemon=True)
    since = time.monotonic()
    thread.start()
    try:
        yield took
    finally:
        took.seconds = time.monotonic() - since
        over.set()
        thread.join()
