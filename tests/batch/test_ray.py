"""A batch over a Ray cluster: as on one machine, whichever process dies."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.batch import __main__ as command
from kontext_bridge.standin import Fault, StandIn
from patience import PATIENCE
from PIL import Image
from ray_head import PATIENT, Head, ray_head

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or sys.platform == "win32",
    reason="needs Ray: python -m pip install 'ray>=2.40'",
)
REMOTE = ("--set", "output_format=jpg", "--prompt", "make it night")
MANY = 500
ARTIST = 0x013B
Start = Callable[..., "Running"]
Pictures = Callable[..., Path]


class Running:
    """The command in a process of its own, into the folder `out`."""

    def __init__(self, words: list[str], out: Path, log: Path) -> None:
        self.report = out / "report.jsonl"
        self._log = log
        with log.open("ab") as file:
            environment = {**os.environ, **PATIENT, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(words, stdout=file, stderr=file, env=environment)

    def lines(self) -> list[dict[str, Any]]:
        if not self.report.exists():
            return []
        return [json.loads(line) for line in self.report.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def wait_for(self, rows: int) -> None:
        until = time.monotonic() + 60 * PATIENCE
        while len(self.lines()) < rows:
            assert self.process.poll() is None and time.monotonic() < until, self._log.read_text()
            time.sleep(0.1)

    def ends_with(self, status: int) -> None:
        assert self.process.wait(60 * PATIENCE) == status, self._log.read_text()


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as running:
        yield running


@pytest.fixture
def start(head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv("KONTEXT_BRIDGE_HOME", str(tmp_path / "home"))
    started: list[Running] = []

    def run(source: Path, *options: str) -> Running:
        words = [sys.executable, "-m", "kontext_bridge.batch", str(source), "-o", str(tmp_path / "out")]
        started.append(Running([*words, "--ray", head.address, *options], tmp_path / "out", tmp_path / "log"))
        return started[-1]

    yield run
    for one in started:
        one.process.kill()
        one.process.wait()


def killed(head: Head, *doing: str) -> str:
    """Kill one of the processes that are at one of these, the first rather than the last; gives what it was at."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        processes = head.processes()
        for one in doing:
            for pid, title in processes.items():
                if one in title:
                    os.kill(pid, signal.SIGKILL)
                    return title
    raise AssertionError(f"no process at {doing}: {head.processes()}")


def every_row_once(run: Running, out: Path, count: int) -> list[dict[str, Any]]:
    lines = run.lines()
    assert len(lines) == len({line["output"] for line in lines}) == count
    assert {line["state"] for line in lines} == {"done"}
    assert all((out / line["file"]).is_file() for line in lines) and (out / "report.html").is_file()
    return lines


def test_a_killed_worker_costs_no_row_and_no_bill(
    service: StandIn, start: Start, head: Head, pictures: Pictures, tmp_path: Path
) -> None:
    run = start(pictures(*(f"{number % 7}/{number}.png" for number in range(MANY))), *REMOTE)
    run.wait_for(MANY // 3)
    assert "Paymaster" not in killed(head, "prepared", "finished_file", "IDLE")
    run.ends_with(command.ALL)
    lines = every_row_once(run, tmp_path / "out", MANY)
    assert len(service.billed) == len(service.jobs) == MANY
    assert {line["generation_id"] for line in lines} == {bill.what for bill in service.billed}
    assert all(line["paid"] and line["how"] == "new" and line["cost_usd"] == 0.04 for line in lines)
    assert f"${MANY * 4 / 100:.2f} paid" in (tmp_path / "log").read_text()
    # the key is in no log of Ray's, in no process but the one that pays, and in nothing that the driver says
    key = service.key.encode()
    assert not any(key in text for text in head.logs()) and key not in (tmp_path / "log").read_bytes()


def test_a_killed_driver_goes_on_and_pays_for_nothing_again(
    service: StandIn, start: Start, head: Head, pictures: Pictures, tmp_path: Path
) -> None:
    folder = pictures(*(f"{number}.png" for number in range(60)))
    run = start(folder, *REMOTE)
    run.wait_for(20)
    run.process.kill()
    run.process.wait()
    again = start(folder, *REMOTE)
    if again.process.wait(60 * PATIENCE) == command.SOME:  # killed between a note and its sending: nobody can know
        again = start(folder, *REMOTE, "--pay-for-lost")
    again.ends_with(command.ALL)
    assert {line["output"] for line in again.lines() if line["state"] == "done"} == {f"{n}.jpg" for n in range(60)}
    assert len(service.billed) == 60


def test_a_killed_paymaster_ends_the_run_and_the_next_pays_for_nothing_again(
    service: StandIn, start: Start, head: Head, pictures: Pictures, tmp_path: Path
) -> None:
    folder = pictures(*(f"{number}.png" for number in range(40)))
    run = start(folder, *REMOTE)
    run.wait_for(10)
    killed(head, "Paymaster")
    run.ends_with(command.SOME)
    assert "process with the ledger" in (tmp_path / "log").read_text()
    again = start(folder, *REMOTE)
    if again.process.wait(60 * PATIENCE) == command.SOME:
        again = start(folder, *REMOTE, "--pay-for-lost")
    again.ends_with(command.ALL)
    assert len(service.billed) == 40


def test_what_ends_a_row_or_the_run_is_told_as_on_one_machine(
    service: StandIn, start: Start, pictures: Pictures, tmp_path: Path
) -> None:
    folder = pictures("a.png", "b.png", "c.png", "d.png")
    (folder / "text.png").write_text("no picture at all")
    (folder / "kept.csv").write_text(
        "image,keep,output\na.png,auto,a.jpg\nb.png,,b.jpg\nc.png,,c.jpg\nd.png,,d.jpg\ntext.png,,e.jpg\n"
    )
    service.set(run_fails=Fault("out of luck", times=1))
    run = start(folder / "kept.csv", *REMOTE, "--usd", "0.13")
    run.ends_with(command.SOME)
    entries = {line["output"]: line for line in run.lines()}
    failed = {name: line["error"] for name, line in entries.items() if line["state"] == "failed"}
    assert "no picture" in failed.pop("e.jpg") or entries["e.jpg"]["error"]
    assert [entries[name].get("over") for name in failed] == [True]
    assert len(service.jobs) == 3 and "before passing --usd" in (tmp_path / "log").read_text()


def test_what_is_marked_is_made_again_and_results_say_what_their_pictures_files_did(
    service: StandIn, start: Start, pictures: Pictures, tmp_path: Path
) -> None:
    folder, exif = pictures("a.png"), Image.Exif()
    exif[ARTIST] = "Ann"
    with Image.open(folder / "a.png") as picture:
        picture.save(folder / "a.jpg", exif=exif)
    (folder / "a.png").unlink()
    again = ("--flag", "changed_area>=0", "--rerun-flagged", "2")
    for words, billed in ((again, 3), ((*again, "--usd", "0.12"), 3)):
        start(folder, *REMOTE, *words).ends_with(command.ALL)
        assert len(service.billed) == billed
    results = sorted((tmp_path / "out").glob("*.jpg"))
    assert len(results) == 3 and results[0].name == "a.jpg" and all(".seed-" in one.name for one in results[1:])
    for result in results:
        with Image.open(result) as opened:
            assert opened.getexif()[ARTIST] == "Ann"


def test_a_model_of_a_killed_worker_s_rows_are_done_by_another(
    start: Start, head: Head, pictures: Pictures, tmp_path: Path
) -> None:
    folder = pictures(*(f"{number}.png" for number in range(40)))
    run = start(folder, "--demo", "--workers", "2", "--set", "steps=4", "--prompt", "make it night")
    run.wait_for(10)
    killed(head, "LocalWorker.make", "LocalWorker")
    run.ends_with(command.ALL)
    every_row_once(run, tmp_path / "out", 40)
