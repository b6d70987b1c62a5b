"""What unlucky and hostile people meet: odd names, folders in folders, reports touched by hand."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import sqlite3
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk import full_disk
from kontext_bridge.batch import __main__ as command
from kontext_bridge.batch import naming
from kontext_bridge.batch.asking import Asking
from kontext_bridge.batch.columns import remote_columns
from kontext_bridge.batch.contact_sheet import contact_sheet
from kontext_bridge.batch.journal import Journal, read_journal
from kontext_bridge.batch.made import PlannedRow, RowResult
from kontext_bridge.batch.manifest import read_manifest
from kontext_bridge.batch.page import write_page
from kontext_bridge.batch.placing import Placer, cleared
from kontext_bridge.batch.planning import RowPlan
from kontext_bridge.batch.source_rows import SourceError, SourceRow
from kontext_bridge.batch.walking import walk
from kontext_bridge.batch.workflow_rows import Recipe
from kontext_bridge.headless.changes import SettingError
from kontext_bridge.standin import StandIn
from PIL import Image
from small_pictures import write_picture

REMOTE = ("--set", "output_format=jpg", "--prompt", "make it night")
Batch = Callable[..., int]
Pictures = Callable[..., Path]
Report = Callable[[], list[dict[str, Any]]]


def planned(folder: Path, rows: list[SourceRow], **options: Any) -> RowPlan:
    plan = RowPlan(Asking(folder, "remote", remote_columns(), {"prompt": "x"}, **options))
    plan.read(rows)
    return plan


def test_results_of_another_batch_below_the_folder_are_no_sources(
    service: StandIn, pictures: Pictures, tmp_path: Path
) -> None:
    folder = pictures("a.png", "sub/b.png")
    assert command.main([str(folder), "-o", str(folder / "night"), *REMOTE]) == command.ALL
    assert command.main([str(folder), "-o", str(folder / "dawn"), *REMOTE[:2], "--prompt", "dawn"]) == command.ALL
    assert len(service.billed) == 4
    # results as a source of their own are edited
    assert command.main([str(folder / "night"), "-o", str(tmp_path / "c"), *REMOTE[:2], "--prompt", "x"]) == command.ALL
    assert len(service.billed) == 6


def test_a_picture_whose_name_begins_like_a_drive_is_a_picture(pictures: Pictures, tmp_path: Path) -> None:
    folder = pictures("a.png", "B:1.png")
    plan = planned(folder, list(walk(folder)))
    assert sorted(row.output for row in plan.to_do(tmp_path, again=False)) == ["B:1.png", "a.png"]
    rows = [SourceRow(1, "line 2", "C:/x/a.png"), SourceRow(2, "line 3", "a.png")]
    assert planned(folder, rows).counts(tmp_path, again=False).wrong == 1


def test_a_folder_whose_name_is_no_text_is_a_folder(tmp_path: Path) -> None:
    """As on a disk that was written when names were Latin-1."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    write_picture(folder / "a.png")
    plan = planned(folder, [*walk(folder), SourceRow(2, "line 3", "gone.png"), SourceRow(3, "line 4", "../b.png")])
    assert [row.path for row in plan.to_do(tmp_path, again=False) if row.problem is None] == [folder / "a.png"]
    assert "caf\\udce9" in plan.first_problems()[0]
    plan.refuse_overwriting(folder / "out", replaces=False)


def test_a_link_that_leads_in_a_circle_ends_nothing(pictures: Pictures) -> None:
    folder = pictures("a.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    assert [row.image for row in walk(folder)] == ["a.png"]


def test_what_was_paid_stays_paid_when_its_result_is_brought_back(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KONTEXT_BRIDGE_MAX_IN_FLIGHT", "1")  # so that the first three are the ones paid
    folder = pictures(*(f"{n}.png" for n in range(6)))
    assert batch(folder, *REMOTE, "--usd", "0.12") == command.SOME
    for result in (tmp_path / "out").glob("*.jpg"):
        result.unlink()
    assert batch(folder, *REMOTE, "--usd", "0.12") == command.SOME
    assert batch(folder, *REMOTE, "--usd", "0.12") == command.SOME
    assert len(service.billed) == 3


ODD_LINES = [
    '{"output": "0.jpg"}',
    '{"output": "1.jpg", "state": "done", "paid": true, "cost_usd": "much"}',
    '{"output": "2.jpg", "state": "done", "paid": true, "cost_usd": NaN}',
    '{"output": "3.jpg", "state": "done", "paid": true, "cost_usd": -1000}',
    '{"output": "4.jpg", "state": ["done"], "paid": true, "cost_usd": [1]}',
    '{"output": "\\ud800.jpg", "state": "done"}',
    '{"output": "\\u0000.jpg", "state": "done", "image": "\\u0000"}',
    '{"output": "5.jpg", "state": "failed", "error": {"a": "\\ud800"}, "flags": 7, "where": [], "time": "x"}',
    '{"output": "6.jpg", "state": "done", "paid": true, "cost_usd": 1e999}',
    '{"output": "7.jpg", "state": "done", "paid": true, "cost_usd": true}',
    '{"output": "8.jpg", "state": "done", "asked": "\\ud800", "seed": 18446744073709551615, "other": 1e99}',
    '{"output": "9.jpg", "state": "done", "paid": true, "cost_usd": 0, "generation_id": "\\ud800", "other": 1'
    + "0" * 99
    + "}",
    "[1]",
    "\ufeff",
    "\x00\x00",
]


def test_a_report_touched_by_hand_ends_no_run_and_raises_no_limit(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path
) -> None:
    folder = pictures(*(f"{n}.png" for n in range(4)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.jsonl").write_text("\n".join(ODD_LINES) + "\n")
    assert batch(folder, *REMOTE, "--usd", "0.09") == command.SOME
    assert len(service.billed) == 2


def test_a_report_without_its_last_line_break_keeps_its_last_line(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path
) -> None:
    folder = pictures("a.png")
    assert batch(folder, *REMOTE) == command.ALL
    path = tmp_path / "out" / "report.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    folder = pictures("a.png", "b.png")
    assert batch(folder, *REMOTE) == command.ALL
    assert batch(folder, *REMOTE) == command.ALL
    assert len(service.billed) == 2


@pytest.mark.parametrize("way", ["removed by hand", "a folder with --replace"])
def test_a_folder_in_a_results_place_fails_that_row_alone(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, report: Report, way: str
) -> None:
    folder = pictures("a.png", "b.png", "c.png")
    if way == "removed by hand":
        assert batch(folder, *REMOTE) == command.ALL
        (tmp_path / "out" / "a.jpg").unlink()
    (tmp_path / "out" / "a.jpg").mkdir(parents=True)
    assert batch(folder, *REMOTE, "--replace") == command.SOME
    assert [entry["output"] for entry in report() if entry["state"] == "failed"] == ["a.jpg"]
    assert len(service.billed) == 3
    (tmp_path / "out" / "a.jpg").rmdir()
    assert batch(folder, *REMOTE) == command.ALL and len(service.billed) == 3


def test_a_name_that_the_disk_refuses_fails_that_row_alone(
    service: StandIn, batch: Batch, pictures: Pictures, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures("a.png", "b.png", "c.png")
    real = Path.replace

    def replace(path: Path, target: Any) -> Any:
        if Path(target).name == "b.jpg":
            raise OSError(22, "Invalid argument", str(target))
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert batch(folder, *REMOTE) == command.SOME
    assert sorted(e["output"] for e in report() if e["state"] == "failed") == ["b.jpg"]


def test_a_file_in_the_place_of_the_batchs_own_folder_is_told(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".kontext-batch").write_text("")
    assert batch(pictures("a.png"), *REMOTE) == command.NONE
    said = capsys.readouterr().err
    assert "KONTEXT_BRIDGE_HOME" not in said and "--output" in said


def test_names_that_are_one_on_this_disk_are_named_before_anything_is_sent(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, capsys: Any
) -> None:
    """A disk that knows no upper and lower case is told by its answer to the batch's own folder."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".KONTEXT-BATCH").symlink_to(".kontext-batch")
    folder = pictures("A.png", "a.png")
    assert batch(folder, *REMOTE) == command.NONE
    assert "over one another" in capsys.readouterr().err and not service.jobs


WINDOWS = [
    "con.png",
    "AUX.png",
    "aux .png",
    "nul",
    "COM1.png",
    "com\u00b9.png",
    "CONIN$.png",
    "a./b.png",
    "a /b.png",
    "a:b.png",
    "a?.png",
    "lpt9.tar.png",
    'a".png',
]


@pytest.mark.parametrize("name", WINDOWS)
def test_names_that_windows_has_for_itself_fail_their_rows_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "_WINDOWS", True)
    with pytest.raises(naming.RowError, match="Windows"):
        naming.result_name(SourceRow(1, "line 1", name), "png", whole=False)


ROWS = [
    {"image": "a.png", "seed": True},
    {"image": "a.png", "seed": float("inf")},
    {"image": "a.png", "seed": 1e300},
    {"image": "a.png", "steps": "20"},
    {"image": "a.png", "disable_safety_checker": "false"},
    {"image": "a.png", "guidance": float("nan")},
    {"image": "a.png", "prompt": 5},
    {"image": "a.png", "prompt": "x\ud800"},
    {"image": "a.png", "aspect_ratio": "\ud800"},
    {"image": "a.png", "output_format": "\ud800"},
    {"image": "a.png", "output_format": 5},
    {"image": "a.png", "keep": True},
    {"image": "a.png", "keep": "\ud800"},
    {"image": "a.png", "namespace": "\ud800"},
    {"image": "a.png", "namespace": 5},
    {"image": "\ud800.png"},
    {"image": "a.png", "output": "\ud800.png"},
    {"image": "a.png", "output": "\u0000.png"},
    {"image": "\u0000.png"},
    {"image": 5},
    {"image": True},
    {"image": "a.png", "output": 5},
    {"image": "a.png", "output": False},
    {"image": "a.png", "seed": -1},
    {"image": "a.png", "seed": 2**64},
    {"image": "."},
    {"image": "sub"},
    {"image": "a.png/b"},
    {"image": "x" * 5000},
    {"image": "a.png", "output": "x/" * 1200 + "a"},
    {"image": "a.png", "output": " "},
    {},
]


def test_a_row_whose_result_has_no_name_meets_no_other_row(pictures: Pictures, tmp_path: Path) -> None:
    folder = pictures("a.png", "b.png", "c.png")
    names = ("x\x07.png", "row-1.png", "row-1/c.png")
    rows = [SourceRow(n, f"line {n + 1}", f"{'abc'[n - 1]}.png", name) for n, name in enumerate(names, 1)]
    plan = planned(folder, rows)
    plan.read_report([{"output": next(plan.to_do(tmp_path, again=False)).output, "state": "failed", "asked": ""}])
    assert plan.counts(tmp_path / "out", again=False).wrong == 1 and "No file" in plan.first_problems()[0]


def test_an_odd_row_of_jsonl_fails_alone(pictures: Pictures, tmp_path: Path) -> None:
    folder = pictures("a.png", "good.png", "sub/c.png")
    for row in ROWS:
        (folder / "list.jsonl").write_text(json.dumps(row) + '\n{"image": "good.png"}\n')
        plan = planned(folder, list(read_manifest(folder / "list.jsonl", remote_columns(), {"prompt": "x"})))
        counts = plan.counts(tmp_path / "out", again=False)
        assert (counts.all, counts.left, counts.wrong) == (2, 2, 1), row
        plan.close()


def thumbnails(page: Path) -> list[Image.Image]:
    found = re.findall(r"base64,([A-Za-z0-9+/=]+)", page.read_text())
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def test_the_page_shows_pictures_as_they_were_sent(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    held = Image.new("RGB", (40, 20), "red")
    held.paste("blue", (0, 0, 20, 20))
    held.save(tmp_path / "held.png", exif=exif)
    Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(tmp_path / "grey.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "grey.png").read_bytes()[:45])
    entries = [{"output": "x.png", "image": f"{one}.png", "state": "failed"} for one in ("held", "grey", "cut")]
    write_page(tmp_path / "p.html", lambda: iter(entries), results=tmp_path, images=tmp_path, summary="")
    upright, grey = thumbnails(tmp_path / "p.html")
    assert upright.size == (20, 40) and upright.convert("RGB").getpixel((10, 5))[2] > 200
    assert abs(grey.convert("L").getpixel((4, 4)) - 128) < 6


def test_the_page_and_the_sheet_show_no_picture_that_a_list_may_not_name(tmp_path: Path) -> None:
    """A list from elsewhere would have it in a page that goes back to where the list came from."""
    secret = write_picture(tmp_path / "secret.png")
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    out.mkdir()
    os.mkfifo(images / "pipe.png")  # opened, it would wait for ever
    names = ("../secret.png", str(secret), "pipe.png", "a/../../secret.png", "\0", 5)
    entries = [{"output": f"{n}.png", "image": name, "state": "failed"} for n, name in enumerate(names)]
    write_page(out / "p.html", lambda: iter(entries), results=out, images=images, summary="")
    assert not thumbnails(out / "p.html") and "before: not readable" in (out / "p.html").read_text()

    def drawn(image: object) -> bytes:
        entry = {"output": "a.png", "image": image, "state": "failed"}
        return contact_sheet(lambda: iter([entry]), results=out, images=images).crop((0, 0, 170, 170)).tobytes()

    assert {drawn(name) for name in names} == {drawn("nothing.png")}


def test_no_name_moves_the_cursor_of_a_terminal(
    service: StandIn, batch: Batch, pictures: Pictures, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pictures("a.png")
    (folder / "\x1b[2J\u202e.png").write_bytes(b"")
    (folder / "list.csv").write_text("image,prompt\n\x1b]0;x\x07.png,x\n", encoding="utf-8")
    assert batch(folder, *REMOTE) == command.SOME
    assert batch(folder / "list.csv", "--dry-run") == command.ALL
    said = "".join(capsys.readouterr())
    assert "\x1b" not in said and "\u202e" not in said and "\\x1b]0;x\\x07" in said


def test_a_full_folder_for_temporary_files_is_told(
    batch: Batch, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(RowPlan, "_insert", full)
    assert batch(pictures("a.png"), *REMOTE) == command.NONE
    assert "TMPDIR" in capsys.readouterr().err


def test_a_line_is_on_the_disk_before_its_result_is_in_its_place(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pulled in between, the plug would leave results of unknown origin, which the next run refuses to write over."""
    order: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle: int) -> None:
        order.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real_sync(handle)

    def replace(path: Path, target: Any) -> Any:
        order.append(Path(target).name)
        return real_replace(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    assert batch(pictures("a.png"), *REMOTE) == command.ALL
    assert order.index("report.jsonl") < order.index("a.jpg")


def recipe(tmp_path: Path, *mapping: str) -> Recipe:
    document = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "nothing.png"}},
        "2": {"class_type": "KontextEdit", "inputs": {"image": ["1", 0], "prompt": "x", "seed": 0}},
        "3": {"class_type": "KontextEdit", "inputs": {"image": ["2", 0], "prompt": "y", "seed": 0}},
        "5": {"class_type": "LoadImage", "inputs": {"image": "nothing.png"}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "edit"}},
    }
    (tmp_path / "flow.json").write_text(json.dumps(document))
    return Recipe(tmp_path / "flow.json", ["image=1.image", *mapping], [])


def test_a_cell_is_a_value_as_it_stands_and_never_a_link(tmp_path: Path) -> None:
    made = recipe(tmp_path, "prompt=2.prompt", "prompt=3.prompt", "seed=2.seed")

    def filled(**values: Any) -> dict[str, Any]:
        row = PlannedRow(1, "line 2", "a.png", tmp_path / "a.png", "a.png", "", values)
        return made.filled(row).nodes["2"].inputs | {"other": made.filled(row).nodes["3"].inputs["prompt"]}

    for text in ('["1", 0]', '"quoted"', "1e3", "{}", "null"):
        found = filled(prompt=text, seed="5")
        assert (found["prompt"], found["other"], found["seed"]) == (text, text, 5)
    with pytest.raises(SettingError, match="one value"):
        filled(seed='["1", 0]')
    with pytest.raises(SourceError, match="has a column already"):
        recipe(tmp_path, "prompt=2.prompt", "text=2.prompt")


def test_no_column_names_a_picture_outside_of_the_lists_and_the_workflows_folder(tmp_path: Path) -> None:
    """A list may come from anywhere: any picture of the machine could be sent away by a second picture's column."""
    images, flows = tmp_path / "images", tmp_path / "flows"
    beside, own = write_picture(images / "sub" / "b.png"), write_picture(flows / "own.png")
    secret = write_picture(tmp_path / "secret.png")
    made = recipe(flows, "second=5.image")

    def second(name: object) -> object:
        values = {"second": name}
        row = PlannedRow(1, "line 2", "sub/a.png", images / "sub" / "a.png", "a.png", "", values)
        return made.filled(row).nodes["5"].inputs["image"]

    assert second("sub/b.png") == second("sub\\b.png") == second(str(beside)) == str(beside)
    assert second("own.png") == second("own.png [input]") == str(own)
    for name in (str(secret), "secret.png", "../secret.png", "sub/../../secret.png", "nothing.png", "", "\0", 5):
        with pytest.raises(SettingError, match=r"^5\.image: .* no picture .*--images a folder"):
            second(name)


def test_a_rows_further_pictures_write_over_nobodys_file(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a_2.png").write_text("mine")
    write_picture(tmp_path / "a.png")
    row = PlannedRow(1, "a.png", "a.png", tmp_path / "a.png", "a.png", "", {})
    for _ in range(2):
        plan = planned(tmp_path, list(walk(tmp_path, ["a.png"])))
        plan.read_report(read_journal(tmp_path / "out" / "report.jsonl"))
        journal = Journal(tmp_path / "out" / "report.jsonl")
        placer = Placer(
            tmp_path / "out",
            cleared(tmp_path / "out" / ".w"),
            journal,
            partial(plan.is_taken, results=tmp_path / "out"),
        )
        placer.done(row, RowResult(b"one", {}, more=((".png", b"two"),)), 1.0)
        journal.close()
    assert (tmp_path / "out" / "a_2.png").read_text() == "mine"
    assert (tmp_path / "out" / "a_2-1.png").read_bytes() == b"two" and len(list((tmp_path / "out").glob("*.png"))) == 3


def test_killed_between_two_pictures_of_a_row_the_row_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "a.png")
    (row,) = planned(tmp_path, list(walk(tmp_path))).to_do(tmp_path / "out", again=False)
    real, placed = Path.replace, []

    def killed(path: Path, target: Any) -> Any:
        if placed:
            raise KeyboardInterrupt
        placed.append(target)
        return real(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    journal = Journal(tmp_path / "report.jsonl")
    placer = Placer(tmp_path / "out", cleared(tmp_path / "out" / ".w"), journal, lambda _: False)
    with pytest.raises(KeyboardInterrupt):
        placer.done(row, RowResult(b"one", {}, more=((".png", b"two"),)), 1.0)
    plan = planned(tmp_path, list(walk(tmp_path, ["a.png"])))
    plan.read_report(read_journal(tmp_path / "report.jsonl"))
    journal.close()
    assert plan.counts(tmp_path / "out", again=False).done == 0


def test_a_report_that_can_grow_no_more_ends_the_run_in_words_and_loses_nothing(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.jsonl").write_text("#" * 1_999_900 + "\n")
    folder = pictures("a.png", "b.png")
    with full_disk(2_000_000):
        assert batch(folder, *REMOTE) == command.NONE
    assert "What was paid for is in the ledger" in capsys.readouterr().err
    assert batch(folder, *REMOTE) == command.ALL and len(service.billed) == 2


def test_a_python_without_torch_is_told(
    service: StandIn,
    batch: Batch,
    pictures: Pictures,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "kontext_bridge.batch.remote_rows", None)
    assert batch(pictures("a.png"), *REMOTE) == command.NONE
    assert "not installed here" in capsys.readouterr().err and not service.jobs
