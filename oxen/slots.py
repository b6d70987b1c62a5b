"""How many edits are under way at once in this process, over all its nodes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from .control import Control

_PAUSE = 0.05
_guard = threading.Lock()
_taken = 0


@contextlib.contextmanager
def slot(limit: int, control: Control) -> Iterator[None]:
    """Take one of `limit` slots for the length of a with block; raises Interrupted while waiting for one."""
    global _taken
    while not _try_take(limit):
        control.sleep(_PAUSE)
    try:
        yield
    finally:
        with _guard:
            _taken -= 1


def _try_take(limit: int) -> bool:
    global _taken
    with _guard:
        if _taken >= limit:
            return False
        _taken += 1
        return True
