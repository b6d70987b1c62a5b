"""How far a run of edits is, as one number and one line of text; and at its end what became of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from enum import Enum

from ..api.replies import JobStatus
from .ends import End, Fate, line, stopped_line


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
_UNSENT = (Stage.WAITING, Stage.LOOKING)
_BY_STATUS = {JobStatus.QUEUED: Stage.QUEUED, JobStatus.PROCESSING: Stage.PROCESSING}


class Progress:
    """The stages of a run's edits; written by its threads, read by whoever shows it.

    together: what shows several runs as one, of which this is one. keeps: whether an edit that came is not done before
    `kept` says so.
    """

    def __init__(self, edits: int, together: Together | None = None, *, keeps: bool = False) -> None:
        self._keeps = keeps
        self._stages = [Stage.WAITING] * edits
        self._ends: dict[int, End] = {}
        self._failure: End | None = None
        self._preparing: str | None = None
        self._afterword = ""
        self._together = together
        self._guard = threading.Lock()
        self._since = time.monotonic()
        if together is not None:
            together.joined(self)

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

    def preparing(self, what: str | None) -> None:
        """What is done before or after the edits, which is told in place of how far they are; None for nothing."""
        self._preparing = what
        if self._together is not None:
            self._together.preparing(what)

    def remark(self, text: str) -> None:
        """What stands before the last line, where something besides the edits has to be known."""
        self._afterword = text
        if self._together is not None:
            self._together.remark(text)

    def ended(self, index: int, end: End) -> None:
        """What became of one edit; the last word on it counts."""
        with self._guard:
            self._ends[index] = end

    def has_end(self, index: int) -> bool:
        with self._guard:
            return index in self._ends

    def failed(self, error: Exception) -> None:
        """The run was ended by an error; it is what became of all edits that have no end of their own.

        Of none if all have failed already; of the run as a whole if none has, or all came and were not handed on.
        """
        end = End.of_error(error)
        with self._guard:
            missing = [index for index in range(len(self._stages)) if index not in self._ends]
            if self._ends and missing:
                self._ends.update((index, end) for index in missing)
            elif missing or all(one.fate not in (Fate.FAILED, Fate.RUNS_ON) for one in self._ends.values()):
                self._failure = end

    @property
    def failure(self) -> End | None:
        """What ended the run as a whole."""
        return self._failure

    def ends(self, under_way: Fate = Fate.RUNS_ON) -> list[End]:
        """What became of the edits. under_way: of those that were sent and have not ended yet."""
        with self._guard:
            if self._failure is not None:
                return [self._failure] * len(self._stages)
            return [
                self._ends.get(index, End(Fate.NOT_SENT if stage in _UNSENT else under_way))
                for index, stage in enumerate(self._stages)
            ]

    def last_text(self) -> str:
        """What became of the run, in one line."""
        return self._remarked(
            line(self.ends(), self.seconds) if self.failure is None else line([self.failure], self.seconds)
        )

    def _remarked(self, text: str) -> str:
        return f"{self._afterword} · {text}" if self._afterword else text

    def stopped_text(self, *, cancelled: bool) -> str:
        """What became of a run that was stopped, as far as it is known. cancelled: at the service, too."""
        return self._remarked(
            stopped_line(self.ends(Fate.CANCELLING if cancelled else Fate.RUNS_ON), cancelled=cancelled)
        )

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
        if self._preparing:
            return self._preparing
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
        self._members: list[Progress] = []

    def joined(self, member: Progress) -> None:
        """Count the edits of a run that begins."""
        with self._guard:
            self._members.append(member)
            self._counts.update({Stage.WAITING: member.edits})

    def moved(self, change: Counter[Stage]) -> None:
        """Add to the counts, from any thread."""
        with self._guard:
            self._counts.update(change)

    def failed(self, error: Exception) -> None:
        """A run ended before it had any edits."""
        with self._guard:
            self._ends[len(self._ends)] = End.of_error(error)

    def ends(self, under_way: Fate = Fate.RUNS_ON) -> list[End]:
        with self._guard:
            members, more = list(self._members), list(self._ends.values())
        return [end for member in members for end in member.ends(under_way)] + more

    @property
    def failure(self) -> End | None:
        with self._guard:
            found = {*(member.failure for member in self._members), *self._ends.values()}
        return found.pop() if len(found) == 1 else None

    @property
    def counts(self) -> Counter[Stage]:
        with self._guard:
            return +self._counts
