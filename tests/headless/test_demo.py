"""`make demo`: what it makes, and that it says of each picture by whom it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from kontext_bridge.headless import demo
from kontext_bridge.kontext.demo import shipped
from kontext_bridge.standin import StandIn, Timing
from PIL import Image
from tiny_demo import write_demo

LOCAL = Path("out") / "demo" / "demo_model.png"
# A part of the boat's hull in the example picture, which is blue there: left, top, right, bottom.
HULL = (740, 525, 900, 560)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty folder to run in, on a machine without a key; what the demo sets of the environment is undone."""
    for name in ("OXEN_BASE_URL", "OXEN_API_KEY", "KONTEXT_BRIDGE_HOME"):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The pack with a demo model that was never taught."""
    folder = tmp_path_factory.mktemp("model")
    write_demo(folder)
    monkeypatch.setattr(shipped, "FOLDER", folder)


def remote_pictures() -> list[Path]:
    return sorted(Path("out").rglob("collected*.png"))


def test_a_demo_that_edits_on_one_side_only_or_hides_whose_picture_is_which_is_noticed(
    installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.main() == 0
    told = capsys.readouterr().out
    (remote,) = remote_pictures()
    with Image.open(LOCAL) as picture:
        assert picture.size == (1024, 768)
        assert picture.info["Software"] == "Kontext Bridge, demo model"
    assert f"the stand-in with the demo model, not Kontext: {remote}" in told
    assert f"the demo model, on this machine: {LOCAL}" in told
    assert "is not Kontext" in told and "paid for" not in told


def test_a_demo_without_its_model_that_loses_the_remote_picture_or_keeps_silent_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    assert demo.main() == 0
    told = capsys.readouterr().out
    assert len(remote_pictures()) == 1 and not LOCAL.exists()
    assert f"the stand-in, not Kontext: {remote_pictures()[0]}" in told and "only tinted" in told
    assert f"No edit on this machine. The demo model is not whole: {shipped.TRANSFORMER}" in told
    assert "on this machine:" not in told


def test_a_local_edit_that_failed_and_is_told_as_made_is_noticed(
    installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (shipped.FOLDER / shipped.TEXT).write_bytes(b"half a file")
    assert demo.main() == 1
    shown = capsys.readouterr()
    assert shipped.TEXT in shown.err and "on this machine:" not in shown.out
    assert len(remote_pictures()) == 1 and str(remote_pictures()[0]) in shown.out


def test_an_edit_at_the_service_that_is_told_as_the_stand_ins_is_noticed(
    installed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StandIn(timing=Timing(queued_s=0.01, processing_s=0.05)) as service:
        monkeypatch.setenv("OXEN_BASE_URL", service.url)
        monkeypatch.setenv("OXEN_API_KEY", service.key)
        monkeypatch.setenv("KONTEXT_BRIDGE_HOME", str(tmp_path / "home"))
        assert demo.main() == 0
        assert len(service.billed) == 1, "the local edit costs nothing"
    told = capsys.readouterr().out
    assert f"Kontext at the service: {remote_pictures()[0]}" in told and "stand-in" not in told
    assert service.key not in told and LOCAL.exists()


def test_a_demo_model_that_does_not_paint_the_boat_red_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        shipped.demo_files()
    except shipped.DamagedFile as error:
        pytest.skip(f"the taught model is not there: {error}")
    assert demo.main() == 0
    with Image.open(LOCAL) as picture:
        red, green, blue = np.asarray(picture.crop(HULL)).reshape(-1, 3).mean(0)
    assert red > max(green, blue) + 40, os.fspath(LOCAL.resolve())


@pytest.mark.parametrize("taken", ["out", "out/demo"])
def test_a_demo_that_cannot_save_its_pictures_and_names_an_option_that_it_lacks_is_noticed(
    capsys: pytest.CaptureFixture[str], taken: str
) -> None:
    Path(taken).parent.mkdir(exist_ok=True)
    Path(taken).touch()
    assert demo.main() == 1
    heard = capsys.readouterr()
    assert heard.err.strip().endswith(f"and {Path(taken)} is no folder: rename it. Nothing was run.") and not heard.out
