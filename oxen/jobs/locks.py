"""One lock per key across threads and processes; the system releases it when its holder dies.

Whoever holds a key's lock alone works on that key, so a record left in the state "sending" by nobody is known to
be the trace of a killed run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ..control import Control, Deadline
from ..errors import Misconfigured, TimedOut

_PAUSE = 0.05
# How long a process that has no file handle left waits for one to come free.
_HANDLE_SECONDS = 10.0
_NAME_ANOTHER = "name another folder, on a local disk, with the environment variable KONTEXT_BRIDGE_HOME."
_NO_HANDLES = (errno.EMFILE, errno.ENFILE)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)

if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EDEADLK):
                raise
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

    Raises TimedOut at the deadline, Interrupted when the run is stopped while waiting, and Misconfigured, which says
    what the folder lacks, where there can be no lock.
    """
    path = folder / f"{name}.lock"
    handle = _taken(path, control, deadline)
    try:
        yield
    finally:
        if sys.platform != "win32":
            # Removed while still held: whoever opened it meanwhile sees that it is not the current file. One that
            # cannot be removed is in nobody's way, and no reason to lose what was done under it.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        os.close(handle)


def is_held(folder: Path, name: str) -> bool:
    """Whether somebody holds the lock `name` now; raises OSError. Whoever takes it at that moment waits a little."""
    try:
        handle = os.open(folder / f"{name}.lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(handle)
    finally:
        os.close(handle)


def _taken(path: Path, control: Control, deadline: Deadline | None) -> int:
    """The handle of the lock file, locked."""
    handles = Deadline(_HANDLE_SECONDS)
    while True:
        try:
            handle = _opened_and_locked(path)
        except OSError as error:
            if error.errno not in _NO_HANDLES or handles.passed or (deadline is not None and deadline.passed):
                raise Misconfigured(_in_words(path, error)) from error
            handle = None
        if handle is not None:
            return handle
        if deadline is not None and deadline.passed:
            raise TimedOut(
                f"Another run is working on the same edit, and was not done with it after {deadline.seconds:g} s; run "
                "again to go on waiting, without paying."
            )
        control.sleep(_PAUSE)


def _opened_and_locked(path: Path) -> int | None:
    """The handle of the lock file, None where another run holds the lock or has just released it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:  # the folder was removed in between
        return None
    try:
        if _try_lock(handle) and _is_current(handle, path):
            return handle
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _in_words(path: Path, error: OSError) -> str:
    """Why there can be no lock, and what to do."""
    said = error.strerror or str(error)
    number = error.errno
    if number in _NO_LOCKS:
        why = f"The file system of {path.parent} has no file locks (flock: {said})."
        advice = f"So {_NAME_ANOTHER}"
    elif number in _NO_HANDLES:
        why = f"There is no file handle left for the lock {path} ({said})."
        advice = "Close other programs or restart ComfyUI, or raise the limit (ulimit -n)."
    elif number in (errno.ENOSPC, errno.EDQUOT):
        why = f"The disk has no room for the lock {path} ({said})."
        advice = f"Make room on it. Or {_NAME_ANOTHER}"
    elif number in (errno.EEXIST, errno.ENOTDIR):
        why = f"The folder {path.parent} for locks cannot be made, as a file is in its place ({said})."
        advice = f"Move the file away. Or {_NAME_ANOTHER}"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        why = f"The folder {path.parent} for locks cannot be written ({said})."
        advice = f"Let this user write there. Or {_NAME_ANOTHER}"
    else:
        why = f"The lock {path} cannot be had ({error})."
        advice = f"Check the disk. Or {_NAME_ANOTHER}"
    return f"{why} Without it two runs could pay for the same edit, so this one was not sent. {advice}"
