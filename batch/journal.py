"""report.jsonl: a line for each row as it ends. After a run that was killed it is whole but for its last line."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LONGEST = 1 << 20


class Journal:
    """The report of one folder of results, opened to be written on; a torn last line is cut off first.

    Nothing is lost by that: a result is put in its place after its line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        _cut_torn(path)
        self._file = path.open("a", encoding="utf-8", newline="\n")

    def close(self) -> None:
        self._file.close()

    def write(self, entry: dict[str, Any]) -> None:
        """Add a line; it is with the system when this returns. Raises OSError."""
        text = json.dumps({name: value for name, value in entry.items() if value is not None})
        with self._guard:
            self._file.write(text + "\n")
            self._file.flush()


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a report, oldest first; nothing where there is none. What is no entry is passed over."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        while line := file.readline(_LONGEST):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and isinstance(entry.get("output"), str):
                yield entry


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
        if tail and not tail.endswith(b"\n"):
            file.truncate(start + tail.rfind(b"\n") + 1)
