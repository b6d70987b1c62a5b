"""The tables of a plan. SQLite keeps them on the disk, and removes them by itself: many rows take little memory."""

from __future__ import annotations

import sqlite3

_SCHEMA = """
CREATE TABLE rows (
    number INTEGER PRIMARY KEY,
    spot TEXT NOT NULL,
    image TEXT NOT NULL,
    path BLOB NOT NULL,
    output TEXT NOT NULL,
    key TEXT NOT NULL,
    asked TEXT NOT NULL,
    made_with TEXT NOT NULL,
    given TEXT NOT NULL,
    size INTEGER NOT NULL,
    problem TEXT,
    mine INTEGER NOT NULL
);
CREATE TABLE clashes (number INTEGER, other INTEGER);
CREATE UNIQUE INDEX rows_by_key ON rows (key);
CREATE TABLE folders (key TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID;
CREATE TABLE ended (
    key TEXT,
    asked TEXT,
    state TEXT,
    line INTEGER,
    over INTEGER,
    flagged INTEGER,
    marked INTEGER,
    other INTEGER,
    seed TEXT,
    PRIMARY KEY (key, asked)
) WITHOUT ROWID;
CREATE TABLE placed (key TEXT PRIMARY KEY, asked TEXT, made_with TEXT) WITHOUT ROWID;
CREATE TABLE sources (key TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID;
CREATE TABLE further (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE told (id TEXT PRIMARY KEY, key TEXT) WITHOUT ROWID;
CREATE TABLE paid (key TEXT, id TEXT, cost TEXT, surely INTEGER, PRIMARY KEY (key, id)) WITHOUT ROWID;
"""
# Whether what lies in a row's place is its own. What an earlier version made does not say with which files.
OWN = "(placed.asked IS rows.asked AND IFNULL(placed.made_with, rows.made_with) = rows.made_with)"
# A row with the last line about just what it asks for, and with what lies in its place: a line about something else,
# such as a picture that was missing for a while, changes neither.
STATE = f"CASE WHEN state = 'failed' OR {OWN} THEN state END"
STANDING = "rows LEFT JOIN ended USING (key, asked) LEFT JOIN placed ON placed.key = rows.key"


def opened_tables() -> sqlite3.Connection:
    """The tables, empty; gone with the process, however it ends."""
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA synchronous = OFF")
    database.executescript(_SCHEMA)
    return database


def written(value: object) -> str:
    """A text as SQLite takes it: what is half of a character stands as an escape."""
    return str(value).encode("utf-8", "backslashreplace").decode()
