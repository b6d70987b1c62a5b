"""The stand-in's edit."""

from __future__ import annotations

import io

import pytest
from kontext_bridge.standin.parameters import ASPECT_RATIOS, AskedEdit
from kontext_bridge.standin.picture import SIZES, BadPicture, bomb, make_edit, output_size
from PIL import Image, ImageChops


def source(width=300, height=200, mode="RGB", kind="PNG"):
    out = io.BytesIO()
    Image.radial_gradient("L").resize((width, height)).convert(mode).save(out, kind)
    return out.getvalue()


def edit(**changes):
    plain = {
        "prompt": "give the ox a red hat",
        "aspect_ratio": "match_input_image",
        "steps": 28,
        "guidance": 2.5,
        "seed": 1,
        "output_format": "png",
        "output_quality": 80,
    }
    return AskedEdit(**(plain | changes))


def made(data=None, **changes):
    picture = Image.open(io.BytesIO(make_edit(data or source(), edit(**changes))))
    picture.load()
    return picture


@pytest.mark.parametrize("ratio", [r for r in ASPECT_RATIOS if ":" in r])
def test_every_ratio_gives_a_megapixel_of_nearly_that_shape(ratio):
    across, down = map(int, ratio.split(":"))
    width, height = output_size(ratio, (1, 1))
    assert (width, height) in SIZES
    assert abs(width / height / (across / down) - 1) < 0.07
    assert 0.95e6 < width * height < 1.1e6
    assert made(aspect_ratio=ratio).size == (width, height)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 512), (1024, 1024)),
        ((3000, 2000), (1248, 832)),
        ((1080, 1920), (752, 1392)),
        ((10_000, 10), (1568, 672)),
        ((1, 9), (672, 1568)),
    ],
)
def test_match_takes_the_size_nearest_to_the_input(size, expected):
    assert output_size("match_input_image", size) == expected


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
def test_the_file_is_of_the_format_asked_for(name, kind):
    picture = made(output_format=name)
    assert (picture.format, picture.mode) == (kind, "RGB")


@pytest.mark.parametrize("change", [{"seed": 2}, {"prompt": "a blue hat"}, {"steps": 4}, {"guidance": 3.0}])
def test_what_was_asked_for_can_be_seen(change):
    assert ImageChops.difference(made(), made(**change)).getbbox() is not None


def test_the_same_request_gives_the_same_picture():
    assert make_edit(source(), edit()) == make_edit(source(), edit())


def test_neighbouring_seeds_have_borders_of_different_colour():
    colours = {tuple(made(seed=seed).reduce(8).getpixel((40, 0))) for seed in range(12)}
    assert len(colours) > 8


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGBA", "PNG"), ("L", "PNG"), ("RGB", "JPEG"), ("P", "GIF"), ("RGB", "WEBP")]
)
def test_every_documented_input_format_is_taken(mode, kind):
    assert made(source(mode=mode, kind=kind)).size == (1248, 832)


@pytest.mark.parametrize("prompt", ["x" * 5000, "ein Hut für den Ochsen", "给牛戴帽子", "\n\t a \0 b", "🐂" * 100])
def test_any_prompt_can_be_written_on_it(prompt):
    assert made(prompt=prompt, aspect_ratio="9:21").size == (672, 1568)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<html>", source()[:200], bomb(), bomb(9000, 9000)])
def test_what_is_no_picture_or_far_too_large_is_refused(data):
    with pytest.raises(BadPicture, match="input_image"):
        make_edit(data, edit())


def test_small_pictures_are_made_where_many_are_needed():
    small = Image.open(io.BytesIO(make_edit(source(), edit(), shrink=8)))
    assert small.size == (1248 // 8, 832 // 8)
