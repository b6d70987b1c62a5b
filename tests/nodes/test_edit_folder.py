"""Kontext Edit Folder: a result and a bill for each picture, whatever happens between; words for what went wrong."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kontext_bridge import host
from kontext_bridge.batch.asking import Asking
from kontext_bridge.batch.columns import remote_columns
from kontext_bridge.batch.planning import RowPlan
from kontext_bridge.headless.run import RunInterrupted
from kontext_bridge.nodes.media import wrong_with_folders
from kontext_bridge.nodes.remote.folder_work import FolderOrder
from kontext_bridge.oxen.errors import InvalidParameters, LocalTrouble, OxenError, SomeFailed, SpendLimitReached
from kontext_bridge.standin import Fault
from PIL import Image

NODE = "KontextEditFolder"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kontext_bridge.standin.picture.SIZES", ((64, 48),))  # quickly drawn


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Pictures of these names in the folder shoot, each another."""

    def make(*names: str) -> Path:
        for number, name in enumerate(names):
            path = tmp_path / "shoot" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (16, 24, 3), np.uint8)
            Image.fromarray(pixels).save(path)
        return tmp_path / "shoot"

    return make


def edit(bench: Any, **inputs: Any) -> tuple[Any, str, Path]:
    given = {"folder": "shoot", "prompt": "a hat", "output_format": "jpg", **inputs}
    sheet, report, path = bench.run(NODE, **given)
    return sheet, report, Path(path)


def found(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))


def test_a_folder_is_edited_once_into_a_folder_of_its_name(bench: Any, put: Any, tmp_path: Path) -> None:
    put("a.png", "b.jpg", "day/c.png")
    sheet, report, path = edit(bench)
    assert path == tmp_path / "output" / "shoot" and found(path) == ["a.jpg", "b.jpg", "day/c.jpg"]
    assert report.startswith("3 of 3 pictures are done, $0.12 paid\n") and str(path) in report
    assert sheet.shape[0] == 1 and sheet.shape[3] == 3 and 0.2 < float(sheet.max()) <= 1
    assert bench.heard.texts[-1] == "3 of 3 done · $0.12"
    shown = bench.result(NODE, folder="shoot", prompt="a hat", output_format="jpg").nodes["node"]
    assert bench.heard.texts[-1] == "3 of 3 done, nothing new · $0.12" and len(bench.server.billed) == 3
    (file,) = shown.files
    with Image.open(file) as drawn:
        assert drawn.size == (sheet.shape[2], sheet.shape[1])
    assert (path / "report.html").is_file() and len((path / "report.jsonl").read_text().splitlines()) == 3


def test_a_name_that_leads_out_is_refused_before_anything_is_sent(bench: Any, put: Any, tmp_path: Path) -> None:
    put("a.png")
    (tmp_path / "elsewhere").mkdir()
    folders = host.MediaFolders(tmp_path / "in", tmp_path / "out", tmp_path / "temp")
    for root in (folders.source, folders.output):
        (root / "shoot").mkdir(parents=True)
        (root / "shoot" / "link").symlink_to(tmp_path / "elsewhere")
    host.set_local_media(folders)
    for name in ("../x", "/etc", "a/../../x", "C:\\x", "~/x", "shoot/link", "..\\x", "a\0b"):
        for which in ("folder", "output"):
            with pytest.raises(InvalidParameters, match=r"leads out .*Nothing was sent"):
                FolderOrder.read(**{"folder": "shoot", "prompt": "a hat", which: name})
            assert "leads out" in str(wrong_with_folders(**{"folder": None, "output": None, which: name}))
    with pytest.raises(Exception, match="leads out"):
        edit(bench, folder="../shoot")
    assert bench.server.requests == [] and list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_that_is_not_there_or_empty_is_told_with_what_there_is(bench: Any, put: Any) -> None:
    put("a.txt.png")
    with pytest.raises(InvalidParameters, match=r"There is no folder 'shot' below .*There are: .*shoot"):
        edit(bench, folder="shot")
    with pytest.raises(InvalidParameters, match=r"folder is empty.*shoot"):
        edit(bench, folder="")
    with pytest.raises(InvalidParameters, match="Give the results a folder"):
        edit(bench, folder=".")
    with pytest.raises(InvalidParameters, match=r"nothing in .* that fits \*\.webp"):
        edit(bench, pattern="*.webp")
    assert bench.server.requests == []


def test_what_fails_is_named_with_its_reason_and_the_others_are_done(bench: Any, put: Any) -> None:
    folder = put("a.png", "b.png", "c.png")
    (folder / "text.png").write_text("no picture")
    bench.server.set(run_fails=Fault("out of luck", times=1))
    sheet, report, path = edit(bench)
    assert len(found(path)) == 2 and report.startswith("2 of 4 pictures are done")
    assert "2 failed:" in report and "text.png: " in report and "out of luck" in report and "retry_failed" in report
    assert bench.heard.texts[-1] == "2 of 4 done · 2 failed · $0.08"
    red = (sheet[0] - sheet.new_tensor([214, 58, 58]) / 255).abs().amax(-1) < 0.02
    assert int(red.sum()) > 200, "what failed is marked"
    jobs = len(bench.server.jobs)
    edit(bench)
    assert len(bench.server.jobs) == jobs, "what may have been billed is not tried again by itself"
    _, report, _ = edit(bench, retry_failed=True)
    assert report.startswith("3 of 4") and len(bench.server.jobs) == jobs + 1


def test_a_report_tells_of_the_pictures_that_are_there_now(bench: Any, put: Any) -> None:
    folder = put("a.png", "b.png")
    (folder / "text.png").write_text("no picture")
    assert "1 failed:" in edit(bench)[1]
    (folder / "text.png").unlink()
    assert edit(bench)[1].startswith("2 of 2 pictures are done, $0.08 paid\nResults")


def test_a_folder_of_which_nothing_could_be_edited_is_an_error_in_words(bench: Any, put: Any) -> None:
    folder = put()
    (bench.folder / "shoot").mkdir()
    for name in ("a.png", "b.png"):
        (bench.folder / "shoot" / name).write_text("no picture")
    with pytest.raises(SomeFailed, match=r"None of the 2 pictures in .*shoot could be edited: This is no picture"):
        edit(bench)
    assert bench.server.jobs == {} and folder.is_dir()


def test_an_account_that_is_refused_ends_the_run_with_its_own_words(
    bench: Any, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(*(f"{number}.png" for number in range(12)))
    monkeypatch.setenv("OXEN_API_KEY", "another-key-that-is-wrong")
    with pytest.raises(OxenError, match="key"):
        edit(bench)
    assert bench.server.jobs == {} and len(bench.server.requests) < 30


def test_it_stops_before_passing_the_limit_and_goes_on_with_a_higher_one(bench: Any, put: Any) -> None:
    put(*(f"{number}.png" for number in range(5)))
    _, report, path = edit(bench, usd_limit=0.1)
    assert len(bench.server.billed) == 2 and "usd_limit, $0.10: 3 are left" in report
    assert bench.heard.texts[-1] == "2 of 5 done · 3 left · $0.08"
    edit(bench, usd_limit=0)
    assert len(bench.server.billed) == 5 and len(found(path)) == 5
    with pytest.raises(SpendLimitReached, match="does not suffice"):
        edit(bench, usd_limit=0.01, output="another", prompt="a coat")


def test_another_prompt_does_not_write_over_results_unless_told_to(bench: Any, put: Any) -> None:
    put("a.png", "a.jpg")
    with pytest.raises(InvalidParameters, match="whole_names"):
        edit(bench)
    _, _, path = edit(bench, whole_names=True)
    assert found(path) == ["a.jpg.jpg", "a.png.jpg"]
    with pytest.raises(InvalidParameters, match="switch replace on") as refused:
        edit(bench, whole_names=True, prompt="a coat")
    assert "--" not in str(refused.value) and len(bench.server.billed) == 2
    edit(bench, whole_names=True, prompt="a coat", replace=True)
    assert len(bench.server.billed) == 4


def test_variations_of_a_picture_whose_name_begins_like_a_drive_lie_among_the_others(tmp_path: Path, put: Any) -> None:
    folder = put("B:1.png", "day/c.png")
    host.set_local_media(host.MediaFolders(tmp_path, tmp_path / "out", tmp_path / "temp"))
    order = FolderOrder.read(folder="shoot", prompt="a hat", variations=2)
    plan = RowPlan(Asking(folder, "remote", remote_columns(), order.values))
    plan.read(order.rows())
    names = sorted(row.output for row in plan.to_do(order.results, again=False))
    assert names == ["B:1_1.png", "B:1_2.png", "day/c_1.png", "day/c_2.png"]


def test_variations_of_a_picture_are_results_of_their_own(bench: Any, put: Any) -> None:
    put("a.png", "day/b.v2.png")
    _, report, path = edit(bench, variations=2, seed=7)
    assert found(path) == ["a_1.jpg", "a_2.jpg", "day/b.v2_1.jpg", "day/b.v2_2.jpg"]
    assert sorted(job.params["seed"] for job in bench.server.jobs.values()) == [7, 7, 8, 8]
    assert report.startswith("4 of 4")


def test_cancel_ends_it_at_once_and_the_next_run_pays_for_nothing_again(bench: Any, put: Any) -> None:
    put(*(f"{number}.png" for number in range(10)))
    bench.server.hold()

    def press() -> None:
        bench.server.wait_for(lambda s: len(s.jobs) >= 3)
        host.request_interrupt()

    presses = threading.Thread(target=press)
    presses.start()
    with pytest.raises(RunInterrupted):
        edit(bench)
    presses.join()
    assert "run again to go on" in bench.heard.texts[-1]
    bench.server.release()
    _, report, path = edit(bench)
    assert report.startswith("10 of 10") and len(found(path)) == 10
    assert len(bench.server.jobs) == len(bench.server.billed) == 10
    assert not any(job.status.value == "cancelled" for job in bench.server.jobs.values())


def test_the_limit_of_a_run_holds_for_a_folder_beside_other_nodes(
    bench: Any, put: Any, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(*(f"{number}.png" for number in range(3)))
    monkeypatch.setenv("KONTEXT_BRIDGE_USD_PER_RUN", "0.08")
    monkeypatch.setattr(host, "run_id", lambda: "a run with a folder")
    bench.edit(images())
    with pytest.raises(SpendLimitReached, match="usd_per_run"):
        edit(bench, usd_limit=5)
    assert len(bench.server.billed) == 2
    lines = (bench.folder / "output" / "shoot" / "report.jsonl").read_text().splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["done"]


def test_a_place_that_takes_no_results_is_told_in_the_nodes_words(bench: Any, put: Any, tmp_path: Path) -> None:
    put("a.png")
    (tmp_path / "output" / "shoot").mkdir(parents=True)
    (tmp_path / "output" / "shoot" / ".kontext-batch").write_text("")
    with pytest.raises(InvalidParameters, match=r"cannot be written into .*Give another output\.$"):
        edit(bench)
    assert bench.server.requests == []


@pytest.mark.parametrize("where", ["_insert", "read_report"])
def test_a_full_folder_for_temporary_files_is_not_taken_for_the_ledger(
    bench: Any, put: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    put("a.png")
    monkeypatch.setattr(RowPlan, where, full)
    with pytest.raises(LocalTrouble, match=r"folder for temporary files.*TMPDIR") as told:
        edit(bench)
    assert "ledger" not in str(told.value) and "command" not in str(told.value)
