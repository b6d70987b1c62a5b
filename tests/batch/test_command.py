"""The command against the stand-in: every row one result and one bill, whatever happens between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.batch import __main__ as command
from kontext_bridge.batch import remote_rows
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.standin import Fault, StandIn
from patience import PATIENCE
from PIL import Image

REMOTE = ("--set", "output_format=jpg", "--prompt", "make it night")
Batch = Callable[..., int]
Pictures = Callable[..., Path]
Report = Callable[[], list[dict[str, Any]]]


def names(count: int) -> list[str]:
    return [f"{'sub/' if number % 2 else ''}{number}.png" for number in range(count)]


def results(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*.jpg"))
    return sorted(path.as_posix() for path in found)


def test_a_folder_becomes_results_of_the_same_names_each_billed_once(
    service: StandIn, batch: Batch, pictures: Pictures, report: Report, tmp_path: Path
) -> None:
    folder = pictures(*names(5))
    assert batch(folder, *REMOTE) == command.ALL
    assert results(tmp_path / "out") == sorted(name.replace(".png", ".jpg") for name in names(5))
    assert len(service.billed) == 5
    entries = report()
    assert {entry["generation_id"] for entry in entries} == {bill.what for bill in service.billed}
    for entry in entries:
        assert entry["state"] == "done" and entry["seed"] == 0 and entry["size_before"] == "24x16"
        assert entry["cost_usd"] == 0.04 and entry["paid"] and entry["seconds"] > 0
        with Image.open(tmp_path / "out" / entry["file"]) as picture:
            assert f"{picture.width}x{picture.height}" == entry["size"]
    assert not service.leaks and service.key not in (tmp_path / "out" / "report.html").read_text()
    # again: nothing is done, nothing paid, nothing written
    before = (tmp_path / "out" / "report.jsonl").read_bytes()
    assert batch(folder, *REMOTE) == command.ALL
    assert (tmp_path / "out" / "report.jsonl").read_bytes() == before and len(service.billed) == 5
    # a result that went away is brought back for nothing
    (tmp_path / "out" / "0.jpg").unlink()
    assert batch(folder, *REMOTE) == command.ALL
    assert (tmp_path / "out" / "0.jpg").is_file() and len(service.billed) == 5


def test_a_list_says_what_every_row_is_edited_with(
    service: StandIn, batch: Batch, pictures: Pictures, report: Report, tmp_path: Path
) -> None:
    folder = pictures("a.png", "b.png")
    lines = ["image;prompt;seed;output", "a.png;make it night;5;x/one.jpg", "a.png;;6;two.jpg", "b.png;dusk;;three.jpg"]
    (folder / "list.csv").write_text("\r\n".join(lines), encoding="utf-8-sig", newline="")
    assert batch(folder / "list.csv", "--set", "steps=8", "--prompt", "dawn") == command.ALL
    asked = sorted((job.params["prompt"], job.params["seed"]) for job in service.jobs.values())
    assert asked == [("dawn", 6), ("dusk", 0), ("make it night", 5)]
    assert {job.params["num_inference_steps"] for job in service.jobs.values()} == {8}
    assert {entry["where"]: entry["file"] for entry in report()} == {
        "line 2": "x/one.jpg",
        "line 3": "two.jpg",
        "line 4": "three.jpg",
    }
    assert {job.params["output_format"] for job in service.jobs.values()} == {"jpg"}


def test_rows_that_cannot_be_done_fail_alone_and_cost_nothing(
    service: StandIn, batch: Batch, pictures: Pictures, report: Report, tmp_path: Path, capsys: Any
) -> None:
    folder = pictures("good.png")
    (folder / "text.png").write_text("no picture at all")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:200])
    (folder / "empty.png").write_bytes(b"")
    os.mkfifo(folder / "pipe.png")
    assert batch(folder, *REMOTE) == command.SOME
    entries = {entry["output"]: entry for entry in report()}
    assert {name for name, entry in entries.items() if entry["state"] == "failed"} == {
        "text.jpg",
        "cut.jpg",
        "empty.jpg",
    }
    assert all(entry["error"] for entry in entries.values() if entry["state"] == "failed")
    assert len(service.billed) == 1
    # mended, it is done by the same command
    for name in ("text", "cut", "empty"):
        (folder / f"{name}.png").write_bytes((folder / "good.png").read_bytes())
    assert batch(folder, *REMOTE) == command.ALL
    assert len(service.billed) == 1  # the same pixels and words: the ledger has it


def test_none_is_told_by_the_exit_status(service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path) -> None:
    folder = pictures()
    (folder / "text.png").write_text("no picture at all")
    assert batch(folder, *REMOTE) == command.NONE
    assert "text.jpg" in (tmp_path / "out" / "report.html").read_text()


def test_what_failed_at_the_service_is_paid_again_only_where_that_is_asked_for(
    service: StandIn, batch: Batch, pictures: Pictures, report: Report
) -> None:
    folder = pictures("a.png", "b.png")
    service.set(run_fails=Fault("out of luck", times=1))
    assert batch(folder, *REMOTE) == command.SOME
    jobs = len(service.jobs)
    assert batch(folder, *REMOTE) == command.SOME and len(service.jobs) == jobs
    assert [entry["over"] for entry in report() if entry["state"] == "failed"] == [True]
    assert batch(folder, *REMOTE, "--retry-failed") == command.ALL and len(service.jobs) == jobs + 1


def test_a_row_that_the_service_failed_at_before_it_named_a_job_may_have_been_billed_as_well(
    service: StandIn, batch: Batch, pictures: Pictures, report: Report
) -> None:
    folder = pictures("a.png")
    service.set(upstream_error=Fault(times=1))
    assert batch(folder, *REMOTE) == command.NONE and "not say whether that was billed" in report()[0]["error"]
    asked = len(service.requests)
    assert batch(folder, *REMOTE) == command.NONE
    assert "enqueue" not in [request.route for request in service.requests[asked:]]
    assert batch(folder, *REMOTE, "--retry-failed") == command.ALL and len(service.billed) == 1


def test_a_dry_run_tells_rows_and_price_and_sends_and_writes_nothing(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, capsys: Any
) -> None:
    folder = pictures(*names(3))
    assert batch(folder, *REMOTE, "--dry-run") == command.ALL
    said = capsys.readouterr().out
    assert "3 rows" in said and "$0.12" in said and "Nothing was sent" in said
    assert not (tmp_path / "out").exists() and not service.jobs
    batch(folder, *REMOTE)
    capsys.readouterr()
    batch(folder, *REMOTE, "--dry-run")
    assert "3 are done already" in capsys.readouterr().out


def test_it_stops_before_passing_the_limit_and_goes_on_with_a_higher_one(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, capsys: Any
) -> None:
    folder = pictures(*names(6))
    assert batch(folder, *REMOTE, "--usd", "0.13") == command.SOME
    assert len(service.billed) == 3 and "--usd" in capsys.readouterr().err
    assert batch(folder, *REMOTE, "--usd", "0.13") == command.SOME and len(service.billed) == 3
    assert batch(folder, *REMOTE, "--usd", "0.20") == command.SOME and len(service.billed) == 5
    assert batch(folder, *REMOTE) == command.ALL and len(service.billed) == 6
    assert batch(folder, *REMOTE, "--usd", "0") == command.ALL


def test_what_a_run_paid_for_and_could_not_report_counts_against_the_limit(
    service: StandIn, batch: Batch, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = pictures(*names(4))
    monkeypatch.setenv("KONTEXT_BRIDGE_MAX_IN_FLIGHT", "1")
    with monkeypatch.context() as cut:
        cut.setattr("kontext_bridge.batch.journal.Journal.write", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        assert batch(folder, *REMOTE, "--usd", "0.12") == command.NONE
    assert len(service.billed) == 1
    assert batch(folder, *REMOTE, "--usd", "0.12") == command.SOME
    assert len(service.billed) == 3 and len(results(tmp_path / "out")) in (2, 3)


def test_what_failed_at_the_service_and_may_have_been_billed_counts_against_the_limit(
    service: StandIn, batch: Batch, pictures: Pictures, report: Report, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("KONTEXT_BRIDGE_MAX_IN_FLIGHT", "1")
    folder = pictures(*names(4))
    service.set(run_fails=Fault("out of luck", times=2))
    assert batch(folder, *REMOTE, "--usd", "0.12") == command.SOME and len(service.jobs) == 3
    assert "$0.04 paid, and perhaps $0.08 for what failed" in capsys.readouterr().out
    assert batch(folder, *REMOTE, "--usd", "0.12", "--retry-failed") == command.SOME and len(service.jobs) == 3
    assert batch(folder, *REMOTE, "--usd", "0.24", "--retry-failed") == command.ALL and len(service.jobs) == 6
    assert [entry["cost_usd"] for entry in report()] == [0.04] * 6


def test_old_results_leave_the_ledger_s_folder_while_a_long_run_goes_on(
    service: StandIn, batch: Batch, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(remote_rows, "_TIDIED_EVERY", 2)
    monkeypatch.setenv("KONTEXT_BRIDGE_MAX_IN_FLIGHT", "1")
    kept: list[int] = []
    real = Ledger.prune

    def prune(ledger: Ledger, **_: object) -> int:
        removed = real(ledger, max_bytes=0, keep_seconds=0.0)
        kept.append(len(list((tmp_path / "home" / "results").iterdir())))
        return removed

    monkeypatch.setattr(Ledger, "prune", prune)
    assert batch(pictures(*names(5)), *REMOTE) == command.ALL
    assert kept == [0, 0, 0] and len(results(tmp_path / "out")) == len(service.billed) == 5


def test_one_request_in_two_rows_is_paid_once_and_gives_two_results(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, report: Report, capsys: Any
) -> None:
    folder = pictures("a.png")
    (folder / "list.csv").write_text("image,prompt,output\na.png,dusk,b.png\na.png,dusk,c.png\n")
    assert batch(folder / "list.csv") == command.ALL
    assert len(service.billed) == 1 and sum(entry["paid"] for entry in report()) == 1
    assert "$0.04" in capsys.readouterr().out
    assert (tmp_path / "out" / "b.png").read_bytes() == (tmp_path / "out" / "c.png").read_bytes()


def test_parts_share_a_folder_and_have_reports_of_their_own(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path
) -> None:
    folder = pictures(*names(6))
    for part in ("1/2", "2/2", "1/2"):
        assert batch(folder, *REMOTE, "--shard", part) == command.ALL
    assert len(results(tmp_path / "out")) == len(service.billed) == 6
    lines = [len((tmp_path / "out" / f"report-{k}-of-2.jsonl").read_text().splitlines()) for k in (1, 2)]
    assert sum(lines) == 6 and all(lines)


def test_an_error_that_no_row_can_escape_ends_the_run_at_once(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OXEN_API_KEY", "another-key-that-is-wrong")
    assert batch(pictures(*names(30)), *REMOTE) == command.NONE
    assert not service.jobs and len(service.requests) < 20
    assert not (tmp_path / "out" / "report.jsonl").read_text()


def test_results_of_others_are_named_before_anything_is_sent(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, capsys: Any
) -> None:
    folder = pictures("a.png", "b.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.jpg").write_text("mine")
    assert batch(folder, *REMOTE) == command.NONE
    assert "a.jpg" in capsys.readouterr().err and not service.jobs
    (tmp_path / "out" / "a.jpg").unlink()
    assert batch(folder, *REMOTE) == command.ALL
    # another prompt is another request: its results would lie where these are
    assert batch(folder, "--set", "output_format=jpg", "--prompt", "dawn") == command.NONE
    assert len(service.billed) == 2
    assert batch(folder, "--set", "output_format=jpg", "--prompt", "dawn", "--replace") == command.ALL
    assert len(service.billed) == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--local", "x", "--demo", "--prompt", "x"], "two ways"),
        (["--vae", "x", "--prompt", "x"], "--local"),
        (["--map", "image=1.image"], "--workflow"),
        (["--set", "stesp=4", "--prompt", "x"], "stesp"),
        (["--set", "steps=four", "--prompt", "x"], "whole number"),
        (["--flag", "beauty>2", "--prompt", "x"], "changed_area"),
        (["--images", ".", "--prompt", "x"], "folder"),
        ([], "--prompt"),
        (["--pattern", "*.tiff", "--prompt", "x"], "*.tiff"),
    ],
)
def test_a_command_line_that_cannot_be_is_refused(
    batch: Batch, pictures: Pictures, options: list[str], said: str, capsys: Any
) -> None:
    assert batch(pictures("a.png"), *options) == command.NONE
    assert said in capsys.readouterr().err


def test_results_never_lie_among_the_sources(service: StandIn, pictures: Pictures, tmp_path: Path, capsys: Any) -> None:
    folder = pictures("a.png", "sub/b.png")
    for out in (folder, tmp_path):
        assert command.main([str(folder), "-o", str(out), *REMOTE]) == command.NONE
        assert "among the pictures" in capsys.readouterr().err
    # a folder within is passed over by the walk, so that results are no sources
    for _ in range(2):
        assert command.main([str(folder), "-o", str(folder / "edited"), *REMOTE]) == command.ALL
    assert len(service.billed) == 2


def test_a_link_among_the_results_leads_nowhere_outside(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, report: Report
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    assert batch(pictures("a.png", "sub/b.png"), *REMOTE) == command.SOME
    assert not list((tmp_path / "elsewhere").iterdir())
    (error,) = [entry["error"] for entry in report() if entry["state"] == "failed"]
    assert "outside" in error


def test_a_second_batch_into_the_same_folder_is_refused(
    service: StandIn, batch: Batch, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder, statuses = pictures("a.png"), []
    real = remote_rows.RemoteRows.make

    def make(rows: Any, row: Any) -> Any:
        statuses.append(batch(folder, *REMOTE))
        return real(rows, row)

    monkeypatch.setattr(remote_rows.RemoteRows, "make", make)
    assert batch(folder, *REMOTE) == command.ALL
    assert statuses == [command.NONE] and "Another batch" in capsys.readouterr().err


def test_a_full_disk_ends_the_run_and_what_was_paid_comes_with_the_next(
    service: StandIn, batch: Batch, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    folder = pictures(*names(4))
    with monkeypatch.context() as full:
        full.setattr("kontext_bridge.batch.placing.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space")))
        assert batch(folder, *REMOTE) == command.NONE
    assert "No space" in capsys.readouterr().err
    assert batch(folder, *REMOTE) == command.ALL
    assert len(service.billed) == 4 and len(results(tmp_path / "out")) == 4


def test_ctrl_c_leaves_its_jobs_to_the_next_run(
    service: StandIn, batch: Batch, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = pictures(*names(12))
    service.hold("processing")

    def press() -> None:
        service.wait_for(lambda s: len(s.jobs) >= 3)
        os.kill(os.getpid(), signal.SIGINT)

    presses = threading.Thread(target=press)
    presses.start()
    with monkeypatch.context() as watched:
        watched.setenv("KONTEXT_BRIDGE_MAX_IN_FLIGHT", "4")
        assert batch(folder, *REMOTE) == command.STOPPED
    presses.join()
    assert len(service.jobs) <= 4 and not any(job.status.value == "cancelled" for job in service.jobs.values())
    service.release()
    assert batch(folder, *REMOTE) == command.ALL
    assert len(service.jobs) == len(service.billed) == 12


@pytest.fixture
def started(service: StandIn, pictures: Pictures, tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """The command in a process of its own, over so many pictures."""
    processes = []

    def start(count: int) -> subprocess.Popen[bytes]:
        folder = pictures(*names(count))
        words = [sys.executable, "-m", "kontext_bridge.batch", str(folder), "-o", str(tmp_path / "out"), *REMOTE]
        with (tmp_path / "log").open("ab") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            processes.append(subprocess.Popen(words, stdout=log, stderr=log, env=environment))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_killed_in_the_middle_it_goes_on_and_every_row_is_billed_once(
    service: StandIn,
    started: Callable[[int], subprocess.Popen[bytes]],
    batch: Batch,
    pictures: Pictures,
    tmp_path: Path,
) -> None:
    killed = started(24)
    service.wait_for(lambda s: len(s.billed) >= 9, timeout=4 * PATIENCE)
    killed.kill()
    killed.wait()
    with (tmp_path / "out" / "report.jsonl").open("a") as torn:
        torn.write('{"row": 3, "outp')
    done = len(results(tmp_path / "out"))
    assert 0 < done < 24
    status = batch(pictures(), *REMOTE)
    if status == command.SOME:  # killed between its note that it sends and the sending: nobody can know
        status = batch(pictures(), *REMOTE, "--pay-for-lost")
    assert status == command.ALL
    assert len(results(tmp_path / "out")) == len(service.billed) == len(service.jobs) == 24
    lines = (tmp_path / "out" / "report.jsonl").read_text().splitlines()
    assert {json.loads(line)["output"] for line in lines if json.loads(line)["state"] == "done"} == set(
        results(tmp_path / "out")
    )
    left = [path.name for path in (tmp_path / "out" / ".kontext-batch").iterdir()]
    assert left == ["began"]


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from kontext_bridge.batch.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "--dry-run" in done.stdout, done.stderr
