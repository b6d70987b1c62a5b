"""Pictures that are written, exchanged or taken away while the batch runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.batch import __main__ as command
from kontext_bridge.batch import remote_rows
from kontext_bridge.standin import StandIn
from PIL import Image
from small_pictures import write_picture

REMOTE = ("--set", "output_format=jpg", "--prompt", "make it night")
Batch = Callable[..., int]
Pictures = Callable[..., Path]
Report = Callable[[], list[dict[str, Any]]]


@pytest.mark.parametrize("when", ["before it is read", "after it was read"])
def test_a_picture_that_is_exchanged_meanwhile_is_edited_by_the_next_run(
    service: StandIn,
    batch: Batch,
    pictures: Pictures,
    report: Report,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    """Its result stood under the size of the picture before: the next run took it for another request's, and did
    nothing."""
    folder, later = pictures("a.png", "b.png"), write_picture(tmp_path / "later.png", 5)
    later.write_bytes(later.read_bytes() + b"more")
    real = remote_rows.read_picture

    def read(path: Path) -> Any:
        if path.name == "a.png" and when == "before it is read":
            path.write_bytes(later.read_bytes())
        found = real(path)
        if path.name == "a.png":
            path.write_bytes(later.read_bytes())
        return found

    with monkeypatch.context() as cut:
        cut.setattr(remote_rows, "read_picture", read)
        assert batch(folder, *REMOTE) == command.SOME
    (failed,) = [entry for entry in report() if entry["state"] == "failed"]
    assert "a.png" in failed["image"] and "changed while" in failed["error"]
    assert batch(folder, *REMOTE) == command.ALL
    assert len(service.billed) == (2 if when == "before it is read" else 3)
    with Image.open(tmp_path / "out" / "a.jpg") as picture:
        picture.load()


def test_a_picture_that_goes_meanwhile_fails_its_row_alone_and_one_that_comes_is_the_next_runs(
    service: StandIn, batch: Batch, pictures: Pictures, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures("a.png", "b.png")
    real = remote_rows.read_picture

    def read(path: Path) -> Any:
        (folder / "a.png").unlink(missing_ok=True)
        write_picture(folder / "c.png", 7)
        return real(path)

    monkeypatch.setenv("KONTEXT_BRIDGE_MAX_IN_FLIGHT", "1")
    with monkeypatch.context() as cut:
        cut.setattr(remote_rows, "read_picture", read)
        assert batch(folder, *REMOTE) == command.SOME
    assert {entry["output"]: entry["state"] for entry in report()} == {"a.jpg": "failed", "b.jpg": "done"}
    assert batch(folder, *REMOTE) == command.ALL and len(service.billed) == 2
