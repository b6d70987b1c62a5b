"""How long the ledger takes to find a job among many, and to write one, alone and with four processes at once.

Exit status 1 where the median look-up takes 5 ms or more.

    python benchmarks/ledger.py [--jobs 1000] [--rounds 2000]
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.oxen.jobs.record import request_key

GOAL_MS = 5.0
PROCESSES = 4
WRITES = 50


def edit_number(number: int) -> tuple[str, EditParameters]:
    """The key and the parameters of one of many different edits."""
    parameters = EditParameters(prompt=f"edit number {number}, described in a sentence of some length", seed=number)
    return request_key("https://hub.oxen.ai", parameters, f"pixels {number}"), parameters


def write(ledger: Ledger, number: int) -> None:
    """A job's whole way through the ledger: before the request, its id, its picture, its delivery."""
    key, parameters = edit_number(number)
    record = ledger.open(key, parameters, "data:image/png;base64,", None)
    assert record is not None
    record = ledger.sent(record, generation_id=f"generation-{number}")
    ledger.collected(ledger.done(record, bytes(1000), "png"))


def write_many(folder: Path, first: int) -> None:
    """What one of several processes does."""
    ledger = Ledger(folder)
    for number in range(first, first + WRITES):
        write(ledger, number)
    ledger.close()


def milliseconds(call: Callable[[int], object], rounds: int) -> list[float]:
    """How long each of many calls took, sorted."""
    taken = []
    for number in range(rounds):
        since = time.perf_counter()
        call(number)
        taken.append((time.perf_counter() - since) * 1000)
    return sorted(taken)


def told(name: str, taken: list[float]) -> str:
    """One line of the report."""
    return f"{name:<34} median {statistics.median(taken):8.3f} ms   99 % {taken[int(len(taken) * 0.99)]:8.3f} ms"


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        writing = milliseconds(lambda number: write(ledger, number), options.jobs)
        keys = [edit_number(number * 7919 % options.jobs)[0] for number in range(options.rounds)]
        finding = milliseconds(lambda number: ledger.usable(keys[number]), options.rounds)
        missing = milliseconds(lambda number: ledger.usable(f"none {number}"), options.rounds)
        context = multiprocessing.get_context("spawn")
        starts = [options.jobs + WRITES * number for number in range(PROCESSES)]
        processes = [context.Process(target=write_many, args=(Path(folder), start)) for start in starts]
        since = time.perf_counter()
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        seconds = time.perf_counter() - since
        found = sum(ledger.usable(edit_number(options.jobs + n)[0]) is not None for n in range(PROCESSES * WRITES))
        ledger.close()
    print(f"{options.jobs} jobs in the ledger")
    print(told("a look-up that finds its job", finding))
    print(told("a look-up that finds none", missing))
    print(told("a job's whole way (4 transactions)", writing))
    print(f"{PROCESSES} processes, {WRITES} jobs each: {found} of {PROCESSES * WRITES} there, {seconds:.1f} s in all")
    whole = found == PROCESSES * WRITES
    return 0 if whole and statistics.median(finding) < GOAL_MS and statistics.median(missing) < GOAL_MS else 1


if __name__ == "__main__":
    sys.exit(main())
