"""What a run shows while it goes on."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass
from typing import TextIO

from ..commands.console import is_terminal, say

_BAR_WIDTH = 24
_PLAIN_INTERVAL_S = 2.0


class Report:
    """Hears of every node; this one says nothing. `progress` and `text` may come from any thread."""

    def started(self, node_id: str, class_type: str) -> None:
        """The node is about to run."""

    def progress(self, node_id: str, value: float, total: float) -> None:
        """The node has done `value` of `total`."""

    def text(self, node_id: str, text: str) -> None:
        """One line that the node says about itself."""

    def finished(self, node_id: str, seconds: float) -> None:
        """The node is through."""

    def close(self) -> None:
        """The run is over, well or not."""


@dataclass
class _Line:
    name: str
    fraction: float | None = None
    text: str = ""
    shown: str = ""
    at: float = float("-inf")


class TerminalReport(Report):
    """A line with a bar for each running node on a terminal; elsewhere a plain line now and then.

    A stream that takes nothing any more ends the report, not the run.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._live = is_terminal(stream)
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}
        self._drawn = 0

    def started(self, node_id: str, class_type: str) -> None:
        with self._lock:
            self._lines[node_id] = _Line(f"{node_id} {class_type}")
            self._show(node_id)

    def progress(self, node_id: str, value: float, total: float) -> None:
        with self._lock:
            if node_id in self._lines and total > 0:
                self._lines[node_id].fraction = min(max(value / total, 0.0), 1.0)
                self._show(node_id)

    def text(self, node_id: str, text: str) -> None:
        with self._lock:
            if node_id in self._lines:
                self._lines[node_id].text = " ".join(text.split())
                self._show(node_id)

    def finished(self, node_id: str, seconds: float) -> None:
        with self._lock:
            line = self._lines.pop(node_id)
            # what it said last tells more than that it ended
            self._redraw(f"{line.name}: {line.text}" if line.text else f"{line.name}: done in {seconds:.1f} s")

    def close(self) -> None:
        with self._lock:
            words = [(line, _worded(line, live=False)) for line in self._lines.values()]
            left = [wording for line, wording in words if self._live or (line.text and wording != line.shown)]
            self._lines.clear()
            self._redraw(*left)

    def _show(self, node_id: str) -> None:
        if self._live:
            self._redraw()
            return
        line = self._lines[node_id]
        now = time.monotonic()
        wording = _worded(line, live=False)
        if wording != line.shown and now - line.at >= _PLAIN_INTERVAL_S:
            line.shown, line.at = wording, now
            self._redraw(wording)

    def _redraw(self, *lasting: str) -> None:
        """Writes `lasting` for good and, on a terminal, the lines of the running nodes below it."""
        parts = [f"\x1b[{self._drawn}F\x1b[J"] if self._drawn else []
        parts += [f"{text}\n" for text in lasting]
        if self._live:
            columns = shutil.get_terminal_size().columns
            parts += [f"{_worded(line, live=True)[: columns - 1]}\n" for line in self._lines.values()]
            self._drawn = len(self._lines)
        say("".join(parts), self._stream, end="")


def _worded(line: _Line, live: bool) -> str:
    words = [line.name]
    if line.fraction is not None:
        filled = round(line.fraction * _BAR_WIDTH)
        bar = f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] " if live else ""
        words.append(f"{bar}{line.fraction:4.0%}" if live else f"{line.fraction:.0%}")
    if line.text:
        words.append(line.text)
    return "  ".join(words) if live else f"{words[0]}: {', '.join(words[1:]) or 'running'}"
