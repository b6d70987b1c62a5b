"""A folder as a stream of rows: one directory entry at a time, whatever there are."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ..commands.named import in_words
from .naming import WORK
from .source_rows import SourceError, SourceRow

PATTERNS = ("*.png", "*.jpg", "*.jpeg", "*.webp", "*.gif")


def walk(
    root: Path, patterns: Sequence[str] = PATTERNS, *, deep: bool = True, skip: Path | None = None
) -> Iterator[SourceRow]:
    """The pictures below a folder whose names fit one of the patterns, in the order in which the disk gives them.

    A pattern with a slash is held against the whole path from `root`, another against the name; upper and lower case
    are the same, and so are the two ways in which disks write a letter such as é. Hidden files and folders, `skip`, and
    the results of other batches are passed over, and links to folders are not followed, as they may lead in a circle.
    Raises SourceError for a folder that cannot be read.
    """
    wanted = [_folded(pattern) for pattern in patterns]
    number = 0
    for name in _files(root, deep, skip):
        if any(fnmatchcase(_folded(name if "/" in one else name.rpartition("/")[2]), one) for one in wanted):
            number += 1
            yield _row(number, name)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()


def _row(number: int, name: str) -> SourceRow:
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = name.encode("utf-8", "backslashreplace").decode()
        return SourceRow(number, shown, shown, problem="Its name is no text that can be written down; rename the file.")
    return SourceRow(number, name, name)


def _files(root: Path, deep: bool, skip: Path | None) -> Iterator[str]:
    """The paths of all files from root, with slashes. Only folders still to be read are remembered."""
    passed = None if skip is None else os.path.realpath(skip)
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            if folder and _holds_results(root / folder):
                continue
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if deep and os.path.realpath(entry.path) != passed:
                            folders.append(name)
                    elif _is_file(entry):
                        yield name
        except OSError as error:
            raise SourceError(f"A folder of the source cannot be read: {in_words(error)}") from None


def _holds_results(folder: Path) -> bool:
    """Whether a batch writes into a folder: its results are no pictures to edit beside the others."""
    with os.scandir(folder) as entries:
        return any(entry.name.startswith(WORK) for entry in entries)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself; one that leads nowhere is no file either
        return False
