"""One picture at a time on each core: more at once take no less time, and memory and the interpreter's lock besides.

Where pictures are made ready one by one, a core is left to whoever else there is: to ComfyUI's loop, which otherwise
gets neither a core nor the interpreter's lock for a tenth of a second at times, and to the connections.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_CPUS = os.cpu_count() or 1
_MOST = 8
CORES = min(_MOST, _CPUS)
_free = threading.BoundedSemaphore(min(_MOST, max(1, _CPUS - 1)))


@contextlib.contextmanager
def a_core() -> Iterator[None]:
    """Have one of the cores in the with block, which waits for nothing else; one that is wanted twice is never had."""
    with _free:
        yield


def side_by_side(one: Callable[[int], T], count: int, workers: int = CORES) -> list[T]:
    """`one(0)` … `one(count - 1)` in order, made in threads; raises what the first of them raises."""
    if min(workers, count) <= 1:
        return [one(index) for index in range(count)]
    with ThreadPoolExecutor(min(workers, count), thread_name_prefix="kontext-image") as pool:
        return list(pool.map(one, range(count)))
