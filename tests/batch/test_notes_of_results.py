"""A result's file says what its picture's file said, as far as it is true of the result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kontext_bridge.batch import __main__ as command
from kontext_bridge.batch.pictures import noted, read_picture
from kontext_bridge.standin import StandIn
from PIL import Image, ImageCms

REMOTE = ("--set", "output_format=jpg", "--prompt", "make it night")
ORIENTATION, ARTIST = 0x0112, 0x013B
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_who_made_a_picture_is_in_its_result_and_its_profile_only_where_the_colours_are_its_own(
    service: StandIn, batch: Callable[..., int], pictures: Callable[..., Path], tmp_path: Path
) -> None:
    folder = pictures("a.png")
    exif = Image.Exif()
    exif[ORIENTATION], exif[ARTIST] = 6, "Ann"
    with Image.open(folder / "a.png") as picture:
        picture.save(folder / "b.jpg", exif=exif, icc_profile=PROFILE, quality=95)
    assert batch(folder, *REMOTE) == command.ALL
    with Image.open(tmp_path / "out" / "b.jpg") as result:
        assert dict(result.getexif()) == {ORIENTATION: 1, ARTIST: "Ann"} and "icc_profile" not in result.info
    with Image.open(tmp_path / "out" / "a.jpg") as result:
        assert not result.getexif()
    given = read_picture(folder / "b.jpg")
    before, notes = given.picture, given.notes
    assert (before.width, before.height) == (16, 24)
    data = (tmp_path / "out" / "a.jpg").read_bytes()
    kept = (tmp_path / "kept.jpg", tmp_path / "whole.jpg")
    for path, verdict in zip(kept, ("local", "whole"), strict=True):
        path.write_bytes(noted(data, notes, before, {"verdict": verdict}))
        with Image.open(path) as result:
            assert ("icc_profile" in result.info) == (verdict == "local")
