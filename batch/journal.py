"""report.jsonl: a line for each row as it ends. After a run that was killed it is whole but for its last line."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .made import DONE, FAILED

_LONGEST = 1 << 20


class Journal:
    """The report of one folder of results, opened to be written on; a torn last line is cut off first, and one that
    an editor took the line break from gets it again.

    Nothing is lost by that: a result is put in its place after its line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        _cut_torn(path)
        self._file = path.open("a", encoding="utf-8", newline="\n")

    def close(self) -> None:
        # a line that could not be written was told of when it was; what is left of it would fail once more
        with contextlib.suppress(OSError):
            self._file.close()

    def write(self, entry: dict[str, Any]) -> None:
        """Add a line; it is on the disk when this returns, so that no result stands without its line after the plug
        was pulled. Raises OSError."""
        text = json.dumps({name: value for name, value in entry.items() if value is not None})
        with self._guard:
            self._file.write(text + "\n")
            self._file.flush()
        os.fsync(self._file.fileno())


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a report, oldest first; nothing where there is none. What is no entry is passed over."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        while line := file.readline(_LONGEST):
            if (entry := _entry_in(line)) is not None:
                yield entry


def _entry_in(line: bytes) -> dict[str, Any] | None:
    """A line's entry, with what all that read one need; None for anything else, as reports are edited by hand, too."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or entry.get("state") not in (DONE, FAILED):
        return None
    output = entry.get("output")
    return entry if isinstance(output, str) and _is_name(output) else None


def _is_name(text: str) -> bool:
    """Whether a text can be a result's: such a one has no half of a character and no control character in it."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def _cut_torn(path: Path) -> None:
    try:
        file = path.open("rb+")
    except FileNotFoundError:
        return
    with file:
        end = file.seek(0, 2)
        start = max(0, end - _LONGEST)
        file.seek(start)
        tail = file.read()
        if not tail or tail.endswith(b"\n"):
            return
        begins = tail.rfind(b"\n") + 1
        if _entry_in(tail[begins:]) is None:
            file.truncate(start + begins)
        else:
            file.write(b"\n")
