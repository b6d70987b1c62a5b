"""Rows on this machine, rows through a workflow, what is measured of them, and the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.batch import __main__ as command
from kontext_bridge.batch.page import MOST_SHOWN, write_page
from kontext_bridge.oxen.errors import TimedOut
from kontext_bridge.standin import StandIn
from PIL import Image
from small_pictures import write_picture
from small_workflow import workflow

Batch = Callable[..., int]
Pictures = Callable[..., Path]
Report = Callable[[], list[dict[str, Any]]]


def test_rows_are_made_on_this_machine_by_a_model_that_is_loaded_once(
    batch: Batch, pictures: Pictures, report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from kontext_bridge.kontext.standalone import workshop

    loaded = []
    real = workshop.mount
    monkeypatch.setattr(workshop, "mount", lambda *a, **k: loaded.append(1) or real(*a, **k))
    folder = pictures("a.png", "sub/b.jpg")
    lines = [
        {"image": "a.png", "prompt": "make it night"},
        {"image": "sub/b.jpg", "prompt": "make it winter", "seed": 3, "keep": "auto", "output": "b.webp"},
        {"image": "a.png", "prompt": "make it night", "aspect_ratio": "2:1", "output": "c"},
    ]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    status = batch(folder / "list.jsonl", "--demo", "--device", "cpu", "--set", "steps=4", "--flag", "changed_area>=0")
    assert status == command.SOME and len(loaded) == 1
    entries = {entry["output"]: entry for entry in report()}
    assert "aspect_ratio" in entries["c.png"]["error"]
    assert entries["a.png"]["size"] == entries["a.png"]["size_before"] == "24x16" and entries["b.webp"]["seed"] == 3
    assert (
        "cost_usd" not in entries["a.png"] and entries["b.webp"]["keep"] and 0 <= entries["a.png"]["changed_area"] <= 1
    )
    assert "changed_area>=0" in entries["a.png"]["flags"]
    with Image.open(tmp_path / "out" / "a.png") as picture:
        assert "Kontext Bridge" in picture.info["Software"]
    # again: what is done is not computed again
    batch(folder / "list.jsonl", "--demo", "--device", "cpu", "--set", "steps=4", "--flag", "changed_area>=0")
    assert len(loaded) == 1
    assert batch(folder / "list.jsonl", "--demo", "--set", "steps=4", "--dry-run") == command.ALL
    assert "cost nothing" in capsys.readouterr().out
    assert entries["a.png"]["made_with"] == entries["b.webp"]["made_with"]
    monkeypatch.setattr("kontext_bridge.batch.makers.likeness", lambda files: f"{len(files)} files of later")
    assert batch(folder / "list.jsonl", "--demo", "--device", "cpu", "--set", "steps=4") == command.NONE
    assert "a.png (made with a model or picture that was exchanged since)" in capsys.readouterr().err


def test_rows_go_through_a_workflow_and_are_billed_once(
    service: StandIn, batch: Batch, pictures: Pictures, report: Report, tmp_path: Path, capsys: Any
) -> None:
    folder = pictures("a.png", "b.png")
    (folder / "text.png").write_text("no picture")
    (folder / "list.csv").write_text("image,prompt,number\na.png,make it night,5\nb.png,dusk,6\ntext.png,dusk,7\n")
    words = ["--workflow", str(workflow(tmp_path)), "--map", "image=1.image", "--map", "prompt=2.prompt"]
    words += ["--map", "number=2.seed", "--set", "2.steps=8"]
    assert batch(folder / "list.csv", *words) == command.SOME
    asked = sorted((job.params["prompt"], job.params["seed"]) for job in service.jobs.values())
    assert asked == [("dusk", 6), ("make it night", 5)] and len(service.billed) == 2
    assert {job.params["num_inference_steps"] for job in service.jobs.values()} == {8}
    entries = {entry["output"]: entry for entry in report()}
    assert entries["text.png"]["state"] == "failed" and "text.png" in entries["text.png"]["error"]
    assert entries["a.png"]["seed"] == 5 and entries["a.png"]["cost_usd"] == 0.04 and entries["a.png"]["paid"]
    (tmp_path / "out" / "a.png").unlink()
    batch(folder / "list.csv", *words)
    assert (tmp_path / "out" / "a.png").is_file() and len(service.billed) == 2
    assert [path.name for path in (tmp_path / "out" / ".kontext-batch").iterdir()] == ["began"]
    # what fits the workflow is looked at before any row
    broken = json.loads((tmp_path / "workflow.json").read_text())
    del broken["2"]["inputs"]["image"]
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    again = ["--workflow", str(tmp_path / "broken.json"), *words[2:], "--replace"]
    lines = len(report())
    assert batch(folder / "list.csv", *again) == command.NONE and len(report()) == lines
    assert 'the required input "image" is missing' in capsys.readouterr().err
    for wrong in (["--map", "image=9.image"], ["--map", "image=1.picture"], ["--map", "prompt=2.prompt"]):
        assert batch(folder / "list.csv", *words[:2], *wrong) == command.NONE
        assert "Nothing was sent" in capsys.readouterr().err


@pytest.mark.parametrize("column", ["output_format", "kind"])
def test_a_workflow_s_result_is_called_by_what_it_is(
    service: StandIn, batch: Batch, pictures: Pictures, report: Report, tmp_path: Path, column: str
) -> None:
    """What the service is asked for is not what SaveImage writes."""
    folder = pictures("a.png", "b.png", "c.png")
    lines = [
        {"image": "a.png", column: "jpg"},
        {"image": "b.png", column: "webp", "output": "sub/b"},
        {"image": "c.png", column: "jpg", "output": "c.jpg"},
    ]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ["--workflow", str(workflow(tmp_path)), "--map", "image=1.image", "--map", f"{column}=2.output_format"]
    assert batch(folder / "list.jsonl", *words) == command.SOME
    assert sorted(job.params["output_format"] for job in service.jobs.values()) == ["jpg", "webp"]
    written = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*.*g")}
    assert written.keys() == {"a.png", "sub/b.png"}
    for path in written.values():
        with Image.open(path) as picture:
            assert picture.format == "PNG"
    (refused,) = [entry for entry in report() if entry["state"] == "failed"]
    assert "saves PNG" in refused["error"] and refused["where"] == "line 3"


def test_a_workflow_stops_before_passing_the_limit(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kontext_bridge.host.comfyui._process_run", "a run of this test")
    words = ["--workflow", str(workflow(tmp_path)), "--map", "image=1.image", "--usd", "0.09"]
    assert batch(pictures("a.png", "b.png", "c.png", "d.png"), *words) == command.SOME
    assert len(service.billed) == 2


def test_what_a_workflow_left_under_way_counts_against_the_limit(
    service: StandIn, batch: Batch, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KONTEXT_BRIDGE_MAX_IN_FLIGHT", "1")  # so that the limit is met at the same row in every run
    words = ["--workflow", str(workflow(tmp_path)), "--map", "image=1.image", "--usd", "0.09"]
    folder = pictures("a.png", "b.png", "c.png", "d.png")

    def killed(*_: object, **__: object) -> None:
        raise TimedOut("It was not waited for.")

    with monkeypatch.context() as cut:
        cut.setattr("kontext_bridge.host.comfyui._process_run", "one run of this test")
        cut.setattr("kontext_bridge.oxen.jobs.finishing.Finisher.finish", killed)
        assert batch(folder, *words) == command.NONE and len(service.jobs) == 2
    monkeypatch.setattr("kontext_bridge.host.comfyui._process_run", "another run of this test")
    assert batch(folder, *words) == command.SOME
    assert len(service.billed) == 2 and len(list((tmp_path / "out").glob("*.png"))) == 2


def test_the_page_shows_failures_first_asks_for_nothing_and_lets_no_text_in(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "a.png")
    write_picture(tmp_path / "out" / "a b&c.png", 1)
    evil = "<script>alert(1)</script>"
    entries = [
        {"output": "a b&c.png", "image": "a.png", "state": "done", "where": "a.png", "seconds": 1.0, "seed": 0},
        {"output": "bad.png", "image": f"{evil}.png", "state": "failed", "error": evil, "seconds": 0.1},
        {"output": "odd.png", "image": "a.png", "state": "done", "flags": [evil], "keep": evil, "seconds": 1.0},
    ]
    page = tmp_path / "out" / "report.html"
    write_page(page, lambda: iter(entries), results=tmp_path / "out", images=tmp_path / "images", summary=evil)
    text = page.read_text()
    assert text.index("Failed: 1") < text.index("Marked: 1") < text.index("Done: 1")
    assert evil not in text and "&lt;script&gt;" in text
    assert text.count("data:image/webp;base64,") == 3 and not re.findall(r"https?://", text)
    assert 'href="a%20b%26c.png"' in text and not list(page.parent.glob(".*"))


def test_the_page_of_very_many_rows_shows_some_of_each_kind(tmp_path: Path) -> None:
    many = [{"output": f"{n}.png", "image": "a.png", "state": "failed", "seconds": 0} for n in range(3 * MOST_SHOWN)]
    write_page(tmp_path / "page.html", lambda: iter(many), results=tmp_path, images=tmp_path, summary="")
    text = (tmp_path / "page.html").read_text()
    assert text.count('class="row failed"') == MOST_SHOWN and "one in 3" in text
