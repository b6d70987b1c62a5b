"""One lock per key across threads and processes; the system releases it when its holder dies.

Whoever holds a key's lock alone works on that key, so a record left in the state "sending" by nobody is known to
be the trace of a killed run.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from .control import Control, Deadline
from .errors import TimedOut

_PAUSE = 0.05

if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _is_current(handle: int, path: Path) -> bool:
        return True  # no lock file is removed there
else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_current(handle: int, path: Path) -> bool:
        """Whether the locked file is still the one that the path names."""
        try:
            found = path.stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(handle)
        return (mine.st_ino, mine.st_dev) == (found.st_ino, found.st_dev)


@contextlib.contextmanager
def hold(folder: Path, name: str, control: Control, deadline: Deadline | None = None) -> Iterator[None]:
    """Hold the lock `name` in `folder` for the length of a with block, waiting for it until `deadline`.

    Raises TimedOut at the deadline, and Interrupted when the run is stopped while waiting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.lock"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if _try_lock(handle) and _is_current(handle, path):
            break
        os.close(handle)
        if deadline is not None and deadline.passed:
            raise TimedOut(
                f"Another run is working on the same edit, and was not done with it after {deadline.seconds:g} s; run "
                "again to go on waiting."
            )
        control.sleep(_PAUSE)
    try:
        yield
    finally:
        if sys.platform != "win32":
            # removed while still held: whoever opened it meanwhile sees that it is not the current file
            path.unlink(missing_ok=True)
        os.close(handle)
