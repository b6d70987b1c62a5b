"""A batch of any size as one picture that can be looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.batch.contact_sheet import MOST, _chosen, contact_sheet
from kontext_bridge.batch.thumbnails import thumbnail_of
from PIL import Image
from small_pictures import write_picture


def entries(failed: int, flagged: int, done: int) -> list[dict[str, Any]]:
    states = [("failed", None)] * failed + [("done", ["black"])] * flagged + [("done", None)] * done
    return [
        {"state": state, "flags": flags, "image": f"{place}.png", "output": f"{place}.jpg", "error": "Ünruh ☃"}
        for place, (state, flags) in enumerate(states)
    ]


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ((0, 0, 3), (0, 0, 3)),
        ((5000, 0, 0), (36, 0, 0)),
        ((5000, 0, 5000), (18, 0, 18)),
        ((2, 900, 900), (2, 17, 17)),
        ((0, 0, 5001), (0, 0, 36)),
    ],
)
def test_of_many_rows_some_of_each_kind_are_shown_and_what_went_wrong_first(
    counts: tuple[int, int, int], shown: tuple[int, int, int]
) -> None:
    rows = entries(*counts)
    kinds = [kind for kind, _ in _chosen(lambda: iter(rows), MOST)]
    wanted = ["failed"] * shown[0] + ["flagged"] * shown[1] + ["done"] * shown[2]
    assert len(kinds) <= MOST and set(kinds) == set(wanted)
    assert abs(len(kinds) - len(wanted)) <= 1 and kinds == sorted(kinds, key=["failed", "flagged", "done"].index)


def test_a_sheet_of_files_that_are_gone_is_drawn_all_the_same(tmp_path: Path) -> None:
    rows = entries(1, 1, 2)
    write_picture(tmp_path / "2.png")
    write_picture(tmp_path / "2.jpg")

    def read() -> Iterator[Mapping[str, Any]]:
        return iter(rows)

    sheet = contact_sheet(read, results=tmp_path, images=tmp_path)
    colours = {colour for _, colour in sheet.getcolors(1 << 24)}
    assert sheet.mode == "RGB" and {(214, 58, 58), (226, 146, 30)} <= colours
    assert contact_sheet(lambda: iter(()), results=tmp_path, images=tmp_path).size > (0, 0)


def test_a_small_picture_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    small = thumbnail_of(tmp_path / "a.jpg", 20)
    assert small is not None and small.size == (10, 20)
    assert thumbnail_of(tmp_path / "none.jpg", 20) is None
