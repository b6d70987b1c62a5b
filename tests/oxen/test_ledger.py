"""What the ledger and its files keep: numbers, names, privacy, and the pictures of a machine in trouble."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.oxen.choices import WaitMode
from kontext_bridge.oxen.errors import LocalTrouble, Misconfigured, OutcomeUnknown, ResultUnavailable
from kontext_bridge.oxen.jobs import ledger as ledger_module
from kontext_bridge.oxen.jobs import store as store_module
from kontext_bridge.oxen.jobs.batch import Batch
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.oxen.jobs.order import How, Terms
from kontext_bridge.oxen.jobs.record import State, request_key
from kontext_bridge.standin import Fault
from outcomes import errors, hows

BLOCKING = Terms(wait=WaitMode.BLOCKING)
BLOCKING_NEW = Terms(wait=WaitMode.BLOCKING, reuse=False)
FULL = sqlite3.OperationalError("database or disk is full")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_number_of_the_ledger_is_never_given_to_another_request(remote: Any) -> None:
    (edit,) = remote.edits()
    with remote.session() as session:
        ledger = session.ledger
        forgotten = ledger.adopt("nobodys")
        ledger.forget(forgotten)
        record = ledger.open("key", edit.parameters, edit.input_image(), None)
        adopted = ledger.adopt("a-job")
        ledger.sent(record, generation_id="a-job")
        again = ledger.adopt("another-job")
    assert len({forgotten.id, record.id, adopted.id, again.id}) == 4


def test_after_lost_jobs_were_collected_by_hand_reuse_gives_each_edit_its_own_picture(serve: Any) -> None:
    remote = serve(answer_dropped=Fault(times=2), list_error=True)
    edits = [remote.edits(prompt=prompt)[0] for prompt in ("a red hat", "a blue sky")]
    assert errors(remote.run(edits, max_in_flight=1)) == [OutcomeUnknown] * 2
    remote.server.set(list_error=False)
    jobs = {job.prompt: job.id for job in remote.server.jobs.values()}
    collected = {}
    for prompt, job in jobs.items():
        with remote.session() as session:
            batch = Batch(session, bytes)
            (outcome,) = batch.collect([session.ledger.adopt(job)])
            batch.handed_over([outcome])
            collected[prompt] = outcome.picture
        (found,) = remote.run([edit for edit in edits if edit.parameters.prompt == prompt], decode=bytes)
        assert found.picture == collected[prompt] and found.record.generation_id == job
    assert [outcome.picture for outcome in remote.run(edits, decode=bytes)] == [
        collected[e.parameters.prompt] for e in edits
    ]
    assert len(remote.server.billed) == 2


def test_no_file_is_ever_written_over(remote: Any) -> None:
    with remote.session() as session:
        ledger = session.ledger
        record = ledger.adopt("a-job")
        first = ledger.done(record, b"one picture", "png")
        second = ledger.done(record, b"another one", "png")
        third = ledger.done(record, b"another one", "png")
        assert first.file != second.file == third.file
        assert ledger.picture(first) == b"one picture" and ledger.picture(second) == b"another one"


def test_a_ledger_that_was_put_back_from_a_backup_writes_over_no_newer_picture(remote: Any) -> None:
    remote.run(remote.edits())
    backup = {path.name: path.read_bytes() for path in remote.home.glob("ledger.sqlite3*")}
    remote.run(remote.edits(prompt="made after the backup"))
    pictures = {path: path.read_bytes() for path in (remote.home / "results").iterdir()}
    for path in remote.home.glob("ledger.sqlite3*"):
        path.unlink()
    for name, data in backup.items():
        (remote.home / name).write_bytes(data)
    remote.run(remote.edits(prompt="takes the number again"))
    assert {path: path.read_bytes() for path in pictures} == pictures
    assert len(list((remote.home / "results").iterdir())) == 3


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_prompts_and_pictures_are_for_their_owner_alone_in_a_folder_made_by_hand(remote: Any) -> None:
    old = os.umask(0o022)
    try:
        remote.home.chmod(0o755)
        (remote.home / "results").mkdir()
        (remote.home / "ledger.sqlite3").touch()
        with remote.session() as session:
            Batch(session, len).edit(remote.edits())
            found = {path.name: mode_of(path) for path in remote.home.rglob("*") if path.is_file()}
        assert set(found.values()) == {0o600}, found
        assert "ledger.sqlite3-wal" in found
        assert {mode_of(path) for path in remote.home.iterdir() if path.is_dir()} == {0o700}
    finally:
        os.umask(old)


@pytest.mark.parametrize("lost", ["zero bytes", "removed", "half zeroed", "cut in half"])
def test_a_lost_or_damaged_ledger_is_not_taken_for_a_new_one(remote: Any, lost: str) -> None:
    for number in range(10):
        remote.run(remote.edits(prompt=f"{number} " + "a hat " * 900), Terms(submit_only=True))
    remote.run(remote.edits())
    path = remote.home / "ledger.sqlite3"
    for other in remote.home.glob("ledger.sqlite3-*"):
        other.unlink()
    data = path.read_bytes()
    half = len(data) // 2
    if lost == "removed":
        path.unlink()
    else:
        path.write_bytes(
            {"zero bytes": b"", "half zeroed": data[:half] + bytes(half), "cut in half": data[:half]}[lost]
        )
    before = {one: one.read_bytes() for one in (remote.home / "results").iterdir()}
    with pytest.raises(Misconfigured, match="results") as raised:
        remote.run(remote.edits())
    assert "Nothing was sent" in str(raised.value) and "backup" in str(raised.value)
    assert len(remote.server.billed) == 11
    assert {one: one.read_bytes() for one in (remote.home / "results").iterdir()} == before


def test_a_cost_that_no_picture_can_have_neither_breaks_a_run_nor_switches_the_limit_off(remote: Any) -> None:
    remote.run(remote.edits())
    with sqlite3.connect(remote.home / "ledger.sqlite3") as database:
        database.execute("UPDATE jobs SET cost = '1e9999999', price = '0.04'")
    database.close()
    with remote.session() as session:
        assert session.ledger.spent_since(0.0) == Decimal("0.04")
    with sqlite3.connect(remote.home / "ledger.sqlite3") as database:
        database.execute("UPDATE jobs SET cost = '-5', price = '0.04'")
    database.close()
    with remote.session() as session:
        assert session.ledger.spent_since(0.0) == Decimal("0.04")


# a disk that is full, at each write of a run


def out_of_room(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Let one of the ledger's writes fail as on a full disk."""

    def fail(*_: Any, **__: Any) -> Any:
        raise FULL if where != "file" else OSError(28, "No space left on device")

    if where == "file":
        monkeypatch.setattr(store_module, "write_durably", fail)
    elif where == "all after sending":
        leaving, update = Ledger.leaving, Ledger._update

        def after(self: Ledger, record: Any) -> None:
            leaving(self, record)
            monkeypatch.setattr(Ledger, "_update", fail)
            monkeypatch.setattr(Ledger, "sent", fail)

        monkeypatch.setattr(Ledger, "leaving", after)
        assert update
    else:
        monkeypatch.setattr(Ledger, where, fail)


@pytest.mark.parametrize("terms", [BLOCKING, Terms()], ids=["blocking", "queue"])
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
@pytest.mark.parametrize(
    "where", ["open", "leaving", "sent", "done", "file", "note_cost", "collected", "all after sending"]
)
def test_a_full_disk_loses_no_picture_and_pays_none_twice_by_itself(
    serve: Any, monkeypatch: pytest.MonkeyPatch, terms: Terms, listed: bool, where: str
) -> None:
    remote = serve(history_without_sync=not listed)
    monkeypatch.setattr("kontext_bridge.oxen.jobs.doubt.SETTLE_SECONDS", 0.1)
    with monkeypatch.context() as patched:
        out_of_room(patched, where)
        (first,) = remote.run(remote.edits(), terms)
        sent = len(remote.server.billed)
        assert (first.picture is not None) == bool(sent), "what was paid for is handed over"
        if not sent:
            assert isinstance(first.error, LocalTrouble) and "disk is full" in str(first.error)
    (again,) = remote.run(remote.edits(), terms)
    assert len(remote.server.billed) == 1, "nothing is paid twice"
    if again.picture is None:
        assert terms is BLOCKING and not listed and isinstance(again.error, OutcomeUnknown | ResultUnavailable)
        assert "always new" in str(again.error)
        assert hows(remote.run(remote.edits(), BLOCKING_NEW)) == [How.NEW]
    else:
        assert first.picture in (None, again.picture)


def test_a_folder_of_results_that_was_removed_is_made_again(remote: Any) -> None:
    (edit,) = remote.edits()
    with remote.session() as session:
        (remote.home / "results").mkdir(exist_ok=True)
        (remote.home / "results").rmdir()
        (outcome,) = Batch(session, bytes, BLOCKING).edit([edit])
        assert session.ledger.picture(outcome.record) == outcome.picture
    assert hows(remote.run([edit], BLOCKING)) == [How.REUSED]
    assert len(remote.server.billed) == 1


def test_a_folder_of_results_that_cannot_be_written_makes_no_run_pay_again(serve: Any) -> None:
    remote = serve(history_without_sync=True)
    (remote.home / "results").write_text("a file in the folder's place")
    (first,) = remote.run(remote.edits(), BLOCKING)
    assert first.picture is not None
    for _ in range(2):
        (again,) = remote.run(remote.edits(), BLOCKING)
        assert isinstance(again.error, ResultUnavailable) and "always new" in str(again.error)
    assert len(remote.server.billed) == 1


def test_a_picture_whose_file_was_removed_by_hand_is_not_paid_again_unasked(serve: Any) -> None:
    remote = serve(history_without_sync=True)
    remote.run(remote.edits(), BLOCKING)
    for path in (remote.home / "results").iterdir():
        path.unlink()
    assert errors(remote.run(remote.edits(), BLOCKING)) == [ResultUnavailable]
    assert len(remote.server.billed) == 1
    assert hows(remote.run(remote.edits(), BLOCKING_NEW)) == [How.NEW]


def test_a_file_whose_record_still_says_sending_is_taken_up(serve: Any) -> None:
    remote = serve(history_without_sync=True)
    (edit,) = remote.edits()
    key = request_key(remote.account.base_url, edit.parameters, edit.pixels)
    data = remote.run(remote.edits(prompt="to have a picture"), decode=bytes)[0].picture
    with remote.session() as session:
        record = session.ledger.open(key, edit.parameters, edit.input_image(), None, blocking=True)
        session.ledger.leaving(record)
        session.ledger._store.write(ledger_module._stem(record), "jpg", data)
    (outcome,) = remote.run([edit], BLOCKING, decode=bytes)
    assert outcome.picture == data and len(remote.server.billed) == 1


# raw errors


def test_a_ledger_that_is_locked_for_too_long_is_said_to_be(remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_BUSY_SECONDS", 0.2)
    remote.run(remote.edits(prompt="first"))
    with remote.session() as session:
        holder = sqlite3.connect(remote.home / "ledger.sqlite3", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        try:
            (outcome,) = Batch(session, len).edit(remote.edits())
        finally:
            holder.execute("ROLLBACK")
            holder.close()
    assert isinstance(outcome.error, LocalTrouble) and "another program" in str(outcome.error)
    assert len(remote.server.billed) == 1


def test_a_page_that_is_damaged_while_a_run_goes_on_is_told_with_what_to_do(
    remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: Any) -> Any:
        raise sqlite3.DatabaseError("database disk image is malformed")

    with remote.session() as session, monkeypatch.context() as patched:
        patched.setattr(Ledger, "usable", damaged)
        with pytest.raises(LocalTrouble, match=r"damaged .*move it away"):
            Batch(session, len).edit(remote.edits())


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (OSError(24, "Too many open files"), "no file handle left"),
        (RuntimeError("can't start new thread"), "no further thread"),
        (OSError(30, "Read-only file system"), "KONTEXT_BRIDGE_HOME"),
        (MemoryError(), "no memory"),
    ],
    ids=str,
)
def test_what_the_system_raises_reaches_the_artist_in_words(
    remote: Any, monkeypatch: pytest.MonkeyPatch, raised: Exception, words: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise raised

    monkeypatch.setattr(Ledger, "open", fail)
    (outcome,) = remote.run(remote.edits())
    assert isinstance(outcome.error, LocalTrouble) and words in str(outcome.error)


def test_a_failed_commit_leaves_no_transaction_open(remote: Any) -> None:
    (edit,) = remote.edits()
    with remote.session() as session:
        ledger = session.ledger
        real = ledger._database

        class Failing:
            def execute(self, query: str, *more: Any) -> Any:
                if query == "COMMIT":
                    raise FULL
                return real.execute(query, *more)

        ledger._database = Failing()
        with pytest.raises(sqlite3.OperationalError):
            ledger.open("key", edit.parameters, edit.input_image(), None)
        ledger._database = real
        assert not real.in_transaction and ledger.recent(9) == ()
        assert ledger.open("key", edit.parameters, edit.input_image(), None) is not None


def test_a_generation_that_is_collected_and_found_again_at_once_ends_in_one_record(remote: Any) -> None:
    (edit,) = remote.edits()
    with remote.session() as session:
        ledger = session.ledger
        record = ledger.open("key", edit.parameters, edit.input_image(), None)
        adopted = ledger.adopt("a-job")
        ledger.sent(record, generation_id="a-job")
        kept = ledger.done(adopted, b"picture", "png")
        assert kept.id == record.id and ledger.picture(ledger.by_id(record.id)) == b"picture"
        assert ledger.collected(adopted).id == record.id


def test_pruning_many_files_is_one_transaction(remote: Any) -> None:
    with remote.session() as session:
        ledger = session.ledger
        for number in range(200):
            ledger.collected(ledger.done(ledger.adopt(f"job-{number}"), b"x", "png"))
        statements: list[str] = []
        ledger._database.set_trace_callback(statements.append)
        assert ledger.prune(max_bytes=0, keep_seconds=1e9) == 200
        assert sum(one.startswith("BEGIN") for one in statements) == 1


def test_many_threads_may_write_at_once(remote: Any) -> None:
    with remote.session() as session:
        threads = [threading.Thread(target=session.ledger.adopt, args=(f"job-{n % 5}",)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(session.ledger.recent(99)) == 5


def test_a_record_that_no_version_of_ours_would_close_stays_open(remote: Any) -> None:
    """A request that an earlier version left in "sending" may have been taken."""
    (edit,) = remote.edits()
    with remote.session() as session:
        record = session.ledger.open("key", edit.parameters, edit.input_image(), None)
    with sqlite3.connect(remote.home / "ledger.sqlite3") as database:
        database.execute("DROP INDEX jobs_in_doubt")
        for column in ("clock_offset", "opened", "taken", "departed", "left_at", "given_up_at", "sent_by", "told"):
            database.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
    database.close()
    with remote.session() as session:
        old = session.ledger.by_id(record.id)
        assert old.departed and old.state is State.SENDING and old.clock_offset is None and old.left_at is None


def test_a_file_that_another_program_holds_open_keeps_no_other_from_being_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_module.Store(tmp_path)
    names = [store.write(str(number), "png", b"x") for number in (1, 2, 3)]
    unlink = Path.unlink

    def held(path: Path, missing_ok: bool = False) -> None:
        if path.name == names[0]:
            raise PermissionError(13, "being used by another process", str(path))  # as Windows says it
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", held)
    with pytest.raises(PermissionError):
        store.remove(names)
    assert store.names() == names[:1]


def test_a_request_leaves_when_the_ledger_says_so_and_not_when_it_was_asked_to(remote: Any) -> None:
    """Another program may hold the ledger for half a minute, and the request waits for it."""
    (edit,) = remote.edits()
    freed: list[float] = []

    def free() -> None:
        freed.append(time.time())
        other.execute("COMMIT")

    with remote.session() as session:
        record = session.ledger.open("key", edit.parameters, edit.input_image(), None)
        other = sqlite3.connect(remote.home / "ledger.sqlite3", isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.1, free).start()
        session.ledger.leaving(record)
        other.close()
        assert session.ledger.by_id(record.id).left_at >= freed[0]
