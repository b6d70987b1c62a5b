"""A file that lies in a folder and nowhere else; and the folders of an album, for their owner alone."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ..oxen.private_files import make_folder

_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait for its other end
    | getattr(os, "O_BINARY", 0)
)


def read_inside(folder: Path, name: str, most: int) -> bytes | None:
    """The bytes of a file in a folder; None where there is none that is plain, of `most` bytes, and no link.

    The folder itself may be a link: whoever owns it has put it on another disk.
    """
    if not _NAME.fullmatch(name):
        return None
    path = folder / name
    try:
        if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
            return None
        handle = os.open(path, _FLAGS)
    except OSError:
        return None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most:
            return None
        with open(handle, "rb", closefd=False) as file:  # of a handle
            data = file.read(most + 1)
    except OSError:
        return None
    finally:
        os.close(handle)
    return data if len(data) <= most else None


def make_part(album: Path, name: str) -> Path:
    """The folder `name` of an album, both made where they are not there; raises OSError."""
    make_folder(album)
    make_folder(album / name)
    return album / name
