"""The command: plans, runs, tells."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from ..commands.console import harmless, open_console, parsed, say, tell, typed
from ..commands.named import WrongName, in_words, path_of, shown
from ..kontext.errors import KontextError
from ..oxen.errors import OxenError
from .arguments import parser
from .asking import Asking
from .flags import marked, read_flag
from .journal import read_journal
from .made import RunStopped
from .makers import Choice, chosen
from .manifest import SUFFIXES, read_manifest
from .meter import Meter
from .naming import folds_names
from .owed import settle
from .planning import Counts, RowPlan
from .row_price import asked_price
from .running import GOES_ON, BatchRun, Places, RunWishes, not_planned
from .source_rows import SourceError, SourceRow
from .walking import PATTERNS, walk

ALL, NONE, SOME, STOPPED = 0, 1, 3, 130
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
        say(not_planned(error), sys.stderr)
    except ModuleNotFoundError as missing:
        say(f"This needs {missing.name}, which is not installed here. Nothing was sent. {_SET_UP}", sys.stderr)
    except KeyboardInterrupt:
        say(f"\nStopped. {GOES_ON}", sys.stderr)
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
        self._places = Places.below(path_of(options.output, "--output"), options.shard)
        _check_apart(self._places.results, self._source, self._is_folder)
        self._choice = chosen(options)

    def run(self) -> int:
        if self._options.dry_run:
            plan = self._planned()
            return (
                ALL if tell(_plan_told(plan, self._counts(plan), self._choice, self._options.rerun_flagged)) else NONE
            )
        with self._places.alone() as began:
            return self._alone(began)

    def _alone(self, began: float) -> int:
        plan, options = self._planned(), self._options
        run = BatchRun(
            self._places,
            plan,
            RunWishes(
                self._flags,
                options.usd,
                options.retry_failed,
                options.rerun_flagged,
                replaces=options.replace,
            ),
        )
        before = run.counts()
        say(_plan_told(plan, before, None), sys.stderr)
        meter = Meter(before.left, plan.spent, sys.stderr)
        stopped: RunStopped | None = None
        try:
            if before.left or before.marked:
                run.make(lambda spending: self._choice.maker(self._places.work, spending), meter, began)
            elif self._choice.is_paid:
                settle(run.spending(began))
        except RunStopped as error:
            stopped = error
        finally:
            meter.close()
        if stopped is not None:
            say(str(stopped), sys.stderr)
        after = run.counts()
        self._write_page(run, _standing(after, plan))
        tell(self._summary(plan, after))
        if after.done == after.mine:
            return ALL
        return SOME if after.done else NONE

    def _planned(self) -> RowPlan:
        choice, options = self._choice, self._options
        folds = folds_names(self._places.work)
        asking = Asking(
            self._images,
            choice.by,
            choice.columns,
            choice.defaults(),
            options.whole_names,
            options.shard,
            folds,
            choice.made_with(),
        )
        plan = RowPlan(asking, lambda entry: marked(self._flags, entry))
        plan.read(self._rows(asking))
        plan.read_report(read_journal(self._places.report))
        plan.refuse_overwriting(self._places.results, replaces=options.replace)
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
        return walk(self._source, options.pattern or PATTERNS, deep=not options.flat, skip=self._places.results)

    def _counts(self, plan: RowPlan) -> Counts:
        return plan.counts(self._places.results, again=self._options.retry_failed, tries=self._options.rerun_flagged)

    def _write_page(self, run: BatchRun, summary: str) -> None:
        if not self._places.report.exists():
            return
        try:
            run.write_page(self._images, summary)
        except OSError as error:
            say(f"The page could not be written: {in_words(error)}", sys.stderr)

    def _summary(self, plan: RowPlan, counts: Counts) -> str:
        flagged = f" {counts.flagged:,} of them are marked." if counts.flagged else ""
        report, page = self._places.report, self._places.page
        where = f" Report: {shown(report)}, {shown(page)}" if report.exists() else ""
        return f"{_standing(counts, plan)}.{flagged}{where}"


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


def _plan_told(plan: RowPlan, counts: Counts, choice: Choice | None, tries: int = 0) -> str:
    """What there is to do. choice: who does it, where it is a dry run and its price is to be told. tries: how many
    other seeds a marked row gets."""
    lines = [f"{counts.all:,} rows" + (f", {counts.mine:,} of them in this part" if counts.mine != counts.all else "")]
    lines += [f"{counts.done:,} are done already"] if counts.done else []
    lines += [f"{counts.marked:,} of them are marked, and are made again with another seed"] if counts.marked else []
    lines += [f"{counts.over:,} failed before; --retry-failed tries them again"] if counts.over else []
    lines += [f"{counts.left:,} to do"]
    lines[-1] += f", {counts.gone:,} of them made before and gone from their place" if counts.gone else ""
    lines += [f"{counts.wrong:,} cannot be done, and cost nothing:"] if counts.wrong else []
    lines += [f"  {harmless(problem)}" for problem in plan.first_problems()] if counts.wrong else []
    if choice is not None:
        rows = counts.left - counts.wrong
        lines.append(_price_told(rows + counts.tries, rows * tries, choice) + " Nothing was sent.")
    return "\n".join(lines)


def _price_told(edits: int, again: int, choice: Choice) -> str:
    """again: edits more, were every row that is still to be made marked by each seed."""
    if not choice.is_paid:
        return "They are made on this machine, and cost nothing."
    price = asked_price()
    if price is None:
        return "The price of an edit could not be learned."
    more = f" What is marked of the rows to do is made again, for ${again * price:.2f} at most." if again else ""
    return (
        f"At most ${edits * price:.2f}, {edits:,} edits at ${price}, as it is published today; what the ledger has is "
        f"not paid again.{more}"
    )


def _standing(counts: Counts, plan: RowPlan) -> str:
    parts = [f"{counts.done:,} of {counts.mine:,} rows are done"]
    missing = counts.mine - counts.done
    parts += [f"{missing:,} not"] if missing else []
    parts += [plan.spent_in_words] if plan.spent_in_words else []
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
