"""What goes wrong with the ledger when a run begins or ends, and what must not become of the run for it."""

from __future__ import annotations

import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.errors import Interrupted, LocalTrouble, Misconfigured
from kontext_bridge.oxen.jobs import ledger as ledger_module
from kontext_bridge.oxen.jobs import session as session_module
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.oxen.jobs.locks import hold
from kontext_bridge.oxen.jobs.session import Session, expect, prune_soon
from kontext_bridge.oxen.settings import Settings
from patience import timed

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


def test_sessions_of_one_account_and_folder_share_what_costs_handles(tmp_path: Path) -> None:
    with session(tmp_path) as one, session(tmp_path) as other:
        assert one.ledger is other.ledger and one.stream is other.stream
        assert one.client.transport.session is other.client.transport.session
        assert one.control is not other.control and one.client.control is one.control
        one.control.interrupt()
        assert not other.client.control.stopped
    with Session(Account(ACCOUNT.base_url, "another-key-of-the-usual-length"), tmp_path, Settings()) as different:
        assert different.client.transport.session is not one.client.transport.session
    assert is_closed(one) and is_closed(different)


def test_the_last_of_them_closes_what_they_shared(tmp_path: Path) -> None:
    first, second = session(tmp_path), session(tmp_path)
    with second:
        with first:
            pass
        assert not is_closed(second)
    assert is_closed(second)
    with session(tmp_path) as anew:
        assert not is_closed(anew)


def test_what_is_open_stays_open_for_those_who_are_expected(tmp_path: Path) -> None:
    no_more, others_no_more = expect(), expect()
    with session(tmp_path) as opened:
        pass
    no_more()
    no_more()
    assert not is_closed(opened), "another is still expected"
    with session(tmp_path) as again:
        assert again.ledger is opened.ledger
    others_no_more()
    assert is_closed(opened)


def test_sessions_that_come_and_go_at_once_never_find_anything_closed(tmp_path: Path) -> None:
    def come_and_go(_: int) -> None:
        no_more = expect()
        with session(tmp_path) as opened:
            opened.ledger.recent(1)
        no_more()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(come_and_go, range(200)))
    with session(tmp_path) as opened:
        pass
    assert is_closed(opened)


def test_a_ledger_that_cannot_be_opened_is_tried_again_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    path.mkdir()
    for _ in range(2):
        with pytest.raises(Misconfigured):
            session(tmp_path)
    path.rmdir()
    with session(tmp_path) as opened:
        assert opened.ledger.recent(1) == ()


def is_closed(opened: Session) -> bool:
    try:
        opened.ledger.by_id(1)
    except sqlite3.ProgrammingError:
        return True
    return False


def test_a_ledger_that_another_program_keeps_is_waited_for_no_longer_than_it_says(
    tmp_path: Path, monkeypatch: Any
) -> None:
    for module in (ledger_module, session_module):
        monkeypatch.setattr(module, "OPEN_SECONDS", 3.0)
    with hold(tmp_path / "locks", "open", Control()), ThreadPoolExecutor(8) as threads:
        with timed() as took:
            waiting = [threads.submit(session, tmp_path) for _ in range(8)]
            with timed() as meanwhile, session(tmp_path / "another"):
                pass
            for one in waiting:
                with pytest.raises(LocalTrouble, match=r"another program.*for 3 s.*Nothing was sent.*run again"):
                    one.result()
        assert meanwhile.own < 2, "nobody else waits for it"
        assert took.own < 9, "and they do so side by side"
        with pytest.raises(LocalTrouble):
            Ledger(tmp_path)
        prune_soon(tmp_path)
    with session(tmp_path) as opened:
        assert opened.ledger.recent(1) == ()


def test_cancel_ends_the_wait_for_a_ledger_that_another_program_keeps(tmp_path: Path) -> None:
    controls = [Control(), Control()]
    with hold(tmp_path / "locks", "open", Control()), ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(Session, ACCOUNT, tmp_path, Settings(), control) for control in controls]
        with timed() as took:
            for control in controls:
                control.interrupt()
            for one in waiting:
                with pytest.raises(Interrupted):
                    one.result()
        assert took.own < 2
