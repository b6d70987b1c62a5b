"""How far a run of edits is, as one number and one line of text."""

from __future__ import annotations

import threading
import time
from collections import Counter
from enum import Enum

from ..api.replies import JobStatus


class Stage(Enum):
    """Where one edit stands, with the share of the bar that it has earned by then.

    The service tells no percentage, so the bar moves by stage and nothing in it is guessed.
    """

    WAITING = ("waiting", 0.0)
    LOOKING = ("looking up a request that was cut off", 0.02)
    SENDING = ("sending", 0.05)
    QUEUED = ("queued", 0.15)
    PROCESSING = ("processing", 0.35)
    DOWNLOADING = ("downloading", 0.85)
    KEEPING = ("keeping what was not edited", 0.9)
    SUBMITTED = ("submitted", 1.0)
    DONE = ("done", 1.0)
    FAILED = ("failed", 1.0)

    def __init__(self, word: str, share: float) -> None:
        self.word = word
        self.share = share


# In which order those that have not ended well are told.
_TOLD = (
    Stage.FAILED,
    Stage.KEEPING,
    Stage.DOWNLOADING,
    Stage.PROCESSING,
    Stage.QUEUED,
    Stage.SENDING,
    Stage.LOOKING,
    Stage.WAITING,
)
_BY_STATUS = {JobStatus.QUEUED: Stage.QUEUED, JobStatus.PROCESSING: Stage.PROCESSING}


class Progress:
    """The stages of a run's edits; written by its threads, read by whoever shows it.

    together: what shows several runs as one, of which this is one. keeps: whether an edit that came is not done before
    `kept` says so.
    """

    def __init__(self, edits: int, together: Together | None = None, *, keeps: bool = False) -> None:
        self._keeps = keeps
        self._stages = [Stage.WAITING] * edits
        self._together = together
        if together is not None:
            together.moved(Counter({Stage.WAITING: edits}))
        self._guard = threading.Lock()
        self._since = time.monotonic()

    def at(self, index: int, stage: Stage) -> None:
        """Move one edit on; it never moves back, so that the bar does not."""
        self._move(index, Stage.KEEPING if self._keeps and stage is Stage.DONE else stage)

    def kept(self, index: int) -> None:
        """An edit was laid back onto its picture, or handed on as it came."""
        self._move(index, Stage.DONE)

    def _move(self, index: int, stage: Stage) -> None:
        with self._guard:
            before = self._stages[index]
            if stage.share < before.share:
                return
            self._stages[index] = stage
            if self._together is not None:
                change = Counter({stage: 1})
                change[before] -= 1
                self._together.moved(change)

    def at_status(self, index: int, status: JobStatus) -> None:
        stage = _BY_STATUS.get(status)
        if stage is not None:
            self.at(index, stage)

    @property
    def edits(self) -> int:
        return len(self._stages)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._since

    @property
    def fraction(self) -> float:
        """0 to 1; 1 only when every edit has ended."""
        counts = self.counts
        return sum(stage.share * count for stage, count in counts.items()) / max(1, sum(counts.values()))

    @property
    def counts(self) -> Counter[Stage]:
        """How many edits stand where."""
        with self._guard:
            return Counter(self._stages)

    @property
    def text(self) -> str:
        """For example "2 of 8 done · 5 processing · 1 queued · 12 s"."""
        counts = self.counts
        total = sum(counts.values())
        seconds = f"{self.seconds:.0f} s"
        if total == 1:
            return f"{next(iter(counts)).word} · {seconds}"
        ended = Stage.SUBMITTED if counts[Stage.SUBMITTED] else Stage.DONE
        parts = [f"{counts[ended]} of {total} {ended.word}"]
        parts += [f"{counts[stage]} {stage.word}" for stage in _TOLD if counts[stage]]
        return " · ".join([*parts, seconds])


class Together(Progress):
    """The edits of several runs of a node as one."""

    def __init__(self) -> None:
        super().__init__(0)
        self._counts: Counter[Stage] = Counter()

    def moved(self, change: Counter[Stage]) -> None:
        """Add to the counts, from any thread."""
        with self._guard:
            self._counts.update(change)

    @property
    def counts(self) -> Counter[Stage]:
        with self._guard:
            return +self._counts
