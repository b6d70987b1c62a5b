"""What goes wrong with the ledger when a run begins or ends, and what must not become of the run for it."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.errors import Misconfigured
from kontext_bridge.oxen.ledger import Ledger
from kontext_bridge.oxen.session import Session
from kontext_bridge.oxen.settings import Settings

ACCOUNT = Account("https://hub.oxen.ai", "a-key-of-the-usual-length")


def session(folder: Path) -> Session:
    return Session(ACCOUNT, folder, Settings())


@pytest.mark.parametrize("error", [PermissionError("used by another process"), sqlite3.OperationalError("locked")])
def test_files_that_cannot_be_pruned_do_not_take_the_result_of_the_run(
    tmp_path: Path, monkeypatch: Any, caplog: Any, error: Exception
) -> None:
    def prune(*_: Any, **__: Any) -> int:
        raise error

    monkeypatch.setattr(Ledger, "prune", prune)
    with caplog.at_level(logging.WARNING), session(tmp_path) as opened:
        pass
    assert str(error) in caplog.text
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened.ledger.by_id(1)


def test_everything_is_closed_where_pruning_breaks_down_for_good(tmp_path: Path, monkeypatch: Any) -> None:
    def prune(*_: Any, **__: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "prune", prune)
    with pytest.raises(KeyboardInterrupt), session(tmp_path) as opened:
        pass
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened.ledger.by_id(1)


def test_a_ledger_that_is_none_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_bytes(b"not a database " * 100)
    with pytest.raises(Misconfigured, match=r"ledger\.sqlite3 cannot be used.*not a database.*[Mm]ove") as raised:
        session(tmp_path)
    assert str(tmp_path) in str(raised.value) and "unfinished" in str(raised.value)


def test_a_ledger_that_cannot_be_opened_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").mkdir()
    with pytest.raises(Misconfigured, match=r"ledger\.sqlite3 cannot be used.*unable to open.*disk") as raised:
        session(tmp_path)
    assert "ove it away" not in str(raised.value)
