"""The templates' pictures in ComfyUI's input folder: there after the start, and nothing of the artist's touched."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from full_disk import full_disk
from kontext_bridge import comfy_entrypoint
from pack import WORKFLOWS, read

PICTURES = {path.name: path.read_bytes() for path in WORKFLOWS.glob("*.png")}
BELOW = {path.relative_to(WORKFLOWS).as_posix(): path.read_bytes() for path in WORKFLOWS.glob("*/*.png")}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's input folder, before the pack is loaded."""
    folder = tmp_path / "input"
    folder.mkdir()
    use(folder, monkeypatch)
    return folder


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = SimpleNamespace(get_input_directory=lambda: str(folder))
    monkeypatch.setitem(sys.modules, "folder_paths", paths)


def start() -> None:
    """What ComfyUI calls when it loads the pack."""

    async def load() -> None:
        await (await comfy_entrypoint()).on_load()

    asyncio.run(load())


def inside(folder: Path) -> dict[str, bytes]:
    """The pictures that lie in it, without those in folders."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("*/*")}


def test_every_picture_that_a_template_names_is_there_after_the_start(folder: Path) -> None:
    start()
    assert inside(folder) == PICTURES and below(folder) == BELOW
    named = {
        node["widgets_values"][0]
        for path in WORKFLOWS.glob("*.json")
        for node in read(path)["nodes"]
        if node["type"] in {"LoadImage", "LoadImageMask"}
    }
    assert named and named <= set(PICTURES)
    folders = {
        node["widgets_values"][0]
        for path in WORKFLOWS.glob("*.json")
        for node in read(path)["nodes"]
        if node["type"] == "KontextEditFolder"
    }
    assert folders == {name.partition("/")[0] for name in BELOW}


def test_a_picture_of_the_artists_own_in_such_a_folder_stays_and_so_does_a_file_of_its_name(folder: Path) -> None:
    (first, *others) = BELOW
    (folder / first).parent.mkdir()
    (folder / first).write_bytes(b"mine")
    start()
    assert below(folder) == {**BELOW, first: b"mine"} and others
    shutil.rmtree(folder / Path(first).parent)
    (folder / Path(first).parent).write_bytes(b"mine")
    start()
    assert (folder / Path(first).parent).read_bytes() == b"mine"


def test_a_picture_of_the_artists_own_under_that_name_is_not_overwritten(folder: Path) -> None:
    for name in PICTURES:
        (folder / name).write_bytes(b"mine")
    start()
    assert inside(folder) == dict.fromkeys(PICTURES, b"mine")


@pytest.mark.parametrize("kind", ["link that leads nowhere", "folder"])
def test_what_is_there_under_that_name_stays_what_it_is(folder: Path, kind: str) -> None:
    for name in PICTURES:
        if kind == "folder":
            (folder / name).mkdir()
        else:
            (folder / name).symlink_to(folder / "elsewhere.png")
    start()
    there = [path for path in folder.iterdir() if path.name in PICTURES]
    assert len(there) == len(PICTURES)
    assert all(path.is_dir() if kind == "folder" else path.is_symlink() for path in there)


def test_a_full_disk_leaves_no_half_picture_and_the_pack_loads(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with full_disk():
        start()
    assert list(folder.iterdir()) == []
    assert "was not put into" in caplog.text


@pytest.mark.parametrize("kind", ["missing", "file", "read-only"])
def test_a_folder_that_takes_no_file_is_left_alone_and_the_pack_loads(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "input"
    if kind == "file":
        place.write_bytes(b"")
    elif kind == "read-only":
        place.mkdir(mode=0o500)
        if os.access(place, os.W_OK):  # root writes everywhere but where the kernel holds the folder
            place = Path("/proc")
    if not place.exists() and kind == "read-only":
        pytest.skip("needs a user who is not root, or /proc")
    use(place, monkeypatch)
    start()
    assert "was not put into" in caplog.text
    assert place.exists() == (kind != "missing")


def test_a_file_system_without_hard_links_gets_the_pictures_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refused)
    start()
    assert inside(folder) == PICTURES


def test_without_comfyui_nothing_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "folder_paths", raising=False)
    monkeypatch.chdir(tmp_path)
    start()
    assert list(tmp_path.iterdir()) == []
