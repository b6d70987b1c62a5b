"""The ledger's tables, made and brought up to date; whatever an edit asks of them takes as long as with few jobs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from ..api.prices import read_amount

_JOBS = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    state TEXT NOT NULL,
    generation_id TEXT UNIQUE,
    result_url TEXT,
    prompt TEXT NOT NULL,
    seed INTEGER NOT NULL,
    parameters TEXT NOT NULL,
    input_digest TEXT NOT NULL,
    blocking INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    finished_at REAL,
    collected_at REAL,
    price TEXT,
    cost TEXT,
    error TEXT,
    file TEXT,
    bytes INTEGER
);
CREATE INDEX IF NOT EXISTS jobs_by_key ON jobs (key, id);
CREATE INDEX IF NOT EXISTS jobs_by_time ON jobs (created_at);
CREATE TABLE IF NOT EXISTS steps (step INTEGER PRIMARY KEY AUTOINCREMENT);
"""
# What ledgers of earlier versions lack. A request that such a version left in "sending" may have left the machine.
_ADDED = {
    "blocking": "INTEGER NOT NULL DEFAULT 0",
    "clock_offset": "REAL",
    "opened": "INTEGER",
    "taken": "INTEGER",
    "departed": "INTEGER NOT NULL DEFAULT 1",
    "left_at": "REAL",
    "given_up_at": "REAL",
    "sent_by": "TEXT",
    "told": "INTEGER NOT NULL DEFAULT 0",
}
_INDICES = """
CREATE INDEX IF NOT EXISTS jobs_in_doubt ON jobs (state, key) WHERE told;
CREATE INDEX IF NOT EXISTS jobs_with_file ON jobs (finished_at, collected_at, bytes) WHERE file IS NOT NULL;
"""
# Seconds that are added up together. Only the slot that a sum begins in is looked at request by request.
_SLOT = 600


def _counted(row: str) -> str:
    """Where a request is counted: its slot, and what it may come to, in the words of its row."""
    return f"CAST({row}created_at / {_SLOT}.0 AS INTEGER), IFNULL({row}cost, ''), IFNULL({row}price, '')"


def _more(row: str) -> str:
    return (
        f"INSERT INTO spending SELECT {_counted(row)}, 1 WHERE {row}state != 'refused'"
        " ON CONFLICT (slot, cost, price) DO UPDATE SET requests = requests + 1;"
    )


def _fewer(row: str) -> str:
    same = f"(slot, cost, price) = ({_counted(row)})"
    return (
        f"UPDATE spending SET requests = requests - 1 WHERE {same} AND {row}state != 'refused';"
        f" DELETE FROM spending WHERE {same} AND requests = 0;"
    )


# How many requests of a slot came to what. SQLite itself keeps it, whoever writes: an earlier version, too.
_SPENDING = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS spending (
    slot INTEGER NOT NULL,
    cost TEXT NOT NULL,
    price TEXT NOT NULL,
    requests INTEGER NOT NULL,
    PRIMARY KEY (slot, cost, price)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS spending_begins AFTER INSERT ON jobs BEGIN {_more("NEW.")} END;
CREATE TRIGGER IF NOT EXISTS spending_changes AFTER UPDATE OF state, created_at, cost, price ON jobs
BEGIN {_fewer("OLD.")} {_more("NEW.")} END;
CREATE TRIGGER IF NOT EXISTS spending_ends AFTER DELETE ON jobs BEGIN {_fewer("OLD.")} END;
INSERT INTO spending SELECT {_counted("")}, COUNT(*) FROM jobs WHERE state != 'refused'
    AND NOT EXISTS (SELECT 1 FROM spending) GROUP BY 1, 2, 3;
COMMIT;
"""
# Costs and prices of all requests since a time but those that the service refused, each with their number.
SPENT = f"""
SELECT cost, price, SUM(requests) FROM spending WHERE slot > CAST(?1 / {_SLOT}.0 AS INTEGER) GROUP BY cost, price
UNION ALL
SELECT cost, price, COUNT(*) FROM jobs WHERE created_at >= ?1 AND created_at <= ?1 + {_SLOT}
    AND CAST(created_at / {_SLOT}.0 AS INTEGER) = CAST(?1 / {_SLOT}.0 AS INTEGER) AND state != 'refused'
    GROUP BY cost, price
"""


def bring_up_to_date(database: sqlite3.Connection) -> None:
    """Make what a ledger of this version has; what is there stays as it is."""
    database.executescript(_JOBS)
    have = _columns(database)
    for column, kind in _ADDED.items():
        if column not in have:
            database.execute(f"ALTER TABLE jobs ADD COLUMN {column} {kind}")
    database.executescript(_INDICES)
    if not _is_counted(database):
        database.executescript(_SPENDING)


def is_up_to_date(database: sqlite3.Connection) -> bool:
    """Whether a ledger has all that this version asks of it."""
    return _is_counted(database) and _columns(database) >= _ADDED.keys()


def _is_counted(database: sqlite3.Connection) -> bool:
    return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'spending'").fetchall())


def _columns(database: sqlite3.Connection) -> set[str]:
    return {row[1] for row in database.execute("PRAGMA table_info(jobs)")}


def sum_of(rows: Iterable[tuple[Any, ...]]) -> Decimal:
    """US dollars of requests, of which these are cost, price and number; one of which neither is known is nothing."""
    total = Decimal(0)
    for cost, price, number in rows:
        amount = read_amount(price if read_amount(cost) is None else cost)
        total += (amount or Decimal(0)) * number
    return total
