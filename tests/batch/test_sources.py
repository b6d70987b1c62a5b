"""Folders and lists as people have them: one clear error before anything is sent, or one row that says why."""

from __future__ import annotations

import json
import os
import tracemalloc
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.batch.asking import Asking
from kontext_bridge.batch.columns import remote_columns
from kontext_bridge.batch.manifest import read_manifest
from kontext_bridge.batch.naming import inside, result_name
from kontext_bridge.batch.planning import RowPlan
from kontext_bridge.batch.source_rows import RowError, SourceError, SourceRow
from kontext_bridge.batch.walking import walk
from small_pictures import write_picture


def rows_of(path: Path, **defaults: Any) -> list[SourceRow]:
    return list(read_manifest(path, remote_columns(), defaults))


def written(folder: Path, data: str | bytes, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def planned(folder: Path, rows: list[SourceRow], **options: Any) -> RowPlan:
    plan = RowPlan(Asking(folder, "remote", remote_columns(), {"prompt": "x"}, **options))
    plan.read(rows)
    return plan


def test_a_folder_is_walked_with_its_folders_patterns_and_without_what_is_hidden(
    pictures: Callable[..., Path],
) -> None:
    folder = pictures("a.png", "B.JPG", "sub/c.webp", ".hidden.png", ".d/e.png", "out/f.png")
    (folder / "notes.txt").write_text("no picture")
    (folder / "loop").symlink_to(folder)
    assert sorted(row.image for row in walk(folder, skip=folder / "out")) == ["B.JPG", "a.png", "sub/c.webp"]
    assert [row.image for row in walk(folder, ["*.jpg"])] == ["B.JPG"]
    assert [row.image for row in walk(folder, ["sub/*"])] == ["sub/c.webp"]
    assert sorted(row.image for row in walk(folder, deep=False)) == ["B.JPG", "a.png"]


def test_a_file_whose_name_is_no_text_is_one_row_that_says_so(pictures: Callable[..., Path]) -> None:
    folder = pictures("a.png")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(b"")
    problems = {row.image: row.problem for row in walk(folder)}
    assert problems.pop("a.png") is None
    assert ["rename" in str(problem) for problem in problems.values()] == [True]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("comma", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_list_is_read_whatever_program_wrote_it(tmp_path: Path, ends: str, comma: str, mark: str) -> None:
    lines = [["image", "prompt", "steps"], ["a.png", '"make it ""night"", now"', "20"], ["b.png", "day", ""], [""]]
    path = written(tmp_path, mark + ends.join(comma.join(line) for line in lines) + ends)
    first, second = rows_of(path)
    assert first.given == {"prompt": 'make it "night", now', "steps": 20}
    assert (second.image, second.given, second.number) == ("b.png", {"prompt": "day"}, 2)


def test_jsonl_has_its_values_as_they_are_and_null_gives_nothing(tmp_path: Path) -> None:
    lines = [{"image": "a.png", "prompt": "ä\nb", "seed": 7, "guidance": None}, {"image": "b.png", "output": "c/d.jpg"}]
    path = written(tmp_path, "\r\n".join(map(json.dumps, lines)), "list.jsonl")
    first, second = rows_of(path)
    assert first.given == {"prompt": "ä\nb", "seed": 7} and second.output == "c/d.jpg"


HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing.csv": (b"", "empty"),
    "no_image.csv": (b"prompt,steps\nx,4\n", "no column image"),
    "no_prompt.csv": (b"image,steps\na.png,4\n", "no column prompt"),
    "unknown.csv": (b"image,prompt,stesp\na.png,x,4\n", "no column 'stesp'"),
    "capitals.csv": (b"Image,prompt\na.png,x\n", "no column 'Image'"),
    "twice.csv": (b"image,prompt,prompt\na.png,x,y\n", "twice"),
    "short.csv": (b"image,prompt\na.png\n", "1 cells"),
    "long.csv": (b"image,prompt\na.png,make it night, please\n", "3 cells"),
    "open_quote.csv": (b'image,prompt\na.png,"x\nb.png,y\n', "quote"),
    "stray_quote.csv": (b'image,prompt\na.png,"x"y\n', "quote"),
    "nul.csv": (b"image,prompt\na.png,x\0y\n", "NUL"),
    "latin1.csv": (b"image,prompt\na.png,gr\xfcn\n", "UTF-8"),
    "utf16.csv": ("image,prompt\na.png,x\n".encode("utf-16"), "UTF-16"),
    "old_mac.csv": (b"image,prompt\ra.png,x\r", ""),
    "picture.csv": (b"\x89PNG\r\n\x1a\n\0\0", ""),
    "wide.csv": (b"image,prompt" + b"," * 70_000 + b"\n", "no column ''"),
    "list.jsonl": (b'[{"image": "a.png"}]\n', "no object"),
    "broken.jsonl": (b'{"image": "a.png"\n', "no JSON"),
    "deep.jsonl": (b"[" * 200_000 + b"\n", "no JSON"),
    "nested.jsonl": (b'{"image": "a.png", "prompt": ["x"]}\n', "list"),
    "twice.jsonl": (b'{"image": "a.png", "image": "b.png"}\n', "twice"),
    "unknown.jsonl": (b'{"image": "a.png", "promt": "x"}\n', "no column 'promt'"),
    "digits.jsonl": (b'{"image": "a.png", "seed": ' + b"9" * 5000 + b"}\n", "no JSON"),
    "climbs.csv": (b"image,prompt,output\na.png,x,../../b.png\n", "outside"),
    "climbs_back.csv": (b"image,prompt,output\na.png,x,..\\b.png\n", "outside"),
    "absolute.csv": (b"image,prompt,output\na.png,x,/etc/b.png\n", "outside"),
    "drive.csv": (b"image,prompt,output\na.png,x,C:\\b.png\n", "outside"),
    "own.csv": (b"image,prompt,output\na.png,x,.kontext-batch/b.png\n", "own"),
    "same.csv": (b"image,prompt,output\na.png,x,c.png\nb.png,x,./c.png\n", "c.png"),
    "same_image.csv": (b"image,prompt\na.png,x\na.png,y\n", "line 2"),
    "file_and_folder.csv": (b"image,prompt,output\na.png,x,c.png\nb.png,x,c.png/d.png\n", "c.png"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_list_that_is_wrong_as_a_whole_is_one_error_before_anything_is_sent(tmp_path: Path, name: str) -> None:
    data, said = HOSTILE[name]
    with pytest.raises(SourceError, match=r"Nothing was sent\.") as told:
        planned(tmp_path, rows_of(written(tmp_path, data, name)))
    assert said in str(told.value) and len(str(told.value)) < 2500


@pytest.mark.parametrize("head", [b"image,prompt\na.png,", b'image,prompt\na.png,"', b"", b'{"image": "'])
def test_a_line_of_a_gigabyte_is_refused_without_being_read(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / ("list.jsonl" if head.startswith(b"{") else "list.csv")
    with path.open("wb") as file:
        file.write(head)
        for _ in range(8):
            file.write(b"x" * (1 << 20))
        file.truncate(1 << 30)  # the rest is a hole
    tracemalloc.start()
    with pytest.raises(SourceError, match=r"quote|MiB"):
        rows_of(path)
    assert tracemalloc.get_traced_memory()[1] < 12 << 20
    tracemalloc.stop()


ONE_ROW = {
    "no number": ("a.png,x,many,", "whole number"),
    "a comma in a number": ('a.png,x,"2,5",', "whole number"),
    "too many steps": ("a.png,x,900,", "steps"),
    "no image": (",x,4,", "names no image"),
    "missing": ("none.png,x,4,", "no picture"),
    "outside": ("../secret.png,x,4,", "lies outside"),
    "outside by root": ("/etc/passwd,x,4,", "lies outside"),
    "another format": ("a.png,x,4,b.webp", "must agree"),
    "a long name": ("a.png,x,4," + "n" * 300, "too long"),
    "a control character": ("a.png,x,4,b\x07.png", "No file"),
    "folders alone": ("a.png,x,4,./", ""),
}


@pytest.mark.parametrize("name", ONE_ROW)
def test_what_is_wrong_with_one_row_is_told_of_that_row_alone(tmp_path: Path, name: str) -> None:
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "good.png")
    text, said = ONE_ROW[name]
    lines = ["image,prompt,steps,output,output_format", f"{text},png", "good.png,x,4,,png"]
    plan = planned(tmp_path, rows_of(written(tmp_path, "\n".join(lines))))
    counts = plan.counts(tmp_path / "out", again=False)
    assert (counts.all, counts.left) == (2, 2)
    assert counts.wrong == 1 and said in plan.first_problems()[0] and plan.first_problems()[0].startswith("line 2")


def test_a_list_in_the_folder_that_the_command_runs_in_names_no_picture_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "here" / "sub" / "a.png")
    write_picture(tmp_path / "b.png")
    monkeypatch.chdir(tmp_path / "here")
    rows = [
        SourceRow(1, "line 1", "../b.png"),
        SourceRow(2, "line 2", str(tmp_path / "here" / "sub" / "a.png")),
        SourceRow(3, "line 3", "../here/sub/a.png", "c.png"),
    ]
    plan = planned(Path(), rows)
    found = {row.output: row.problem for row in plan.to_do(tmp_path / "out", again=False)}
    assert "outside" in str(found.pop("b.png")) and found == {"sub/a.png": None, "c.png": None}


def test_a_list_from_windows_names_folders_its_own_way(tmp_path: Path) -> None:
    (row,) = rows_of(written(tmp_path, "image,prompt,output\nsub\\a.png,x,new\\b\n"))
    assert (row.image, row.output) == ("sub/a.png", "new/b")


@pytest.mark.parametrize(("on_disk", "named"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_name_is_found_in_whichever_way_its_letters_are_written(tmp_path: Path, on_disk: Any, named: Any) -> None:
    """As where a list was made on one system, and the pictures copied from another."""
    picture = write_picture(tmp_path / unicodedata.normalize(on_disk, "für") / unicodedata.normalize(on_disk, "é.png"))
    name = unicodedata.normalize(named, "für/é.png")
    plan = planned(tmp_path, rows_of(written(tmp_path, f"image\n{name}\n"), prompt="x"))
    (row,) = plan.to_do(tmp_path / "out", again=False)
    assert (row.problem, row.path, tmp_path / row.output) == (None, picture, picture)
    assert len(list(walk(tmp_path, [unicodedata.normalize(named, "É.png")]))) == 1
    with pytest.raises(RowError, match="outside"):
        inside(tmp_path / "für", "../é.png")


def test_results_keep_names_and_folders_and_take_the_ending_that_they_ask_for() -> None:
    def name(image: str, output: str | None = None, whole: bool = False, kind: str = "png") -> str:
        return result_name(SourceRow(1, "line 1", image, output), kind, whole=whole)

    assert name("a/b.c.jpg") == "a/b.c.png" and name("a/b.jpg", whole=True) == "a/b.jpg.png"
    assert name("a.png", kind="webp") == "a.webp" and name("a.png", "x/y", kind="jpg") == "x/y.jpg"
    assert name("/abs/a.png") == "abs/a.png" and name("a.png", "b.v2") == "b.v2.png"
    assert name("a.png", "./b//c.jpeg", kind="jpg") == "b/c.jpeg"


def test_two_pictures_of_one_name_are_named_and_whole_names_keep_them_apart(pictures: Callable[..., Path]) -> None:
    folder = pictures("a.jpg", "a.png")
    with pytest.raises(SourceError, match="--whole-names") as told:
        planned(folder, list(walk(folder)))
    assert "a.jpg" in str(told.value) and "a.png" in str(told.value)
    assert planned(folder, list(walk(folder)), whole=True).counts(folder, again=False).left == 2


def test_parts_are_together_the_whole_and_none_overlaps(pictures: Callable[..., Path], tmp_path: Path) -> None:
    folder = pictures(*(f"{number}.png" for number in range(40)))
    outputs = []
    for part in (1, 2, 3):
        plan = planned(folder, list(walk(folder)), shard=(part, 3))
        mine = [row.output for row in plan.to_do(tmp_path, again=False)]
        assert plan.counts(tmp_path, again=False).mine == len(mine) > 0
        outputs += mine
    assert sorted(outputs) == sorted(f"{number}.png" for number in range(40))


def test_parts_are_the_same_on_a_machine_whose_disk_tells_no_upper_case_from_lower(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    folder = pictures(*(f"IMG_{number}.png" for number in range(20)))
    outputs = []
    for part, folds in ((1, True), (2, False)):
        plan = planned(folder, list(walk(folder)), shard=(part, 2), folds=folds)
        outputs += [row.output for row in plan.to_do(tmp_path, again=False)]
    assert sorted(outputs) == sorted(f"IMG_{number}.png" for number in range(20))


def test_a_plan_of_many_rows_takes_no_more_memory_than_one_of_few(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")

    def peak(count: int) -> int:
        numbers = range(1, count + 1)
        rows = (SourceRow(n, f"line {n} {'x' * 4000}", "a.png", f"{n}.png", {"seed": n}) for n in numbers)
        plan = RowPlan(Asking(tmp_path, "remote", remote_columns(), {"prompt": "x"}))
        tracemalloc.start()
        plan.read(rows)
        plan.refuse_overwriting(tmp_path / "out", replaces=False)
        assert sum(1 for _ in plan.to_do(tmp_path / "out", again=False)) == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        plan.close()
        return most

    assert peak(1500) < peak(300) + (2 << 20)  # in a list they would be 6 MB
