"""How far a batch is: rate, time left, dollars so far."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TextIO

from ..commands.console import harmless, is_terminal, say
from .made import DONE

_PLAIN_SECONDS = 10.0
_LIVE_SECONDS = 0.2
# Of the last so many rows is the rate, so that it follows what changes.
_REMEMBERED = 500
# Of rows that fail so many are told at once; all are in the report.
_TOLD = 5


class Meter:
    """One line on a terminal, drawn again in place; elsewhere a line now and then. Told from any thread.

    left: rows to do. spent: US dollars of the batch so far. what: what rows are called.
    """

    def __init__(self, left: int, spent: Decimal, stream: TextIO | None, what: str = "rows") -> None:
        self._left = left
        self._what = what
        self._stream = stream
        self._live = is_terminal(stream)
        self._guard = threading.Lock()
        self._since = time.monotonic()
        self._ends: deque[float] = deque(maxlen=_REMEMBERED)
        self._shown = self._since if not self._live else float("-inf")
        self._is_drawn = False
        self.done = self.failed = 0
        self.spent = spent

    def more(self, rows: int) -> None:
        """So many rows are made once more."""
        with self._guard:
            self._left += rows

    def begins(self) -> None:
        """The first row is begun now; until then a model was loaded."""
        self._since = time.monotonic()

    def ended(self, entry: Mapping[str, Any]) -> None:
        """A row has ended with this line of the report."""
        with self._guard:
            if entry["state"] == DONE:
                self.done += 1
            else:
                self.failed += 1
                if self.failed <= _TOLD:
                    self._say(harmless(f"{entry['where']}: {entry['error']}"))
            if entry.get("paid"):
                self.spent += Decimal(str(entry.get("cost_usd") or 0))
            now = time.monotonic()
            self._ends.append(now)
            if now - self._shown >= (_LIVE_SECONDS if self._live else _PLAIN_SECONDS):
                self._shown = now
                self._draw()

    def close(self) -> None:
        with self._guard:
            if self.done + self.failed:
                self._draw()
            if self._is_drawn:
                say("", self._stream)

    @property
    def fraction(self) -> float:
        """0 to 1."""
        return (self.done + self.failed) / max(1, self._left)

    @property
    def text(self) -> str:
        """For example "120 of 1,000 rows · 2 failed · 24.1 rows/s · 37 s left · $4.80"."""
        ended = self.done + self.failed
        rate = self._rate()
        parts = [f"{ended:,} of {self._left:,} {self._what}"]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{rate:.2f} {self._what}/s", f"{_duration((self._left - ended) / rate)} left"] if rate else []
        parts += [f"${self.spent:.2f}"] if self.spent else []
        return " · ".join(parts)

    def _rate(self) -> float:
        first = self._ends[0] if len(self._ends) == _REMEMBERED else self._since
        passed = time.monotonic() - first
        return len(self._ends) / passed if passed > 0 else 0.0

    def _say(self, text: str) -> None:
        """A line for good, above the one that is drawn again."""
        say(f"\r\x1b[K{text}" if self._live else text, self._stream)

    def _draw(self) -> None:
        if self._live:
            say(f"\r\x1b[K{self.text}", self._stream, end="")
            self._is_drawn = True
        else:
            say(self.text, self._stream)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
