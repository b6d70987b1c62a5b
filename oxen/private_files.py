"""Files and folders for their owner alone, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
PART = ".part"
# Seconds between tries to rename.
_PAUSES = (0.05, 0.1, 0.2, 0.4)


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner can look into, where it is not there."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)


def make_private(path: Path, mode: int) -> None:
    """Take from others what an older version, or a hand-made folder, left open to them; as far as that is allowed."""
    with contextlib.suppress(OSError):
        if os.name == "posix" and path.stat().st_mode & 0o077:
            path.chmod(mode)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and have it on the disk, its name too, before returning."""
    replace_file(path, data)
    sync_folder(path.parent)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole, or leave what was there and raise OSError.

    A process that is killed here may leave a file beside it: its name begins with the stem of `path`, and ends in PART.
    """
    temporary = path.with_name(f"{path.stem}.{os.getpid()}-{threading.get_ident()}{PART}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(temporary, flags, PRIVATE_FILE), "wb") as file:  # noqa: PTH123  # of a handle
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        put_in_place(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def put_in_place(draft: Path, path: Path) -> None:
    """Rename a file, also to where another is; raises OSError. On Windows a scanner's moment is waited for."""
    for pause in _PAUSES if sys.platform == "win32" else ():
        try:
            draft.replace(path)
            return
        except PermissionError:
            time.sleep(pause)
    draft.replace(path)


def sync_if_possible(folder: Path) -> None:
    """`sync_folder` for what is done already, whether or not it outlives a power cut."""
    with contextlib.suppress(OSError):
        sync_folder(folder)


def sync_folder(path: Path) -> None:
    """Have on the disk what a folder's files are called; on Windows that is the system's own business."""
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
