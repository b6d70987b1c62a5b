"""A batch carried out in its folder: from a plan to results, a report and a page. It prints nothing itself.

The command runs it, and so does the node Kontext Edit Folder.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..commands.named import in_words, shown
from ..kontext.errors import KontextError, Stopped
from ..oxen.control import Control, Deadline
from ..oxen.errors import Interrupted, Misconfigured, TimedOut
from ..oxen.jobs.locks import hold
from .flags import Flag, flags_of
from .journal import Journal, read_journal
from .made import PlannedRow, RowFailed, RowResult, RunStopped
from .meter import Meter
from .naming import WORK
from .placing import Placer, cleared
from .planning import Counts, RowPlan
from .row_maker import Maker, Spending
from .row_pool import RowPool
from .source_rows import SourceError, Unwritable

GOES_ON = "The same command goes on where it was, and pays for nothing again."


def not_planned(error: sqlite3.Error, goes_on: str = GOES_ON) -> str:
    """What became of a run whose plan SQLite could not keep."""
    folder = tempfile.gettempdir()
    return (
        f"The plan of the rows cannot be kept in the folder for temporary files, {folder}: {error}. Make room there, "
        f"or name another with TMPDIR. {goes_on}"
    )


@dataclass(frozen=True)
class Places:
    """Where a batch writes. work: a folder of its own for what is not whole yet."""

    results: Path
    report: Path
    page: Path
    work: Path

    @classmethod
    def below(cls, results: Path, shard: tuple[int, int] = (1, 1)) -> Places:
        this, of = shard
        part = f"-{this}-of-{of}" if of > 1 else ""
        return cls(results, results / f"report{part}.jsonl", results / f"report{part}.html", results / f"{WORK}{part}")

    @contextlib.contextmanager
    def alone(self, control: Control | None = None, seconds: float = 0.0) -> Iterator[float]:
        """Keep every other batch away for the length of a with block; gives when this one began, in unix seconds.

        Raises SourceError where another does not end within `seconds`, Interrupted, OSError.
        """
        self.results.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(hold(self.work, "batch", control or Control(), Deadline(seconds)))
            except TimedOut:
                raise SourceError(f"Another batch is writing into {self.results}.") from None
            except Misconfigured as error:
                why = in_words(error.__cause__) if isinstance(error.__cause__, OSError) else str(error)
                raise Unwritable(
                    f"Results cannot be written into {shown(self.results)}: {why}",
                    "Name another folder with --output.",
                ) from None
            yield _began(cleared(self.work))


@dataclass(frozen=True)
class RunWishes:
    """What is wanted of a run besides the plan. again: rows that failed at the service are tried again. tries: so many
    other seeds a row gets as long as a flag marks it. replaces: files in the results' folder may be
    written over. goes_on: what is said of a run that could not write."""

    flags: Sequence[Flag] = ()
    usd: Decimal | None = None
    again: bool = False
    tries: int = 0
    replaces: bool = False
    goes_on: str = GOES_ON


class BatchRun:
    """One run of a batch, alone in its places."""

    def __init__(self, places: Places, plan: RowPlan, wishes: RunWishes | None = None) -> None:
        self._places = places
        self._plan = plan
        self._wishes = wishes or RunWishes()

    def counts(self) -> Counts:
        return self._plan.counts(self._places.results, again=self._wishes.again, tries=self._wishes.tries)

    def make(self, maker_of: Callable[[Spending], Maker], meter: Meter, began: float) -> None:
        """Make what is left, and take what came of it into the plan. began: as `Places.alone` gives it.

        Raises RunStopped where no further row can succeed, Interrupted, and what `maker_of` raises.
        """
        spending = self.spending(began)
        try:
            with contextlib.ExitStack() as opened:
                journal = Journal(self._places.report)
                opened.callback(journal.close)
                strange = None if self._wishes.replaces else self._places.results
                placer = Placer(
                    self._places.results,
                    self._places.work,
                    journal,
                    lambda name: self._plan.is_taken(name, strange),
                )
                maker = opened.enter_context(maker_of(spending))
                meter.begins()
                self._side_by_side(
                    self._plan.to_do(self._places.results, again=self._wishes.again), maker, placer, meter
                )
                for _ in range(self._wishes.tries):
                    self._plan.read_report(read_journal(self._places.report))
                    if not (marked := self.counts().marked):
                        break
                    meter.more(marked)
                    self._side_by_side(
                        self._plan.to_try(self._places.results, self._wishes.tries), maker, placer, meter
                    )
        finally:
            self._plan.read_report(read_journal(self._places.report))

    def spending(self, began: float) -> Spending:
        """What may be spent, and what the report tells of. began: as in `make`."""
        usd = self._wishes.usd
        return Spending(
            None if usd is None else max(Decimal(0), usd - self._plan.spent - self._plan.perhaps),
            began,
            self._plan.tells_of,
            lambda generation_id: self._plan.has_placed(generation_id, self._places.results),
        )

    def _side_by_side(self, rows: Iterator[PlannedRow], maker: Maker, placer: Placer, meter: Meter) -> None:
        RowPool(maker.arrange(rows), maker.width, lambda row: self._one(row, maker, placer, meter)).run(maker.stop)

    def entries(self) -> Iterator[Mapping[str, Any]]:
        """The last line of every row in the report, as the plan has taken it in."""
        wanted = self._plan.lines()
        number = next(wanted, None)
        for place, entry in enumerate(read_journal(self._places.report)):
            if place == number:
                yield entry
                number = next(wanted, None)

    def write_page(self, images: Path, summary: str) -> None:
        """Write report.html. images: where the pictures' paths begin. Raises OSError."""
        from .page import write_page

        places = self._places
        write_page(
            places.page, self.entries, results=places.results.resolve(), images=images.resolve(), summary=summary
        )

    def _one(self, row: PlannedRow, maker: Maker, placer: Placer, meter: Meter) -> None:
        since = time.monotonic()
        try:
            made = _result(row, maker)
            flags = flags_of(self._wishes.flags, made.facts)
            with self._writing():
                entry = placer.done(row, made, time.monotonic() - since, flags)
        except RowFailed as failure:
            with self._writing():
                entry = placer.failed(row, failure, time.monotonic() - since)
        meter.ended(entry)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What cannot be written now cannot be written for any row."""
        try:
            yield
        except OSError as error:
            raise RunStopped(
                f"Stopped: {in_words(error)} What was paid for is in the ledger. {self._wishes.goes_on}"
            ) from error


def _result(row: PlannedRow, maker: Maker) -> RowResult:
    """What a maker makes of a row; raises RowFailed for all that concerns this row alone."""
    from ..imaging.errors import ImageError

    if row.problem is not None:
        raise RowFailed(row.problem)
    try:
        _check_same(row)
        made = maker.make(row)
        # by its size the next run knows the result: it must not stand for a picture that it was not made of
        _check_same(row)
        return made
    except Stopped as error:
        raise Interrupted(str(error)) from None
    except (ImageError, KontextError) as error:
        raise RowFailed(str(error)) from error
    except OSError as error:
        raise RowFailed(in_words(error)) from error
    except MemoryError as error:
        raise RowFailed("There is too little memory left for this picture.") from error


def _check_same(row: PlannedRow) -> None:
    """Raise RowFailed where the row's picture is no more the one that was planned; OSError where there is none."""
    if row.size is not None and row.path.stat().st_size != row.size:
        raise RowFailed(
            f"{row.image} was changed while the batch ran. The next run edits it as it is then; what was paid for "
            "stays in the ledger."
        )


def _began(work: Path) -> float:
    """When the batch began, in unix seconds; noted by its first run."""
    note = work / "began"
    try:
        return float(note.read_text())
    except (OSError, ValueError):
        note.write_text(str(now := time.time()))
        return now
