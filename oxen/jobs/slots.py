"""How many edits are under way at once in this process, over all its nodes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from ..control import Control

_changed = threading.Condition()
_taken = 0


@contextlib.contextmanager
def slot(limit: int, control: Control) -> Iterator[None]:
    """Take one of `limit` slots for the length of a with block, or until the run is stopped.

    What a stopped run still does in the block, such as waiting for an answer that was paid for, holds nobody up.
    Raises Interrupted while waiting for one.
    """
    global _taken
    with _changed:
        control.wait_on(_changed, lambda: _taken < limit)
        _taken += 1
    held = _Held()
    try:
        with control.on_stop(held.give_back):
            yield
    finally:
        held.give_back()


class _Held:
    """A slot that is given back once, by whoever comes first."""

    def __init__(self) -> None:
        self._held = True

    def give_back(self) -> None:
        global _taken
        with _changed:
            if self._held:
                self._held = False
                _taken -= 1
                _changed.notify_all()
