"""What an edit asks of the ledger takes as long among many jobs as among few: no table is gone through whole."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.jobs.ledger import FILE_NAME, Ledger
from kontext_bridge.oxen.jobs.record import State

CLOSES = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("SELECT COUNT(*) FROM jobs").fetchone()
database.close()
"""


@contextmanager
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[sqlite3.Connection, str]]]:
    """Every statement that the ledgers opened in the with block are given."""
    said: list[tuple[sqlite3.Connection, str]] = []
    connect = sqlite3.connect

    def listened_to(*args: Any, **options: Any) -> sqlite3.Connection:
        database = connect(*args, **options)
        database.set_trace_callback(lambda statement: said.append((database, statement)))
        return database

    with monkeypatch.context() as patched:
        patched.setattr("kontext_bridge.oxen.jobs.ledger.sqlite3.connect", listened_to)
        yield said


def goes_through(path: Path, statements: list[str]) -> list[str]:
    """Those of some statements for which SQLite reads all of the jobs, or puts them in order itself."""
    database = sqlite3.connect(path)
    whole = []
    for statement in dict.fromkeys(statements):
        if statement.split()[0] in {"SELECT", "UPDATE", "DELETE"}:
            plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}")]
            # those with a file are as many as the store has room for, and are read where they are in order
            if any(step.startswith("SCAN") and "jobs" in step and "INDEX jobs_with_file" not in step for step in plan):
                whole.append(f"{statement}: {plan}")
    database.close()
    return whole


def one(ledger: Ledger, number: int, price: str | None = "0.04") -> Any:
    parameters = EditParameters(prompt=f"number {number}", seed=number)
    record = ledger.open(f"key {number}", parameters, "data:,", None if price is None else Decimal(price))
    assert record is not None
    return record


def test_no_statement_of_an_edit_reads_all_jobs(remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    remote.run(remote.edits(prompt="before"))
    with heard(monkeypatch) as said:
        remote.run(remote.edits(), usd_per_day=Decimal(5))
    statements = [statement for _, statement in said]
    # that there is any job at all is asked, and is answered by the first
    known = {statement for statement in statements if statement.endswith("FROM jobs LIMIT 1")}
    assert goes_through(remote.home / FILE_NAME, [one for one in statements if one not in known]) == []
    assert not [statement for statement in statements if "quick_check" in statement], "it was looked over before"
    assert len([one for one in statements if one.startswith(("SELECT", "UPDATE", "INSERT"))]) <= 45


def test_a_ledger_that_was_written_to_from_outside_is_looked_over_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number in range(200):
        one(ledger, number)
    ledger.close()
    Ledger(tmp_path).close()
    path = tmp_path / FILE_NAME
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    with pytest.raises(sqlite3.DatabaseError):
        Ledger(tmp_path)


def by_hand(path: Path, since: float) -> Decimal:
    database = sqlite3.connect(path)
    rows = database.execute("SELECT cost, price FROM jobs WHERE created_at >= ? AND state != 'refused'", (since,))
    total = sum((Decimal(cost or price or 0) for cost, price in rows), Decimal(0))
    database.close()
    return total


def test_what_was_spent_is_kept_up_with_every_change(tmp_path: Path) -> None:
    """Whatever becomes of a request, and also where an earlier version, or nobody's version, writes the row."""
    ledger = Ledger(tmp_path)
    records = [
        one(ledger, number, price) for number, price in enumerate(["0.04", "0.025", None, "0.04", "0.08", "0.04"])
    ]
    ledger.note_cost(records[0], Decimal("0.0312500001"))
    ledger.note_cost(records[2], Decimal("0.5"))
    ledger.ended(records[3], State.REFUSED, "no")
    ledger.ended(records[4], State.FAILED, "no")
    now = time.time()
    database = sqlite3.connect(tmp_path / FILE_NAME)
    for number, back in enumerate((0.5, 599.0, 600.0, 601.0, 86399.0, 86401.0), 1):
        database.execute("UPDATE jobs SET created_at = ? WHERE id = ?", (now - back, number))
    database.execute("DELETE FROM jobs WHERE id = 6")
    database.commit()
    database.close()
    for back in (0.0, 1.0, 300.0, 599.5, 600.0, 600.5, 3600.0, 86400.0, 90000.0, now):
        assert ledger.spent_since(now - back) == by_hand(tmp_path / FILE_NAME, now - back), back
    assert ledger.totals() == (4, by_hand(tmp_path / FILE_NAME, 0.0))
    ledger.close()


def test_a_ledger_of_an_earlier_version_gets_its_sums(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number in range(5):
        one(ledger, number)
    ledger.ended(one(ledger, 5), State.REFUSED, "no")
    ledger.close()
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.executescript(
        "DROP TRIGGER spending_begins; DROP TRIGGER spending_changes; DROP TRIGGER spending_ends; DROP TABLE spending;"
        "DROP INDEX jobs_in_doubt; DROP INDEX jobs_with_file;"
    )
    database.close()
    for _ in range(2):
        ledger = Ledger(tmp_path)
        assert ledger.totals() == (5, Decimal("0.20"))
        assert ledger.spent_since(time.time() - 5) == Decimal("0.20")
        ledger.close()


def test_another_process_that_leaves_does_not_take_the_journal_away(tmp_path: Path) -> None:
    """To open a file and close it again takes from a process, on POSIX, all locks that SQLite has on that file."""
    ledger = Ledger(tmp_path)
    one(ledger, 1)
    Ledger(tmp_path).close()
    subprocess.run([sys.executable, "-c", CLOSES, str(tmp_path / FILE_NAME)], check=True, capture_output=True)
    one(ledger, 2)
    assert (tmp_path / f"{FILE_NAME}-wal").exists(), "what is written from here on would be lost"
    ledger.close()
