"""A machine in trouble, in words: a full disk, a damaged or locked ledger, no handles, no threads, no memory."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator

from ..errors import LocalTrouble

HOME_VARIABLE = "KONTEXT_BRIDGE_HOME"
_REMEMBERED = "What was sent is remembered: run again when this is mended, and nothing is paid a second time."
_MOVE_AWAY = (
    "Put it back from a backup; or move it away, together with the folder results beside it, and a new one is begun: "
    "what it knows of unfinished jobs is lost with it, so that they are paid again if they are run again."
)
_LOCAL_DISK = (
    f"A folder on a local disk has all that is needed: name one with the environment variable {HOME_VARIABLE}."
)
_OF_THE_SYSTEM = {
    errno.ENOSPC: "The disk is full. Make room on it.",
    errno.EDQUOT: "The disk quota is used up. Make room.",
    errno.EMFILE: "This process has no file handle left: other nodes or pictures hold them. Restart ComfyUI, or raise "
    "the limit (ulimit -n).",
    errno.ENFILE: "The system has no file handle left. Close other programs.",
    errno.EROFS: f"The disk cannot be written. {_LOCAL_DISK}",
    errno.EACCES: f"The folder cannot be written by this user. {_LOCAL_DISK}",
    errno.EPERM: f"The folder cannot be written by this user. {_LOCAL_DISK}",
    errno.EIO: "The disk fails to read or write. Check it.",
}


@contextlib.contextmanager
def in_words(what: str = "The edit") -> Iterator[None]:
    """Raise LocalTrouble, which says what to do, for what the machine raises inside the with block."""
    try:
        yield
    except sqlite3.Error as error:
        raise LocalTrouble(f"{what} was stopped by the ledger of edits: {of_the_ledger(error)}") from error
    except OSError as error:
        # of others than the known, the system's own words
        advice = _OF_THE_SYSTEM.get(error.errno or 0, "Check the disk and the folder.")
        raise LocalTrouble(f"{what} was stopped by the system ({error}). {advice} {_REMEMBERED}") from error
    except MemoryError as error:
        raise LocalTrouble(
            f"{what} was stopped, as there is no memory left. Close other programs. {_REMEMBERED}"
        ) from error
    except RuntimeError as error:
        if "thread" not in str(error):
            raise
        raise LocalTrouble(
            f"{what} was stopped, as the system starts no further thread ({error}). Restart ComfyUI. {_REMEMBERED}"
        ) from error


def of_the_ledger(error: sqlite3.Error) -> str:
    """What SQLite's error means for the artist, and what to do."""
    said = str(error)
    if not isinstance(error, sqlite3.OperationalError):
        return f"it is damaged ({said}). {_MOVE_AWAY}"
    for sign, advice in (
        ("locked", f"another program held it for too long ({said}). {_REMEMBERED}"),
        ("full", f"the disk is full. Make room on it. {_REMEMBERED}"),
        ("readonly", f"it cannot be written ({said}). Check whose file it is. {_REMEMBERED}"),
    ):
        if sign in said:
            return advice
    return (
        f"{said}. Check that its folder can be written and that the disk has room. A network drive may lack the locks "
        f"or the shared memory that it needs. {_LOCAL_DISK} {_REMEMBERED}"
    )
