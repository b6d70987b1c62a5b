"""Rows that a flag marks are made again with another seed, and what lay there before is not lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kontext_bridge.batch import __main__ as command
from kontext_bridge.batch import remote_rows
from kontext_bridge.standin import Fault, StandIn
from PIL import Image

REMOTE = ("--set", "output_format=jpg", "--prompt", "make it night", "--flag", "changed_area>0.6")
Batch = Callable[..., int]
Pictures = Callable[..., Path]
Report = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def marks(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], Path]:
    """Have the first so many edits of one picture found to have changed too much; gives the folder of three."""
    folder = pictures("a.png", "b.png", "sub/c.png")
    bad: dict[int, int] = {}
    looked: Counter[int] = Counter()

    def measured(before: Any, _edited: Any) -> dict[str, Any]:
        picture = int(before.rgb.sum())
        looked[picture] += 1
        return {"changed": 0.9 if looked[picture] <= bad.get(picture, 0) else 0.1, "shift": (0, 0), "before": None}

    monkeypatch.setattr(remote_rows, "measured", measured)

    def mark(name: str, times: int) -> Path:
        with Image.open(folder / name) as picture:
            bad[int(np.asarray(picture).sum())] = times
        return folder

    return mark


def last(report: Report, output: str) -> dict[str, Any]:
    return [entry for entry in report() if entry["output"] == output][-1]


def test_a_marked_row_and_no_other_is_made_again_and_paid_once(
    service: StandIn, batch: Batch, marks: Any, report: Report, tmp_path: Path, capsys: Any
) -> None:
    folder, out = marks("a.png", 1), tmp_path / "out"
    assert batch(folder, *REMOTE) == command.ALL and len(service.billed) == 3
    assert "1 of them are marked" in capsys.readouterr().out
    before = {path.name: path.read_bytes() for path in out.rglob("*.jpg")}
    assert batch(folder, *REMOTE, "--rerun-flagged", "--dry-run") == command.ALL
    assert "1 of them are marked, and are made again" in (said := capsys.readouterr().out) and "$0.04, 1 edits" in said
    assert batch(folder, *REMOTE, "--rerun-flagged") == command.ALL and len(service.billed) == 4
    assert "3 of 3 rows are done, $0.16 paid." in capsys.readouterr().out
    entry = last(report, "a.jpg")
    assert (entry["other"], entry["aside"], entry["paid"]) == (1, "a.seed-0.jpg", True) and "flags" not in entry
    assert entry["seed"] in {job.params["seed"] for job in service.jobs.values()} - {0}
    after = {path.name: path.read_bytes() for path in out.rglob("*.jpg")}
    assert after == {**before, "a.seed-0.jpg": before["a.jpg"], "a.jpg": after["a.jpg"]} != before
    # the same again pays nothing; a result that went away is the one that was there
    assert batch(folder, *REMOTE, "--rerun-flagged") == command.ALL
    (out / "a.jpg").unlink()
    assert batch(folder, *REMOTE, "--rerun-flagged") == command.ALL
    assert (out / "a.jpg").read_bytes() == after["a.jpg"] and last(report, "a.jpg")["other"] == 1
    assert len(service.billed) == 4


def test_a_row_gets_so_many_other_seeds_as_were_asked_for_and_each_result_stays(
    service: StandIn, batch: Batch, marks: Any, report: Report, tmp_path: Path, capsys: Any
) -> None:
    folder = marks("sub/c.png", 99)
    assert batch(folder, *REMOTE, "--rerun-flagged", "2") == command.ALL and len(service.billed) == 5
    assert len(list((tmp_path / "out" / "sub").glob("c.seed-*.jpg"))) == 2
    assert batch(folder, *REMOTE, "--rerun-flagged", "2") == command.ALL and len(service.billed) == 5
    capsys.readouterr()
    batch(folder, *REMOTE, "--rerun-flagged", "4", "--dry-run")
    assert "$0.08, 2 edits" in capsys.readouterr().out
    assert batch(folder, *REMOTE, "--rerun-flagged", "3", "--usd", "0.20") == command.ALL and len(service.billed) == 5
    assert batch(folder, *REMOTE, "--rerun-flagged", "3", "--usd", "0.24") == command.ALL and len(service.billed) == 6
    assert last(report, "sub/c.jpg")["other"] == 3
    seeds = [job.params["seed"] for job in service.jobs.values()]
    assert len(set(seeds)) == 4, "0 for all, and three others"


def test_another_seed_that_fails_or_is_killed_leaves_a_result_and_pays_nothing_twice(
    service: StandIn, batch: Batch, marks: Any, report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = marks("a.png", 1), tmp_path / "out"
    assert batch(folder, *REMOTE) == command.ALL
    with monkeypatch.context() as cut:
        cut.setattr("kontext_bridge.batch.journal.Journal.write", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        assert batch(folder, *REMOTE, "--rerun-flagged") == command.SOME
    assert (out / "a.seed-0.jpg").is_file() and not (out / "a.jpg").exists() and len(service.billed) == 4
    marks("a.png", 3)  # what is brought back is looked at again
    assert batch(folder, *REMOTE, "--rerun-flagged") == command.ALL and len(service.billed) == 4
    assert last(report, "a.jpg")["other"] == 1 and (out / "a.jpg").is_file()
    # what was laid aside by the killed run is not laid beside itself
    assert last(report, "a.jpg")["aside"] == "a.seed-0.jpg" and len(list(out.glob("a.seed-*"))) == 1

    marks("b.png", 2)
    (out / "b.jpg").unlink()
    service.set(run_fails=Fault("out of luck", times=1))
    assert batch(folder, *REMOTE, "--rerun-flagged") == command.ALL
    kept, jobs = (out / "b.jpg").read_bytes(), len(service.jobs)
    assert last(report, "b.jpg")["state"] == "failed" and last(report, "b.jpg")["over"]
    assert batch(folder, *REMOTE, "--rerun-flagged") == command.ALL
    assert (out / "b.jpg").read_bytes() == kept and len(service.jobs) == jobs


def test_another_seed_without_a_flag_is_refused(batch: Batch, pictures: Pictures, capsys: Any) -> None:
    assert batch(pictures("a.png"), "--prompt", "x", "--rerun-flagged") == command.NONE
    assert "--flag" in capsys.readouterr().err
