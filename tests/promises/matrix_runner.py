"""Runs cells of the fault matrix, each against a stand-in of its own, and judges what came of them.

As a program: `matrix_runner.py FOLDER RESULTS.json SHARD SHARDS [all] [only=TEXT]...` runs one share of the cells, or
of those whose names hold the texts.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fault_cells import HUNG, KONTEXT, STAGE_NAMES, Action, Cell, Mode, Scene
from fault_rows import all_cells, chosen_cells
from kontext_bridge.standin.faults import Faults
from kontext_bridge.standin.records import Bill, Timing
from kontext_bridge.standin.server import StandIn
from matrix_judge import KEY, NEXT, PIECE, TWINS, Trial, alive, asks, files_with_a_piece, outcomes

__all__ = ["KEY", "PIECE", "TIMING", "Lane", "Result", "files_with_a_piece", "new_job", "run_shards", "table"]

LANES = 8
TIMING = Timing(queued_s=0.03, processing_s=0.06)
SHRINK = 8
RUN_LIMIT = 90.0
FIRST_LIMIT = 45.0  # for runs that are short of patience, or to be cancelled
SHORT_SECONDS, LONG_SECONDS = 1.5, 60.0
# US dollars a day: room for all that a cell is about, and none for a second picture where one is all there is to be.
LIMITS = {"edits": "10", "then": "0.05"}
_PORT_TRIES = 5
_ENDED_BY_THE_SERVICE = ("GenerationFailed", "GenerationCancelled", "JobOutOfCredits", "ModerationBlocked")


@dataclass(frozen=True)
class Result:
    """What came of a cell.

    outcome: "at once" (the stopped or troubled run itself delivered), "next run", "anew" (the service had failed or
    cancelled the job, the next run was billed in its stead), "asked anew" (no list settles what became of the edit:
    every next run said that it may be on the bill and sent nothing, until one was told to pay anew), or "broken" (see
    problems).
    reached: whether the run came to the stage at which it was to be stopped. may_ask: as in `Cell`.
    """

    cell: str
    row: str
    fault: str | None
    mode: str
    stage: str | None
    action: str | None
    outcome: str
    reached: bool
    may_ask: bool
    shown: int
    billed: int
    void: int
    delivered: int
    problems: tuple[str, ...]
    seen: tuple[str, ...]
    seconds: float


class Lane:
    """One process from which runs are forked, one after the other. program: what forks them, as `forking` has it."""

    def __init__(self, program: str = "fault_worker.py") -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, job: dict[str, Any]) -> Run:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Run(int(self._process.stdout.readline()), self._process.stdout.readline, Path(job.get("report", "")))

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


class Run:
    """One forked process. status: its exit status, once it has ended."""

    def __init__(self, pid: int, end: Callable[[], str], report: Path) -> None:
        self._pid = pid
        self._report = report
        self._ended = threading.Event()
        self.status: int | None = None
        threading.Thread(target=self._await_end, args=(end,), daemon=True).start()

    def _await_end(self, end: Callable[[], str]) -> None:
        self.status = int(end() or -signal.SIGKILL)
        self._ended.set()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def wait(self, seconds: float) -> bool:
        return self._ended.wait(seconds)

    def report(self, limit: float = RUN_LIMIT) -> dict[str, Any]:
        """What the run told; empty where it was killed."""
        if not self.wait(limit):
            self.send(signal.SIGKILL)
            self._ended.wait()
            return {"crash": f"the run did not end within {limit:g} s"}
        return json.loads(self._report.read_text()) if self._report.exists() else {}


def new_job(service: StandIn, folder: Path, number: int, **changes: Any) -> dict[str, Any]:
    """An order to `fault_worker`: one edit, waited for by polling, in the folder's user folder."""
    job = {
        "url": service.url,
        "key": KEY,
        "folder": str(folder / "user"),
        "mode": Mode.POLLING.value,
        "edits": [asdict(TWINS[0])],
        "then": [],
        "seconds": LONG_SECONDS,
        "short": False,
        "anew": False,
        "upload": False,
        "limits": {},
        "model": KONTEXT,
        "max_in_flight": 8,
        "clock": 0.0,
        "room": None,
        "rightless": False,
        "report": str(folder / f"run{number}.json"),
        "log": str(folder / f"run{number}.log"),
        "full": str(folder / f"run{number}.full"),
    }
    return job | changes


class Case:
    """One cell being run."""

    def __init__(self, cell: Cell, folder: Path, lane: Lane) -> None:
        self._cell = cell
        self._folder = folder
        self._lane = lane
        self._reports: list[dict[str, Any]] = []
        self._before: list[Bill] = []
        self._asked: frozenset[int] = frozenset()
        self._reached = cell.action is None

    def result(self) -> Result:
        since = time.monotonic()
        self._folder.mkdir(parents=True)
        cell, moment = self._cell, self._cell.moment
        switches: dict[str, Any] = {**(moment.switches if moment else {}), **cell.switches}
        with StandIn(Faults(**switches), TIMING, KEY, shrink=SHRINK) as service:
            self._first(service)
            if cell.fault is not None and not service.shown[cell.fault] and not cell.kept:
                self._reports.append(self._start(service, short=not cell.is_patient).report())
            kept = cell.kept or cell.is_unlisted
            service.set(
                **dict.fromkeys([name for name in cell.switches if not kept or name == "answer_dropped"], False)
            )
            if cell.fault in {"stuck", "stuck_queued"}:
                for job in service.jobs.values():
                    service.finish(job.id)
            self._later(service)
            return self._result(service, time.monotonic() - since)

    def _later(self, service: StandIn) -> None:
        """The runs after the first, until each edit is delivered or told to be paid anew."""
        self._reports.append(self._start(service).report())
        if any(outcome.get("error") in _ENDED_BY_THE_SERVICE for outcome in outcomes(self._reports[-1])):
            # what the run before never heard: the job failed; it has been told now, and the next is a new one
            self._reports.append(self._start(service).report())
        self._before = alive(service)
        last = outcomes(self._reports[-1])[: self._cell.pictures]
        self._asked = frozenset(number for number, outcome in enumerate(last) if asks(self._cell, outcome))
        if self._asked:
            # nothing more is sent by itself; the artist has been told how to have it made and paid anew
            self._reports.append(self._start(service, anew=True).report())

    def _start(self, service: StandIn, *, first: bool = False, short: bool = False, anew: bool = False) -> Run:
        cell, number = self._cell, len(self._reports)
        clock = cell.clock and (cell.clock.first if first else cell.clock.later)
        changes = {
            "mode": cell.mode.value,
            "edits": [asdict(wanted) for wanted in TWINS[: cell.pictures]],
            "then": [asdict(NEXT)] if first and cell.is_followed else [],
            "seconds": SHORT_SECONDS if short else LONG_SECONDS,
            "short": short,
            "anew": anew,
            "upload": cell.needs_upload,
            "model": cell.model,
            "limits": LIMITS if cell.needs_spend_limit else {},
            "max_in_flight": 1 if cell.stage == HUNG else 8,
            "clock": clock or 0.0,
            "room": cell.room if first else None,
        }
        return self._lane.start(new_job(service, self._folder, number, **changes))

    def _first(self, service: StandIn) -> None:
        """The run with the fault on, stopped at its moment where it has one."""
        moment, short = self._cell.moment, not self._cell.is_patient
        if moment is None:
            self._reports.append(self._start(service, first=True, short=short).report(FIRST_LIMIT))
            return
        if moment.held is not None:
            service.hold(moment.held)
        if moment.shut:
            service.refuse_connections()
        run = self._start(service, first=True, short=short)
        scene = Scene(service, self._folder / "user", self._cell.pictures)
        while not run.ended and not self._reached:
            self._reached = moment.reached(scene)
            time.sleep(0.004)
        self._stop(run)
        service.release()
        service.set(**dict.fromkeys(moment.switches, False))
        try:
            if moment.shut:
                service.accept_connections()
        finally:
            self._reports.append(run.report(FIRST_LIMIT))

    def _stop(self, run: Run) -> None:
        if self._cell.action is Action.FULL:
            run.send(signal.SIGUSR1)
            while not run.ended and not (self._folder / "run0.full").exists():
                time.sleep(0.004)
            return
        run.send(signal.SIGKILL if self._cell.action is Action.KILL else signal.SIGTERM)
        run.wait(0.25)

    def _result(self, service: StandIn, seconds: float) -> Result:
        cell = self._cell
        trial = Trial(cell, service, self._folder, self._reports, self._before, self._asked, self._reached)
        problems = trial.problems()
        bills, living = service.billed, alive(service)
        seen = [outcome.get("error", "") for report in self._reports for outcome in outcomes(report)[: cell.pictures]]
        return Result(
            cell=cell.name,
            row=cell.row,
            fault=cell.fault,
            mode=cell.mode.value,
            stage=cell.stage,
            action=cell.action.value if cell.action else None,
            outcome="broken" if problems else trial.outcome,
            reached=self._reached,
            may_ask=cell.may_ask,
            shown=service.shown[cell.fault] if cell.fault else 0,
            billed=len(bills),
            void=len(bills) - len(living),
            delivered=len(service.delivered & {bill.what for bill in living}),
            problems=tuple(problems),
            seen=tuple(seen),
            seconds=seconds,
        )


def _result_of(cell: Cell, folder: Path, lane: Lane) -> Result:
    """The cell's result; from the start again where another program took the port of a service that was shut."""
    for attempt in range(_PORT_TRIES):
        try:
            return Case(cell, folder / str(attempt), lane).result()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise RuntimeError(f"{cell.name}: the port was taken {_PORT_TRIES} times")


def run_cells(cells: Sequence[Cell], folder: Path, lanes: int = LANES) -> list[Result]:
    """Every cell's result, several at a time; what a broken cell wrote stays in `folder`."""
    waiting: queue.SimpleQueue[tuple[int, Cell]] = queue.SimpleQueue()
    for numbered in enumerate(cells):
        waiting.put(numbered)
    results: list[Result | None] = [None] * len(cells)
    failures: list[BaseException] = []

    def work() -> None:
        lane = Lane()
        try:
            while True:
                number, cell = waiting.get_nowait()
                at = folder / str(number)
                results[number] = result = _result_of(cell, at, lane)
                if not result.problems:
                    shutil.rmtree(at)
        except queue.Empty:
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            lane.close()

    threads = [threading.Thread(target=work) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [result for result in results if result is not None]


def run_shards(folder: Path, shards: int = 2, *options: str) -> list[Result]:
    """All cells, shared out to this many processes."""
    folder.mkdir(parents=True, exist_ok=True)
    outputs = [folder / f"results{number}.json" for number in range(shards)]
    processes = [
        subprocess.Popen([sys.executable, __file__, folder / str(number), output, str(number), str(shards), *options])
        for number, output in enumerate(outputs)
    ]
    statuses = [process.wait() for process in processes]
    if any(statuses):
        raise RuntimeError(f"a share of the matrix did not run through: {statuses}")
    return [_result(entry) for output in outputs for entry in json.loads(output.read_text())]


def _result(entry: dict[str, Any]) -> Result:
    lists = {"problems": tuple(entry["problems"]), "seen": tuple(entry["seen"])}
    return Result(**{**entry, **lists})


_SIGNS = {"at once": ".", "next run": "+", "anew": "n", "asked anew": "?", "broken": "X"}
_COLUMNS = (
    *(("nothing", mode.value) for mode in Mode),
    *((action.value, stage) for action in Action for stage in STAGE_NAMES),
    (Action.CANCEL.value, HUNG),
)


def table(results: Sequence[Result]) -> list[str]:
    """The matrix as lines of text: a row for each trouble, a sign for each cell, and the sums."""
    rows: dict[str, dict[tuple[str, str], str]] = {}
    for result in results:
        at = (result.action, result.stage) if result.action and result.stage else ("nothing", result.mode)
        cell = rows.setdefault(result.row, {})
        cell[at] = cell.get(at, "") + _SIGNS[result.outcome]
    width = max(len(name) for name in rows)
    sizes = {column: max([2, *(len(row.get(column, "")) for row in rows.values())]) for column in _COLUMNS}
    lines = ["columns: " + ", ".join(f"{n}={what} {where}" for n, (what, where) in enumerate(_COLUMNS, 1))]
    lines.append(" " * width + " " + " ".join(str(n).rjust(sizes[c]) for n, c in enumerate(_COLUMNS, 1)))
    for name, row in rows.items():
        signs = (row.get(column, "").rjust(sizes[column]) for column in _COLUMNS)
        lines.append(f"{name.ljust(width)} " + " ".join(signs))
    counts = Counter(result.outcome for result in results)
    lines.append(", ".join(f"{_SIGNS[name]} {name}: {counts[name]}" for name in _SIGNS))
    billed, void = sum(r.billed for r in results), sum(r.void for r in results)
    delivered = sum(r.delivered for r in results)
    asked = sum(r.billed - r.void - r.delivered for r in results if r.outcome == "asked anew")
    lines.append(
        f"{len(results)} cells, {sum(r.reached for r in results if r.action)} stopped at their stage; billed {billed}, "
        f"failed or cancelled by the service {void}, delivered {delivered}, "
        f"lost {billed - void - delivered - asked}, in doubt and paid anew on demand {asked}"
    )
    return lines


def main(arguments: list[str]) -> None:
    folder, output, shard, shards = Path(arguments[0]), Path(arguments[1]), int(arguments[2]), int(arguments[3])
    options = arguments[4:]
    cells = all_cells() if "all" in options else chosen_cells()
    only = [option.removeprefix("only=") for option in options if option.startswith("only=")]
    wanted = [cell for cell in cells if all(text in cell.name for text in only)]
    results = run_cells(wanted[shard::shards], folder)
    output.write_text(json.dumps([asdict(result) for result in results]))


if __name__ == "__main__":
    main(sys.argv[1:])
