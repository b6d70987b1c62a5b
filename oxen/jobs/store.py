"""The pictures' files: private, whole or not there at all, and under names that are never used again."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..private_files import PART, PRIVATE_FOLDER, make_folder, make_private, write_durably

# No file takes this long to write, so that an older one has lost its writer.
_TORN_SECONDS = 3600.0


class Store:
    """The files of one folder, which is made when it is first written to.

    A file's name begins with its owner's `stem`; the owners' stems differ. Every method raises OSError.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.is_dir():
            make_private(folder, PRIVATE_FOLDER)

    def write(self, stem: str, suffix: str, data: bytes) -> str:
        """Write a file whole, have it on the disk before returning, and return its name.

        The same bytes again keep the file that is there; other bytes get another name, and no file is written over.
        """
        make_folder(self.folder)
        for name in _names(stem, suffix):
            path = self.folder / name
            if path.exists():
                if path.stat().st_size == len(data) and path.read_bytes() == data:
                    break
                continue
            write_durably(path, data)
            break
        return name

    def read(self, name: str) -> bytes | None:
        """A file's bytes, None where it is gone."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def find(self, stem: str, suffix: str) -> str | None:
        """The name of the last file that was written for this owner, None where there is none."""
        written = itertools.takewhile(lambda name: (self.folder / name).exists(), _names(stem, suffix))
        return next(iter(deque(written, maxlen=1)), None)

    def any(self, stem: str) -> str | None:
        """The name of a file of this owner, whatever it ends in; None where there is none."""
        return next((path.name for path in sorted(self.folder.glob(f"{stem}.*")) if path.suffix != PART), None)

    def names(self) -> list[str]:
        """The names of all whole files of owners, which are numbers; a desktop leaves others in any folder."""
        return [path.name for path in self.folder.glob("[0-9]*") if path.suffix != PART and path.is_file()]

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; one that stays, as Windows keeps what another program shows, is told after all others went."""
        stayed: OSError | None = None
        for name in names:
            try:
                (self.folder / name).unlink(missing_ok=True)
            except OSError as error:
                stayed = error
        if stayed is not None:
            raise stayed

    def remove_torn(self) -> None:
        """Remove what runs that were killed while writing a file left behind."""
        for path in self.folder.glob("*" + PART):
            with contextlib.suppress(FileNotFoundError, PermissionError):  # somebody else removes or reads it
                if time.time() - path.stat().st_mtime > _TORN_SECONDS:
                    path.unlink()


def _names(stem: str, suffix: str) -> Iterator[str]:
    """The names that an owner's files get, one after the other."""
    yield f"{stem}.{suffix}"
    for number in itertools.count(2):
        yield f"{stem}-{number}.{suffix}"
