"""The command: plans, runs, tells."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any

from ..commands.console import harmless, open_console, parsed, say, tell, typed
from ..commands.named import WrongName, in_words, path_of, shown
from ..kontext.errors import KontextError, Stopped
from ..oxen.control import Control, Deadline
from ..oxen.errors import Interrupted, Misconfigured, OxenError, TimedOut
from ..oxen.jobs.locks import hold
from .arguments import parser
from .flags import flags_of, read_flag
from .journal import Journal, read_journal
from .made import PlannedRow, RowFailed, RunStopped
from .makers import Choice, Maker, Spending, chosen
from .manifest import SUFFIXES, read_manifest
from .meter import Meter
from .naming import WORK, folds_names
from .placing import Placer, cleared
from .planning import Asking, Counts, RowPlan
from .row_pool import RowPool
from .row_price import asked_price
from .source_rows import SourceError, SourceRow
from .walking import PATTERNS, walk

ALL, NONE, SOME, STOPPED = 0, 1, 3, 130
_STOP_MESSAGE = "The same command goes on where it was, and pays for nothing again."
_SET_UP = "Use a checkout's .venv/bin/python, which make demo sets up; elsewhere, install it."


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; gives its exit status: 0 all rows, 3 some, 1 none or a fault, 130 stopped."""
    open_console()
    options = parsed(parser(), arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        with _terminated_as_interrupted():
            return _Command(options).run()
    except (SourceError, WrongName, OxenError, KontextError, RunStopped) as error:
        say(harmless(str(error)), sys.stderr)
    except OSError as error:
        say(harmless(in_words(error)), sys.stderr)
    except sqlite3.Error as error:
        say(
            f"The plan of the rows cannot be kept in the folder for temporary files, {tempfile.gettempdir()}: {error}. "
            f"Make room there, or name another with TMPDIR. {_STOP_MESSAGE}",
            sys.stderr,
        )
    except ModuleNotFoundError as missing:
        say(f"This needs {missing.name}, which is not installed here. Nothing was sent. {_SET_UP}", sys.stderr)
    except KeyboardInterrupt:
        say(f"\nStopped. {_STOP_MESSAGE}", sys.stderr)
        return STOPPED
    return NONE


class _Command:
    """One call of the command: its folders, its plan, and what it says."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._flags = [read_flag(text) for text in options.flags]
        if options.prompt is not None:
            options.prompt = typed(options.prompt)
        self._source, self._images, self._is_folder = _source_of(options)
        self._results = path_of(options.output, "--output")
        _check_apart(self._results, self._source, self._is_folder)
        this, of = options.shard
        part = f"-{this}-of-{of}" if of > 1 else ""
        self._report = self._results / f"report{part}.jsonl"
        self._page = self._results / f"report{part}.html"
        self._work = self._results / f"{WORK}{part}"
        self._choice = chosen(options)

    def run(self) -> int:
        if self._options.dry_run:
            plan = self._planned()
            return ALL if tell(_plan_told(plan, self._counts(plan), self._choice)) else NONE
        self._results.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as alone:
            try:
                alone.enter_context(hold(self._work, "batch", Control(), Deadline(0)))
            except TimedOut:
                raise SourceError(f"Another batch is writing into {self._results}.") from None
            except Misconfigured as error:
                why = in_words(error.__cause__) if isinstance(error.__cause__, OSError) else str(error)
                raise SourceError(
                    f"Results cannot be written into {shown(self._results)}: {why} Name another folder with --output."
                ) from None
            return self._alone()

    def _alone(self) -> int:
        began = _began(cleared(self._work))
        plan = self._planned()
        before = self._counts(plan)
        say(_plan_told(plan, before, None), sys.stderr)
        stopped: RunStopped | None = None
        meter = Meter(before.left, plan.spent, sys.stderr)
        try:
            if before.left:
                self._made(plan, meter, began)
        except RunStopped as error:
            stopped = error
        finally:
            meter.close()
        if stopped is not None:
            say(str(stopped), sys.stderr)
        plan.read_report(read_journal(self._report))
        after = self._counts(plan)
        self._write_page(plan)
        tell(self._summary(plan, after, meter))
        if after.done == after.mine:
            return ALL
        return SOME if after.done else NONE

    def _planned(self) -> RowPlan:
        choice, options = self._choice, self._options
        folds = folds_names(self._work)
        asking = Asking(
            self._images, choice.by, choice.columns, choice.defaults(), options.whole_names, options.shard, folds
        )
        plan = RowPlan(asking)
        plan.read(self._rows(asking))
        plan.read_report(read_journal(self._report))
        if not options.replace:
            plan.refuse_strangers(self._results)
        counts = self._counts(plan)
        if not counts.all:
            patterns = " ".join(options.pattern or PATTERNS)
            raise SourceError(
                f"There is nothing in {shown(self._source)} that fits {patterns}."
                if self._is_folder
                else f"There is no row in {shown(self._source)}."
            )
        return plan

    def _rows(self, asking: Asking) -> Iterator[SourceRow]:
        if not self._is_folder:
            return read_manifest(self._source, asking.columns, asking.defaults)
        lacking = [name for name in asking.columns.needs if name not in asking.defaults]
        if lacking:
            raise SourceError(f"A folder says nothing but its pictures: give --{' and --'.join(lacking)}.")
        options = self._options
        return walk(self._source, options.pattern or PATTERNS, deep=not options.flat, skip=self._results)

    def _counts(self, plan: RowPlan) -> Counts:
        return plan.counts(self._results, again=self._options.retry_failed)

    def _made(self, plan: RowPlan, meter: Meter, began: float) -> None:
        usd = self._options.usd
        spending = Spending(None if usd is None else max(Decimal(0), usd - plan.spent), began)
        with contextlib.ExitStack() as opened:
            journal = Journal(self._report)
            opened.callback(journal.close)
            strange = None if self._options.replace else self._results
            placer = Placer(self._results, self._work, journal, lambda name: plan.is_taken(name, strange))
            maker = opened.enter_context(self._choice.maker(self._work, spending))
            meter.begins()
            rows = maker.arrange(plan.to_do(self._results, again=self._options.retry_failed))
            RowPool(rows, maker.width, lambda row: self._one(row, maker, placer, meter)).run(maker.stop)

    def _one(self, row: PlannedRow, maker: Maker, placer: Placer, meter: Meter) -> None:
        since = time.monotonic()
        try:
            made = _result(row, maker)
            flags = flags_of(self._flags, made.facts)
            with _writing():
                entry = placer.done(row, made, time.monotonic() - since, flags)
        except RowFailed as failure:
            with _writing():
                entry = placer.failed(row, failure, time.monotonic() - since)
        meter.ended(entry)

    def _write_page(self, plan: RowPlan) -> None:
        from .page import write_page

        if not self._report.exists():
            return
        summary = _standing(self._counts(plan), plan.spent)
        try:
            write_page(
                self._page,
                lambda: _last_entries(plan, self._report),
                results=self._results.resolve(),
                images=self._images.resolve(),
                summary=summary,
            )
        except OSError as error:
            say(f"The page could not be written: {in_words(error)}", sys.stderr)

    def _summary(self, plan: RowPlan, counts: Counts, meter: Meter) -> str:
        marked = f" {meter.flagged:,} of this run are marked." if meter.flagged else ""
        where = f" Report: {shown(self._report)}, {shown(self._page)}" if self._report.exists() else ""
        return f"{_standing(counts, plan.spent)}.{marked}{where}"


def _result(row: PlannedRow, maker: Maker) -> Any:
    """What a maker makes of a row; raises RowFailed for all that concerns this row alone."""
    from ..imaging.errors import ImageError

    if row.problem is not None:
        raise RowFailed(row.problem)
    try:
        return maker.make(row)
    except Stopped as error:
        raise Interrupted(str(error)) from None
    except (ImageError, KontextError) as error:
        raise RowFailed(str(error)) from error
    except OSError as error:
        raise RowFailed(in_words(error)) from error
    except MemoryError as error:
        raise RowFailed("There is too little memory left for this picture.") from error


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """What cannot be written now cannot be written for any row."""
    try:
        yield
    except OSError as error:
        raise RunStopped(f"Stopped: {in_words(error)} What was paid for is in the ledger. {_STOP_MESSAGE}") from error


def _source_of(options: argparse.Namespace) -> tuple[Path, Path, bool]:
    """The source, the folder of its pictures, and whether it is a folder itself."""
    path = path_of(options.source, "SOURCE")
    if path.is_dir():
        if options.images:
            raise SourceError("--images says where a list's pictures lie; SOURCE is a folder.")
        return path, path, True
    if not path.exists():
        raise SourceError(f"There is nothing at {shown(path)}, which SOURCE names.")
    if path.suffix.lower() not in SUFFIXES:
        raise SourceError(
            f"{shown(path)} is neither a folder nor a list ({', '.join(SUFFIXES)}). For one picture there is "
            "python -m kontext_bridge.edit."
        )
    if options.pattern or options.flat:
        raise SourceError("--pattern and --flat are about a folder; SOURCE is a list.")
    images = path.parent if options.images is None else path_of(options.images, "--images")
    if not images.is_dir():
        raise SourceError(f"There is no folder {shown(images)}, which --images names.")
    return path, images, False


def _check_apart(results: Path, given: Path, is_folder: bool) -> None:
    if is_folder and given.resolve().is_relative_to(results.resolve()):
        raise SourceError(f"The results would lie among the pictures of {shown(given)}. Name another --output.")
    if results.exists() and not results.is_dir():
        raise SourceError(f"{shown(results)}, which --output names, is no folder.")


def _began(work: Path) -> float:
    """When the batch began, in unix seconds; noted by its first run."""
    note = work / "began"
    try:
        return float(note.read_text())
    except (OSError, ValueError):
        note.write_text(str(now := time.time()))
        return now


def _last_entries(plan: RowPlan, report: Path) -> Iterator[Mapping[str, Any]]:
    wanted = plan.lines()
    number = next(wanted, None)
    for place, entry in enumerate(read_journal(report)):
        if place == number:
            yield entry
            number = next(wanted, None)


def _plan_told(plan: RowPlan, counts: Counts, choice: Choice | None) -> str:
    """What there is to do. choice: who does it, where it is a dry run and its price is to be told."""
    lines = [f"{counts.all:,} rows" + (f", {counts.mine:,} of them in this part" if counts.mine != counts.all else "")]
    lines += [f"{counts.done:,} are done already"] if counts.done else []
    lines += [f"{counts.over:,} failed before; --retry-failed tries them again"] if counts.over else []
    lines += [f"{counts.left:,} to do"]
    lines[-1] += f", {counts.gone:,} of them made before and gone from their place" if counts.gone else ""
    lines += [f"{counts.wrong:,} cannot be done, and cost nothing:"] if counts.wrong else []
    lines += [f"  {harmless(problem)}" for problem in plan.first_problems()] if counts.wrong else []
    if choice is not None:
        lines.append(_price_told(counts.left - counts.wrong, choice) + " Nothing was sent.")
    return "\n".join(lines)


def _price_told(rows: int, choice: Choice) -> str:
    if not choice.is_paid:
        return "They are made on this machine, and cost nothing."
    price = asked_price()
    if price is None:
        return "The price of an edit could not be learned."
    return (
        f"At most ${rows * price:.2f}, {rows:,} edits at ${price}, as it is published today; what the ledger has is "
        "not paid again."
    )


def _standing(counts: Counts, spent: Decimal) -> str:
    parts = [f"{counts.done:,} of {counts.mine:,} rows are done"]
    missing = counts.mine - counts.done
    parts += [f"{missing:,} not"] if missing else []
    parts += [f"${spent:.2f} paid"] if spent else []
    return ", ".join(parts)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, which job queues send, ends the run as Ctrl-C does; a second one kills."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
