"""What was paid for just before a run was killed: counted against the limit, brought first, and never paid again."""

from __future__ import annotations

import contextlib
import errno
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.batch import __main__ as command
from kontext_bridge.batch.remote_rows import RemoteRows
from kontext_bridge.batch.workflow_rows import WorkflowRows
from kontext_bridge.host import comfyui
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.errors import TimedOut
from kontext_bridge.oxen.jobs.finishing import Finisher
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.standin import Fault, StandIn
from small_pictures import write_picture
from small_workflow import workflow

REMOTE = ("--set", "output_format=jpg", "--prompt", "make it night")
Batch = Callable[..., int]
Pictures = Callable[..., Path]
Report = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a limit is met at the same row in every run."""
    monkeypatch.setenv("KONTEXT_BRIDGE_MAX_IN_FLIGHT", "1")


@pytest.fixture
def through(batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command through a workflow, each time as a process of its own."""

    def run(source: Path, *options: str, **widgets: object) -> int:
        monkeypatch.setattr(comfyui, "_process_run", uuid.uuid4().hex)
        words = ["--workflow", str(workflow(tmp_path, **widgets)), "--map", "image=1.image"]
        return batch(source, *words, *options)

    return run


def killed_before_its_line(monkeypatch: pytest.MonkeyPatch, run: Callable[[], int]) -> None:
    with monkeypatch.context() as cut:
        cut.setattr("kontext_bridge.batch.journal.Journal.write", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        assert run() == command.NONE


@pytest.mark.parametrize("result", ["reuse", "always new"])
def test_what_a_workflow_got_and_could_not_report_is_counted_brought_and_not_paid_again(
    service: StandIn,
    through: Batch,
    pictures: Pictures,
    report: Report,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    result: str,
) -> None:
    folder = pictures("a.png", "b.png", "c.png", "d.png")
    words = ("--usd", "0.09")
    killed_before_its_line(monkeypatch, lambda: through(folder, *words, result=result))
    assert len(service.billed) == 1
    assert through(folder, *words, result=result) == command.SOME
    assert len(service.billed) == 2 and len(list((tmp_path / "out").glob("*.png"))) == 2
    assert [entry["paid"] for entry in report() if entry["state"] == "done"] == [True, True]
    assert "Stopped before passing --usd" in capsys.readouterr().err
    assert through(folder, "--usd", "0.12", result=result) == command.SOME and len(service.billed) == 3
    assert through(folder, result=result) == command.ALL and len(service.billed) == 4
    assert sum(entry["cost_usd"] for entry in report() if entry["paid"]) == pytest.approx(0.16)


def test_of_two_like_requests_that_are_always_new_each_is_made(
    service: StandIn, through: Batch, pictures: Pictures, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures("a.png")
    (folder / "list.csv").write_text("image,output\na.png,one\na.png,two\n")
    with monkeypatch.context() as slow:
        # its picture is still on its way when the next row asks for the same
        on_the_way: list[Any] = []
        slow.setattr(WorkflowRows, "_delivered", lambda rows, consignment: on_the_way.append(consignment))
        assert through(folder / "list.csv", result="always new") == command.ALL
    assert len(service.billed) == len({entry["generation_id"] for entry in report()}) == 2


@contextlib.contextmanager
def nothing_noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs that are killed after each line, before the ledger notes that its result is in its place."""
    with monkeypatch.context() as cut:
        cut.setattr(RemoteRows, "delivered", lambda *_: None)
        yield


def test_what_was_reported_and_not_noted_in_the_ledger_is_counted_once_and_noted_then(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was killed after a line left its dollars in the report and in the ledger: a limit met too soon."""
    folder = pictures(*(f"{number}.png" for number in range(5)))
    with nothing_noted(monkeypatch):
        assert batch(folder, *REMOTE, "--usd", "0.13") == command.SOME and len(service.billed) == 3
    assert batch(folder, *REMOTE, "--usd", "0.20") == command.ALL and len(service.billed) == 5
    with contextlib.closing(Ledger(tmp_path / "home")) as ledger:
        assert ledger.owed_since(0.0) == ()


def test_what_the_last_row_s_run_could_not_note_is_noted_where_nothing_is_left_to_do(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its last line: the picture stayed owed for good, and was never cleared away."""
    folder = pictures("a.png")
    with nothing_noted(monkeypatch):
        assert batch(folder, *REMOTE) == command.ALL
    asked = len(service.requests)
    assert batch(folder, *REMOTE) == command.ALL and len(service.requests) == asked
    with contextlib.closing(Ledger(tmp_path / "home")) as ledger:
        assert ledger.owed_since(0.0) == ()


def test_what_was_reported_and_is_not_in_its_place_is_counted_once_and_brought(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(*(f"{number}.png" for number in range(5)))
    with nothing_noted(monkeypatch):
        assert batch(folder, *REMOTE, "--usd", "0.13") == command.SOME
    gone = next((tmp_path / "out").glob("*.jpg"))
    gone.unlink()
    assert batch(folder, *REMOTE, "--usd", "0.20") == command.ALL
    assert len(service.billed) == 5 and gone.is_file()


def test_what_never_left_this_machine_is_not_counted(tmp_path: Path) -> None:
    """A run that was killed between its record and its request paid for nothing."""
    with contextlib.closing(Ledger(tmp_path)) as ledger:
        record = ledger.open("a key", EditParameters(prompt="x", seed=0), "data:,", Decimal("0.04"))
        assert record is not None and ledger.owed_since(0.0) == ()
        ledger.leaving(record)
        assert [one.id for one in ledger.owed_since(0.0)] == [record.id]


def test_of_a_row_of_several_edits_all_that_failed_count_as_perhaps_billed(
    service: StandIn, through: Batch, pictures: Pictures, report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pictures("a.png", "b.png")
    service.set(run_fails=Fault("out of luck", times=2))
    assert through(folder, "--usd", "0.25", variations=3) == command.SOME
    (over,) = [entry for entry in report() if entry.get("over")]
    assert over["cost_usd"] == 0.08 and len(service.jobs) == 6
    assert "$0.12 paid, and perhaps $0.08 for what failed" in capsys.readouterr().out
    # the one that came is kept, and counts as well: with the two that failed, and another two, it is too much
    assert through(folder, "--usd", "0.25", "--retry-failed", variations=3) == command.SOME and len(service.jobs) == 6
    assert through(folder, "--usd", "0.33", "--retry-failed", variations=3) == command.ALL and len(service.jobs) == 8


def test_a_row_of_several_edits_that_were_not_waited_for_is_tried_again_by_itself(
    service: StandIn, through: Batch, pictures: Pictures, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures("a.png")

    def killed(*_: object, **__: object) -> None:
        raise TimedOut("It was not waited for.")

    real = Finisher.finish
    with monkeypatch.context() as cut:
        cut.setattr(
            Finisher, "finish", lambda self, index, *a, **k: (killed if index else real.__get__(self))(index, *a, **k)
        )
        assert through(folder, variations=2) == command.NONE
    assert "over" not in report()[0]
    assert through(folder, variations=2) == command.ALL and len(service.billed) == 2


def test_a_disk_that_takes_no_picture_of_a_workflow_ends_the_run_before_another_is_paid_for(
    service: StandIn, through: Batch, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was left of a run that was killed goes with the next."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder, left = pictures("a.png", "b.png", "c.png"), tmp_path / "out" / ".kontext-batch" / "run-9"
    write_picture(left / "edit_00001_.png")
    with monkeypatch.context() as cut:
        cut.setattr("kontext_bridge.headless.saved._write_whole", full)
        assert through(folder) == command.NONE
    assert len(service.billed) == 1 and not left.exists()
    assert through(folder) == command.ALL and len(service.billed) == 3
