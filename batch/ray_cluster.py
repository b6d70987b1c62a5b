"""The way into a Ray cluster, and out of it. Ray is imported here and nowhere else, once it is asked for.

Ray Data is not used, though rows flow through a pool: its unit is a block. A block that dies with its worker is made
again with all rows of it that were done; what is made comes out when its block is full; and its source is read by its
own tasks, while our rows come out of a plan on the disk of this machine. So each row is work of its own, with as many
under way as there are threads in `RowPool`: that is the back-pressure, and Ray sees no row before its turn.

What Ray does: where work runs, how pictures get there, starting again what died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ..imaging.errors import ImageError
from ..kontext.errors import KontextError
from ..oxen.credentials import KEY_VARIABLE
from ..oxen.errors import OxenError
from .made import RowFailed, RunStopped
from .source_rows import SourceError

T = TypeVar("T")

LOCAL = "local"
# Rows under way are all that it ever holds; what is larger goes to Ray's disk.
_STORE_BYTES = 512 << 20


@contextlib.contextmanager
def joined(address: str) -> Iterator[Any]:
    """Be in the cluster at an address, or in one of this machine's own ("local"), for a with block; gives Ray.

    Raises SourceError.
    """
    ray = _ray()
    if address.startswith("ray://"):
        raise SourceError(
            "--ray takes the address of a cluster that this machine is part of, as 10.0.0.1:6379, and no ray:// one: "
            "the ledger stays on this machine."
        )
    is_local = address == LOCAL
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "WARNING"}
    if is_local:
        options |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    with _signals_as_they_are(), _kept_from_workers() if is_local else contextlib.nullcontext():
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise SourceError(
                f"Ray at {address!r} cannot be used: {_first_line(error)} Start it with `ray start` on every machine, "
                "on this one, too; or give --ray local."
            ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def answered(work: Callable[[], T]) -> T | Exception:
    """What `work` gives or, for another process to raise, the error that it ends with.

    Errors that speak to artists do not say which module they are of, so that another process cannot know them again:
    what they come to is sent in their place, a row that failed or, of the service, a run that ends.
    """
    try:
        return work()
    except (RowFailed, RunStopped, OSError, MemoryError) as error:
        return error.with_traceback(None)
    except (ImageError, KontextError) as error:
        return RowFailed(str(error))
    except OxenError as error:
        return RunStopped(str(error))


def value(answer: T | Exception) -> T:
    """What `answered` gave; raises what it ended with."""
    if isinstance(answer, Exception):
        raise answer
    return answer


def file_of(path: Path) -> bytes:
    """A picture's file as it is sent to another machine; raises ImageError, OSError."""
    from .pictures import picture_bytes

    return picture_bytes(path)


def _ray() -> Any:
    # a thread that is late would start a cluster of its own after the end
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        import ray
    except ImportError:
        raise SourceError("--ray needs Ray, which is not installed: python -m pip install 'ray>=2.40'.") from None
    return ray


@contextlib.contextmanager
def _signals_as_they_are() -> Iterator[None]:
    """Ray would end the process where a job queue asks it to; the command ends the run by itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _kept_from_workers() -> Iterator[None]:
    """The processes of a cluster that is started here inherit no key: only the paymaster gets it, by its pipe."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    key = os.environ.pop(KEY_VARIABLE, None)
    try:
        yield
    finally:
        if key is not None:
            os.environ[KEY_VARIABLE] = key


def _first_line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return text if text.endswith(".") else f"{text}."
