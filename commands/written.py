"""Files that a command writes: whole or not at all, and nothing is lost that nobody named."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# Seconds between tries to rename.
_PAUSES = (0.05, 0.1, 0.2, 0.4)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in the place of what was there; where that fails, as on a full disk, what was there stays.

    A link stays one, and permissions stay. What is no real file, and a file in a folder that takes no others, is
    written as it stands. Raises OSError, which names the path.
    """
    with _named(path):
        real = Path(os.path.realpath(path))
        there = real.exists()
        if (there and not real.is_file()) or not os.access(real.parent, os.W_OK):
            real.write_bytes(data)
            return
        with tempfile.TemporaryDirectory(prefix=".", dir=real.parent) as folder:
            draft = Path(folder) / real.name
            draft.write_bytes(data)
            if there:
                shutil.copymode(real, draft)
            _rename(draft, real)


def _rename(draft: Path, path: Path) -> None:
    for pause in _PAUSES if sys.platform == "win32" else ():
        try:
            draft.replace(path)
            return
        # A virus scanner has one of them open, and is soon through.
        except PermissionError:
            time.sleep(pause)
    draft.replace(path)


def write_new(path: Path, data: bytes) -> Path:
    """Write a file whose name nobody asked for: under the first of `free_names`, which it gives.

    Raises OSError, which names the file, and leaves no torn one.
    """
    names = free_names(path)
    while True:
        name = next(names)
        with _named(name), contextlib.suppress(FileExistsError), name.open("xb") as file:
            try:
                file.write(data)
                file.flush()
            except BaseException:
                with contextlib.suppress(OSError):
                    name.unlink()
                raise
            return name


def free_names(path: Path) -> Iterator[Path]:
    """The path, then NAME_2 and so on: those of them that name nothing yet."""
    for number in itertools.count(1):
        name = path if number == 1 else path.with_stem(f"{path.stem}_{number}")
        if not os.path.lexists(name):  # a link that leads nowhere is something, too
            yield name


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """A write to an open file tells no name: has errors tell the one that was asked for."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
