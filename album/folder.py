"""A file that lies in a folder and nowhere else; and the folders of an album, for their owner alone."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
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
    with _opened(folder, name, most) as handle:
        if handle is None:
            return None
        try:
            with open(handle, "rb", closefd=False) as file:
                data = file.read(most + 1)
        except OSError:
            return None
    return data if len(data) <= most else None


def is_inside(folder: Path, name: str, most: int) -> bool:
    """Whether `read_inside` would find a file."""
    with _opened(folder, name, most) as handle:
        return handle is not None


@contextlib.contextmanager
def _opened(folder: Path, name: str, most: int) -> Iterator[int | None]:
    handle = None
    try:
        handle = _handle(folder, name)
        found = None if handle is None else os.fstat(handle)
        fits = found is not None and stat.S_ISREG(found.st_mode) and found.st_size <= most
        yield handle if fits else None
    finally:
        if handle is not None:
            os.close(handle)


def _handle(folder: Path, name: str) -> int | None:
    if not _NAME.fullmatch(name):
        return None
    path = folder / name
    try:
        if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
            return None
        return os.open(path, _FLAGS)
    except OSError:
        return None


def make_part(album: Path, name: str) -> Path:
    """The folder `name` of an album, both made where they are not there; raises OSError."""
    make_folder(album)
    make_folder(album / name)
    return album / name
