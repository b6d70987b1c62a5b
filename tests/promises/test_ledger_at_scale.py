"""The ledger with many jobs in it and many hands on it."""

from __future__ import annotations

import multiprocessing
import os
from decimal import Decimal
from pathlib import Path

import pytest
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.oxen.jobs.record import State, request_key
from kontext_bridge.standin import StandIn
from matrix_runner import KEY, TIMING, Lane, new_job
from patience import PATIENCE

PROCESSES = 4
EACH = 40
BASE = "https://hub.oxen.ai"


def edit_number(number: int) -> tuple[str, EditParameters]:
    parameters = EditParameters(prompt=f"edit number {number}", seed=number)
    return request_key(BASE, parameters, f"pixels {number}"), parameters


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path)
    for number in range(12):
        key, parameters = edit_number(number)
        record = ledger.open(key, parameters, "data:,", Decimal("0.04"))
        assert record is not None
        ledger.done(ledger.sent(record, generation_id=f"g{number}"), b"picture", "png")
    return ledger


def test_no_look_up_reads_the_whole_ledger(ledger: Ledger) -> None:
    asked: list[str] = []
    ledger._database.set_trace_callback(asked.append)
    key, _ = edit_number(7)
    found = [ledger.usable(key), ledger.owed(key), ledger.by_generation("g7"), ledger.by_id(8)]
    ledger._database.set_trace_callback(None)
    assert [record and record.generation_id for record in found] == ["g7"] * 4
    assert len(asked) == 4
    for query in asked:
        plan = [row[3] for row in ledger._database.execute(f"EXPLAIN QUERY PLAN {query}")]
        assert all(step.startswith("SEARCH jobs USING") for step in plan), (query, plan)


def test_what_a_killed_run_left_half_written_goes_and_nothing_else(ledger: Ledger, tmp_path: Path) -> None:
    old, new = (tmp_path / "results" / name for name in ("51.77-1.part", "52.78-1.part"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert ledger.prune(max_bytes=1 << 30, keep_seconds=1e9) == 0
    assert (old.exists(), new.exists()) == (False, True)
    assert all(ledger.picture(record) == b"picture" for record in ledger.recent(12))


def _write_many(folder: Path, first: int) -> None:
    ledger, control = Ledger(folder), Control()
    for number in range(first, first + EACH):
        for mine in (number, -1):  # one of its own, and one that all processes want
            key, parameters = edit_number(max(mine, 0)) if mine < 0 else edit_number(mine)
            with ledger.hold(key, control):
                if mine < 0 and ledger.usable(key) is not None:
                    continue
                record = ledger.open(key, parameters, "data:,", Decimal("0.04"))
                assert record is not None
                ledger.sent(record, generation_id=f"g{mine}")
                ledger.collected(ledger.done(record, f"picture {mine}".encode(), "png"))
    ledger.close()


def test_four_processes_at_once_lose_no_record_and_no_picture(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    starts = [1000 + EACH * number for number in range(PROCESSES)]
    processes = [context.Process(target=_write_many, args=(tmp_path, start)) for start in starts]
    for process in processes:
        process.start()
    for process in processes:
        process.join(5 * PATIENCE)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    ledger = Ledger(tmp_path)
    for number in range(1000, 1000 + PROCESSES * EACH):
        record = ledger.usable(edit_number(number)[0])
        assert record is not None and record.state is State.DONE
        assert ledger.picture(record) == f"picture {number}".encode()
    assert ledger.totals() == (PROCESSES * EACH + 1, Decimal("0.04") * (PROCESSES * EACH + 1))
    assert ledger._select("PRAGMA integrity_check", ()) == [("ok",)]


def test_four_processes_with_the_same_edit_are_billed_once(tmp_path: Path) -> None:
    lanes = [Lane() for _ in range(PROCESSES)]
    with StandIn(timing=TIMING, key=KEY) as service:
        runs = []
        for number, lane in enumerate(lanes):
            job = new_job(service, tmp_path, number, seconds=80)
            runs.append(lane.start(job))
        reports = [run.report()["outcomes"][0] for run in runs]
        assert len(service.billed) == 1
    for lane in lanes:
        lane.close()
    assert len({report["picture"] for report in reports}) == 1
    assert sorted(report["how"] for report in reports) == ["new", "reused", "reused", "reused"]
