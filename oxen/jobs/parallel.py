"""Side by side on daemon threads, which never keep a stopped program alive."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable


def for_each(count: int, width: int, work: Callable[[int], None]) -> None:
    """`work(0)` … `work(count - 1)`, started in order, at most `width` at once; returns when all have ended.

    The caller's own thread takes part, so that one piece of work needs no other, and where the machine has no more
    threads to give it goes on with those that there are. `work` deals with its own errors; one that escapes is raised
    here after the others have ended.
    """
    numbers = itertools.count()
    failures: list[BaseException] = []

    def take_turns() -> None:
        while (index := next(numbers)) < count:
            try:
                work(index)
            except BaseException as error:  # raised again below, in the caller's thread
                failures.append(error)
                return

    threads = []
    with contextlib.suppress(RuntimeError):
        for _ in range(min(width, count) - 1):
            thread = threading.Thread(target=take_turns, name="kontext-bridge edit", daemon=True)
            thread.start()
            threads.append(thread)
    take_turns()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
