"""The album: what a run tells it is there afterwards, what it cannot write stops no run; it does not grow for ever."""

from __future__ import annotations

import io
import logging
import os
import sqlite3
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from kontext_bridge.album import behind, notes
from kontext_bridge.album.folder import read_inside
from kontext_bridge.album.small import BEFORE_SIDE, before, thumbnail
from kontext_bridge.headless import ensure_comfy_api
from kontext_bridge.imaging.errors import ImageError
from PIL import Image

ensure_comfy_api()

from kontext_bridge.nodes.local.noted import note_edits  # noqa: E402

GRAPH = {"nodes": [{"id": 3}], "links": []}
WHERE = behind.Where(GRAPH, "3")


def source(number: int = 1, side: int = 40) -> behind.Source:
    return behind.Source(f"{number:064x}", lambda: np.full((side, side, 3), number, np.uint8))


def asked(album: Path, key: str) -> notes.Origin | None:
    behind.settle()
    with notes.reading(album) as found:
        return found.asked(key)


def test_a_graph_and_a_picture_are_kept_once_however_often_they_are_run(tmp_path: Path) -> None:
    for key in ("a", "b"):
        behind.note_asked(tmp_path, source(), [key, key + "2"], WHERE)
    found = asked(tmp_path, "b2")
    assert found == asked(tmp_path, "a") and found is not None and found.node == "3"
    assert [path.name for path in (tmp_path / "before").iterdir()] == [found.before]
    with notes.reading(tmp_path) as album:
        assert album.graph(str(found.graph)) == GRAPH
    with sqlite3.connect(tmp_path / notes.FILE_NAME) as database:
        assert database.execute("SELECT COUNT(*) FROM graphs").fetchone() == (1,)
    database.close()


@pytest.mark.parametrize("graph", [None, {"x": "y" * (5 << 20)}, {"x": float("nan")}, {"x": {1, 2}}], ids=str)
def test_a_graph_that_cannot_be_kept_costs_only_itself(tmp_path: Path, graph: Any) -> None:
    behind.note_asked(tmp_path, source(), ["a"], behind.Where(graph, "3"))
    found = asked(tmp_path, "a")
    assert found is not None and found.graph is None and found.before


def test_what_cannot_be_written_is_logged_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(behind, "replace_file", full)
        behind.note_asked(tmp_path, source(), ["a"], WHERE)
        behind.settle()
    assert asked(tmp_path, "a") is None and "No space left" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    (tmp_path / notes.FILE_NAME).write_bytes(b"no database" * 999)
    behind.note_asked(tmp_path, source(), ["b"], WHERE)
    behind.settle()
    assert "not a database" in caplog.text


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    album = tmp_path / "album"
    behind.note_asked(album, source(), ["a"], WHERE)
    behind.settle()
    assert {path.stat().st_mode & 0o077 for path in (album, *album.rglob("*")) if not path.name.endswith("-shm")} == {0}


def test_the_oldest_files_go_where_there_are_too_many(tmp_path: Path) -> None:
    folder = tmp_path / "before"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(b"x" * 100)
        os.utime(folder / f"{number}.jpg", (number, number))
    assert behind.prune(tmp_path, {"before": 250, "local": 1}) == 3
    assert sorted(path.name for path in folder.iterdir()) == ["3.jpg", "4.jpg"]


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    with notes.reading(tmp_path / "album") as album:
        assert album.asked("a") is None and album.locals("", 9) == [] and album.local(1) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(3000, 2000, 3), (20, 30, 4), (9, 9, 1)], ids=str)
def test_a_picture_before_is_of_a_size_to_be_looked_at(shape: tuple[int, int, int]) -> None:
    with Image.open(io.BytesIO(before(np.full(shape, 77, np.uint8)))) as made:
        assert max(made.size) == min(max(shape[:2]), BEFORE_SIDE) and made.format == "JPEG"


def test_a_thumbnail_of_what_is_no_picture_is_an_error() -> None:
    with pytest.raises(ImageError):
        thumbnail(b"\x89PNG\r\n\x1a\n and no more")


def test_a_name_is_a_file_in_the_folder_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    assert read_inside(tmp_path, "a.png", 5) == b"12345" and read_inside(tmp_path, "a.png", 4) is None
    (tmp_path / "wing").mkdir()
    moved = tmp_path / "moved"
    moved.symlink_to(tmp_path, target_is_directory=True)
    assert read_inside(moved, "a.png", 5) == b"12345", "the folder itself may lie on another disk"
    for name in ("wing", "../" + tmp_path.name + "/a.png", str(tmp_path / "a.png"), "a.png\n", "a.png:x", "é.png"):
        assert read_inside(tmp_path, name, 99) is None


def test_a_local_edit_is_noted_with_its_pictures_inside_comfyui_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KONTEXT_BRIDGE_HOME", str(tmp_path))
    image = torch.rand(1, 24, 16, 3)
    told = [{"seed": 2**64 - 1, "seconds": 2.0}]
    note_edits([image[0]], image, "the hat becomes red", {"steps": 4}, told)
    assert list(tmp_path.iterdir()) == []
    running = [(0, "run 1", {}, {"extra_pnginfo": {"workflow": GRAPH}}, [])]
    queue = SimpleNamespace(get_current_queue_volatile=lambda: (running, []))
    server = SimpleNamespace(PromptServer=SimpleNamespace(instance=SimpleNamespace(prompt_queue=queue)))
    context = SimpleNamespace(prompt_id="run 1", node_id="3", list_index=None)
    monkeypatch.setitem(sys.modules, "server", server)  # type: ignore[misc]
    utils = SimpleNamespace(get_executing_context=lambda: context)
    monkeypatch.setitem(sys.modules, "comfy_execution.utils", utils)  # type: ignore[misc]
    note_edits([image[0]], image, "the hat becomes red", {"steps": 4}, told)
    behind.settle()
    with notes.reading(tmp_path / "album") as album:
        edit = album.local(1)
        assert edit is not None and (edit.seed, edit.seconds, edit.asked.node) == (str(2**64 - 1), 2.0, "3")
        assert album.graph(str(edit.asked.graph)) == GRAPH
    with Image.open(tmp_path / "album" / "local" / edit.file) as picture:
        assert np.array_equal(np.asarray(picture), (image[0].numpy() * 255).round().astype(np.uint8))
