"""Runs cells of the fault matrix, each against a stand-in of its own, and judges what came of them.

As a program: `matrix_runner.py FOLDER RESULTS.json SHARD SHARDS [all]` runs one share of the cells.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fault_cells import STAGE_NAMES, Action, Cell, Mode, Scene, all_cells, chosen_cells
from kontext_bridge.oxen import errors
from kontext_bridge.standin.faults import NAMES, Fault, Faults
from kontext_bridge.standin.records import Bill, Job, Status, Timing
from kontext_bridge.standin.server import StandIn

KEY = "SFMyNTY.g2gDdAAAAAF3BGRhdGFtAAAABHVzZXI.Zq81mvXKtUcW-0bLrNpEyHfoJd93TixA"
PIECE = 12
LANES = 8
TIMING = Timing(queued_s=0.03, processing_s=0.06)
RUN_LIMIT = 90.0
SHORT_SECONDS, LONG_SECONDS = 1.5, 60.0
DOCUMENTED = frozenset(
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.OxenError)
) - {"OxenError", "GenerationError", "ReplyError"}
_PORT_TRIES = 5
_ENDED_BY_THE_SERVICE = ("GenerationFailed", "GenerationCancelled", "JobOutOfCredits", "ModerationBlocked")


@dataclass(frozen=True)
class Result:
    """What came of a cell.

    outcome: "at once" (the stopped or troubled run itself delivered), "next run", "anew" (the service had failed or
    cancelled the job, the next run was billed in its stead), "asked anew" (the service lists no such edit: every next
    run said that it may be on the bill and sent nothing, until one was told to pay anew), or "broken" (see problems).
    reached: whether the run came to the stage at which it was to be stopped.
    """

    cell: str
    fault: str | None
    mode: str
    stage: str | None
    action: str | None
    outcome: str
    reached: bool
    shown: int
    billed: int
    void: int
    delivered: int
    problems: tuple[str, ...]
    seen: tuple[str, ...]
    seconds: float


class Lane:
    """One process from which runs are forked, one after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fault_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, job: dict[str, Any]) -> Run:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Run(int(self._process.stdout.readline()), self._process.stdout.readline, Path(job["report"]))

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


class Run:
    """One forked process."""

    def __init__(self, pid: int, end: Callable[[], str], report: Path) -> None:
        self._pid = pid
        self._report = report
        self._ended = threading.Event()
        threading.Thread(target=lambda: (end(), self._ended.set()), daemon=True).start()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def wait(self, seconds: float) -> bool:
        return self._ended.wait(seconds)

    def report(self) -> dict[str, Any]:
        """What the run told; empty where it was killed."""
        if not self.wait(RUN_LIMIT):
            self.send(signal.SIGKILL)
            self._ended.wait()
            return {"crash": f"the run did not end within {RUN_LIMIT:g} s"}
        return json.loads(self._report.read_text()) if self._report.exists() else {}


class Case:
    """One cell being run."""

    def __init__(self, cell: Cell, folder: Path, lane: Lane) -> None:
        self._cell = cell
        self._folder = folder
        self._lane = lane
        self._reports: list[dict[str, Any]] = []
        self._billed_unasked = 0
        self._asked_anew = False
        self._reached = cell.action is None

    def result(self) -> Result:
        since = time.monotonic()
        self._folder.mkdir(parents=True)
        cell, moment = self._cell, self._cell.moment
        switches: dict[str, Any] = dict(moment.switches) if moment else {}
        if cell.fault is not None:
            value = 100 if cell.fault == "body_limit" else True  # bytes, below which no request stays
            switches[cell.fault] = Fault(value, times=1 if cell.once else None)
        with StandIn(Faults(**switches), TIMING, KEY) as service:
            self._first(service)
            if cell.fault is not None and not service.shown[cell.fault]:
                self._reports.append(self._start(service, short=True).report())
            if cell.fault is not None and not cell.is_unlisted:
                service.set(**{cell.fault: False})
            if cell.fault in {"stuck", "stuck_queued"}:
                for job in service.jobs.values():
                    service.finish(job.id)
            self._reports.append(self._start(service, short=False).report())
            if self._reports[-1].get("error") in _ENDED_BY_THE_SERVICE:
                # what the run before never heard: the job failed; it has been told now, and the next is a new one
                self._reports.append(self._start(service, short=False).report())
            self._billed_unasked = len(_alive(service))
            if self._reports[-1].get("error") == "OutcomeUnknown":
                # nothing more is sent by itself; the artist has been told how to have it made and paid anew
                self._asked_anew = True
                self._reports.append(self._start(service, short=False, anew=True).report())
            return self._judge(service, time.monotonic() - since)

    def _start(self, service: StandIn, *, short: bool, anew: bool = False) -> Run:
        number = len(self._reports)
        cell = self._cell
        job = {
            "url": service.url,
            "key": KEY,
            "folder": str(self._folder / "user"),
            "mode": cell.mode.value,
            "seconds": SHORT_SECONDS if short else LONG_SECONDS,
            "short": short,
            "anew": anew,
            "upload": cell.needs_upload,
            "spend_limit": cell.needs_spend_limit,
            "report": str(self._folder / f"run{number}.json"),
            "log": str(self._folder / f"run{number}.log"),
        }
        return self._lane.start(job)

    def _first(self, service: StandIn) -> None:
        """The run with the fault on, stopped at its moment where it has one."""
        moment = self._cell.moment
        if moment is None:
            self._reports.append(self._start(service, short=True).report())
            return
        if moment.held is not None:
            service.hold(moment.held)
        if moment.shut:
            service.refuse_connections()
        run = self._start(service, short=True)
        scene = Scene(service, self._folder / "user")
        while not run.ended and not self._reached:
            self._reached = moment.reached(scene)
            time.sleep(0.004)
        run.send(signal.SIGKILL if self._cell.action is Action.KILL else signal.SIGTERM)
        run.wait(0.25)
        service.release()
        service.set(**dict.fromkeys(moment.switches, False))
        try:
            if moment.shut:
                service.accept_connections()
        finally:
            self._reports.append(run.report())

    def _judge(self, service: StandIn, seconds: float) -> Result:
        first, last = self._reports[0], self._reports[-1]
        jobs = {job.billed_as: job for job in service.jobs.values()}
        bills = service.billed
        alive = _alive(service)
        void = [b for b in bills if b not in alive]
        delivered = service.delivered & {b.what for b in alive}
        problems = [*self._crashes(), *self._secrets(), *_picture_problems(last, jobs)]
        if service.leaks:
            problems.append("the key went to another host")
        asked_anew = self._asked_anew
        outcome = "asked anew" if asked_anew else "at once" if "picture" in first else "anew" if void else "next run"
        if asked_anew and self._cell.mode is not Mode.BLOCKING:
            problems.append("asked whether to pay anew, although the queue lists what it took")
        if asked_anew and self._billed_unasked and not self._cell.is_unlisted:
            problems.append("asked whether to pay anew, although the service lists the edit")
        if self._billed_unasked > 1:
            problems.append(f"billed {self._billed_unasked} times")
        elif len(delivered) != len(alive) and not (asked_anew and len(delivered) == 1):
            problems.append("billed and never delivered")
        if len({b.digest for b in bills}) > 1:
            problems.append("the request changed between two runs")
        shown = service.shown[self._cell.fault] if self._cell.fault else 0
        return Result(
            cell=self._cell.name,
            fault=self._cell.fault,
            mode=self._cell.mode.value,
            stage=self._cell.stage,
            action=self._cell.action.value if self._cell.action else None,
            outcome="broken" if problems else outcome,
            reached=self._reached,
            shown=shown,
            billed=len(bills),
            void=len(void),
            delivered=len(delivered),
            problems=tuple(problems),
            seen=tuple(report.get("error", "") for report in self._reports),
            seconds=seconds,
        )

    def _crashes(self) -> Iterable[str]:
        for report in self._reports:
            if "crash" in report:
                yield report["crash"]
            if "error" in report and report["error"] not in DOCUMENTED:
                yield f"an error that is not documented: {report['error']}"

    def _secrets(self) -> Iterable[str]:
        return (f"a piece of the key is in {path.name}" for path in files_with_a_piece(self._folder))


def _alive(service: StandIn) -> list[Bill]:
    """What was billed for jobs that the service did not end itself."""
    ended = {job.billed_as for job in service.jobs.values() if job.status in (Status.FAILED, Status.CANCELLED)}
    return [bill for bill in service.billed if bill.what not in ended]


def _picture_problems(last: dict[str, Any], jobs: dict[str, Job]) -> Iterable[str]:
    if "picture" not in last:
        yield f"the last run delivered nothing: {last.get('error')} {last.get('text')}"
    elif last["picture"] not in {hashlib.sha256(job.result).hexdigest() for job in jobs.values() if job.result}:
        yield "the last run delivered another picture"


def files_with_a_piece(folder: Path, key: str = KEY) -> list[Path]:
    """The files below a folder that hold any 12 characters in a row of the key."""
    pieces = [key[i : i + PIECE].encode() for i in range(len(key) - PIECE + 1)]
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if any(piece in data for data in [path.read_bytes()] for piece in pieces)]


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
)


def table(results: Sequence[Result]) -> list[str]:
    """The matrix as lines of text: a row for each switch, a sign for each cell, and the sums."""
    rows: dict[str, dict[tuple[str, str], str]] = {}
    for result in results:
        at = (result.action, result.stage) if result.action and result.stage else ("nothing", result.mode)
        cell = rows.setdefault(result.fault or "(no fault)", {})
        cell[at] = cell.get(at, "") + _SIGNS[result.outcome]
    width = max(len(name) for name in rows)
    sizes = {column: max([2, *(len(row.get(column, "")) for row in rows.values())]) for column in _COLUMNS}
    lines = ["columns: " + ", ".join(f"{n}={what} {where}" for n, (what, where) in enumerate(_COLUMNS, 1))]
    lines.append(" " * width + " " + " ".join(str(n).rjust(sizes[c]) for n, c in enumerate(_COLUMNS, 1)))
    for name in ("(no fault)", *NAMES):
        if name in rows:
            signs = (rows[name].get(column, "").rjust(sizes[column]) for column in _COLUMNS)
            lines.append(f"{name.ljust(width)} " + " ".join(signs))
    counts = Counter(result.outcome for result in results)
    lines.append(", ".join(f"{_SIGNS[name]} {name}: {counts[name]}" for name in _SIGNS))
    billed, void = sum(r.billed for r in results), sum(r.void for r in results)
    delivered = sum(r.delivered for r in results)
    asked = sum(r.billed - r.void - r.delivered for r in results if r.outcome == "asked anew")
    lines.append(
        f"{len(results)} cells, {sum(r.reached for r in results if r.action)} stopped at their stage; billed {billed}, "
        f"failed or cancelled by the service {void}, delivered {delivered}, "
        f"lost {billed - void - delivered - asked}, listed nowhere and paid anew on demand {asked}"
    )
    return lines


def main(arguments: list[str]) -> None:
    folder, output, shard, shards = Path(arguments[0]), Path(arguments[1]), int(arguments[2]), int(arguments[3])
    cells = list(all_cells() if "all" in arguments[4:] else chosen_cells())[shard::shards]
    results = run_cells(cells, folder)
    output.write_text(json.dumps([asdict(result) for result in results]))


if __name__ == "__main__":
    main(sys.argv[1:])
