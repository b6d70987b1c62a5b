"""Whose the files are that lie where results are to be: a row's own, another request's, or a picture of the source."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kontext_bridge.batch import __main__ as command
from kontext_bridge.batch import remote_rows
from kontext_bridge.batch.asking import Asking
from kontext_bridge.batch.columns import remote_columns
from kontext_bridge.batch.planning import RowPlan
from kontext_bridge.batch.source_rows import SourceRow, Taken, Unwritable
from kontext_bridge.headless import saved
from kontext_bridge.oxen import private_files
from kontext_bridge.standin import StandIn

Pictures = Callable[..., Path]


def planned(folder: Path, *rows: SourceRow, prompt: str = "x") -> RowPlan:
    plan = RowPlan(Asking(folder, "remote", remote_columns(), {"prompt": prompt}))
    plan.read(rows)
    return plan


def asked_by(plan: RowPlan) -> str:
    return next(plan.to_do(Path("nowhere"), again=True)).asked


def line(plan: RowPlan, state: str, **facts: Any) -> dict[str, Any]:
    return {"output": "a.png", "state": state, "asked": asked_by(plan), **facts}


def test_a_picture_that_was_missing_for_a_while_leaves_its_result_done(pictures: Pictures, tmp_path: Path) -> None:
    """As with a disk that was not mounted when the list was run again."""
    folder, out, row = pictures("a.png"), tmp_path / "out", SourceRow(1, "line 2", "a.png")
    out.mkdir()
    (out / "a.png").write_text("the result")
    there = planned(folder, row)
    (folder / "a.png").rename(tmp_path / "away.png")
    missing = planned(folder, row)
    report = [line(there, "done"), line(missing, "failed", error="There is no picture.")]
    missing.read_report(report)
    assert missing.counts(out, again=False).wrong == 1 and list(missing.lines()) == [1]
    (tmp_path / "away.png").rename(folder / "a.png")
    again = planned(folder, row)
    again.read_report(report)
    again.refuse_overwriting(out, replaces=False)
    assert again.counts(out, again=False).done == 1 and list(again.lines()) == [0]


def test_what_may_have_been_billed_is_remembered_of_each_request(pictures: Pictures, tmp_path: Path) -> None:
    folder, out, row = pictures("a.png"), tmp_path / "out", SourceRow(1, "line 2", "a.png")
    out.mkdir()
    (out / "a.png").write_text("the result")
    night, day = planned(folder, row, prompt="night"), planned(folder, row, prompt="day")
    report = [line(night, "failed", over=True), line(day, "done")]
    night.read_report(report)
    assert night.counts(out, again=False).over == 1 and not list(night.to_do(out, again=False))
    with pytest.raises(Taken, match="made of another request"):
        night.refuse_overwriting(out, replaces=False)
    # what lies there is the last one's, whatever was done before
    report = [line(day, "done"), line(night, "done")]
    day.read_report(report)
    assert day.counts(out, again=False).left == 1 and not list(day.lines())


def test_no_result_is_written_over_a_picture_that_is_to_be_edited(pictures: Pictures) -> None:
    folder = pictures("a.png", "b.png", "sub/a.png")
    one, two = SourceRow(1, "line 2", "a.png", "b.png"), SourceRow(2, "line 3", "b.png", "c.png")
    plan = planned(folder, one, two)
    for results in (folder, folder / ".." / folder.name):
        with pytest.raises(Unwritable, match=r"over pictures that are to be edited: b\.png, the picture of line 3"):
            plan.refuse_overwriting(results, replaces=True)
    assert plan.is_taken("a.png") and not plan.is_taken("a_2.png")
    below = planned(folder, SourceRow(1, "line 2", "sub/a.png"))
    below.refuse_overwriting(folder.parent / "out", replaces=True)
    with pytest.raises(Unwritable, match=r"sub/a\.png"):
        below.refuse_overwriting(folder, replaces=True)
    # a result that is a row's picture in turn stays where it is
    plan.read_report([{"output": "b.png", "state": "done", "asked": asked_by(plan)}])
    plan.refuse_overwriting(folder, replaces=True)


def test_a_result_with_the_longest_name_is_laid_aside_under_a_shorter_one(
    service: StandIn, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = pictures("é" * 125 + "n.png"), tmp_path / "out"
    monkeypatch.setattr(remote_rows, "measured", lambda *_: {"changed": 0.9, "shift": (0, 0), "before": None})
    flags = ("--set", "output_format=jpg", "--prompt", "x", "--flag", "changed_area>0.6", "--rerun-flagged")
    assert command.main([str(folder), "-o", str(out), *flags]) == command.ALL
    assert len(service.billed) == 2
    names = sorted(path.name for path in out.glob("*.jpg"))
    assert len(names) == 2 and names[0].endswith(".seed-0.jpg") and len(names[0].encode()) <= 255


def test_killed_while_it_writes_over_another_request_s_result_the_old_one_is_not_taken_for_the_new(
    service: StandIn, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its line and its place the row was done, with the other request's picture."""
    folder, out = pictures("a.png"), tmp_path / "out"
    words = [str(folder), "-o", str(out), "--set", "output_format=jpg", "--prompt"]
    assert command.main([*words, "night"]) == command.ALL
    (out / "a.jpg").write_text("night")

    real = Path.replace

    def killed(path: Path, target: Any) -> Path:
        if Path(target) == out / "a.jpg":
            raise KeyboardInterrupt
        return real(path, target)

    with monkeypatch.context() as cut:
        cut.setattr(Path, "replace", killed)
        assert command.main([*words, "day", "--replace"]) == command.STOPPED
    assert command.main([*words, "day"]) == command.ALL
    assert (out / "a.jpg").read_bytes() != b"night" and len(service.billed) == 2


def test_on_windows_what_a_scanner_holds_for_a_moment_gets_into_its_place(
    service: StandIn, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results, one that is laid aside, the page, the ledger's own pictures, and what a workflow saves."""
    folder, out, real, held = pictures("a.png"), tmp_path / "out", Path.replace, set[str]()

    def replace(path: Path, target: Any) -> Path:
        if str(target) not in held:
            held.add(str(target))
            raise PermissionError(13, "The process cannot access the file", str(target))
        return real(path, target)

    monkeypatch.setattr(remote_rows, "measured", lambda *_: {"changed": 0.9, "shift": (0, 0), "before": None})
    monkeypatch.setattr(private_files, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(private_files, "_PAUSES", (0.0,))
    monkeypatch.setattr(Path, "replace", replace)
    words = ("--set", "output_format=jpg", "--prompt", "x", "--flag", "changed_area>0.6", "--rerun-flagged")
    assert command.main([str(folder), "-o", str(out), *words]) == command.ALL
    assert {"a.jpg", "a.seed-0.jpg", "report.html"} < {path.name for path in out.iterdir()}
    assert len(held) > 4 and all(map(os.path.lexists, held))
    saved._write_whole(out / "deep" / "kontext.png", b"a picture")
    assert (out / "deep" / "kontext.png").read_bytes() == b"a picture"
