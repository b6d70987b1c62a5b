"""The canvas: nothing stretched, nothing cropped, and what no one edited comes back bit for bit."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kontext_bridge.imaging.canvas import KONTEXT_SIZES, LONGEST, Canvas, grid_size, pick_size, prepare, restore
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.standin.picture import SIZES, output_size
from torch import Tensor


def gradient(height: int, width: int) -> Tensor:
    """[1,H,W,3] that rises evenly across and down, so that a shift or a stretch shows."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([x, y, (x + y) / 2], dim=-1).unsqueeze(0)


def box_mask(height: int, width: int, top: int, left: int, size: int) -> Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, top : top + size, left : left + size] = 1
    return mask


def identical(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, the sign of zero included."""
    bits = torch.int16 if one.dtype is torch.float16 else torch.int32
    return one.dtype == other.dtype and torch.equal(one.view(bits), other.view(bits))


def edited(canvas: Canvas) -> Tensor:
    """An edit that changes every pixel."""
    return (1 - canvas.prepared) * 0.5 + 0.25 * (canvas.prepared == 0.5)


@pytest.mark.parametrize("chunk", range(10))
def test_an_unedited_picture_comes_back_to_the_bit_at_500_random_sizes(chunk: int) -> None:
    draw = random.Random(chunk)
    torch.manual_seed(chunk)
    for _ in range(50):
        height, width = draw.choice([draw.randint(8, 64), draw.randint(8, 500)]), draw.randint(8, 500)
        image = torch.rand(draw.choice([1, 1, 2]), height, width, draw.choice([3, 3, 4]))
        if draw.random() < 0.3:
            image = image.half()
        mask = None
        if draw.random() < 0.5:
            mask = (torch.rand(1, height, width) < draw.choice([0.001, 0.5])).float()
        canvas = prepare(
            image,
            mask,
            megapixels=draw.choice([0.02, 0.05, 0.1]),
            margin=draw.choice([0, 10, 64]),
            feather=draw.choice([0, 1, 16, 33]),
        )
        assert identical(restore(canvas.prepared, canvas), image), (height, width)


def test_negative_zeros_and_overshoot_in_the_source_survive() -> None:
    image = torch.rand(1, 100, 90, 3) * 1.2 - 0.1
    image[0, :10] = -0.0
    canvas = prepare(image, box_mask(100, 90, 40, 40, 10), megapixels=0.02, margin=50)
    assert identical(restore(canvas.prepared, canvas), image)


@pytest.mark.parametrize("feather", [0, 1, 2, 7, 16, 40])
@pytest.mark.parametrize("seed", range(4))
def test_beyond_the_mask_and_its_feather_the_source_is_untouched(seed: int, feather: int) -> None:
    torch.manual_seed(seed)
    draw = random.Random(seed)
    height, width = draw.randint(60, 500), draw.randint(60, 500)
    image = torch.rand(1, height, width, 3)
    top, left, size = draw.randint(0, height - 20), draw.randint(0, width - 20), 20
    mask = box_mask(height, width, top, left, size)
    canvas = prepare(image, mask, megapixels=0.05, margin=8, feather=feather)
    result = restore(edited(canvas), canvas)
    reached = torch.zeros(height, width, dtype=torch.bool)
    reached[max(0, top - feather) : top + size + feather, max(0, left - feather) : left + size + feather] = True
    assert identical(result[0][~reached], image[0][~reached])
    inside = (result != image).any(dim=-1)[0, top : top + size, left : left + size]
    assert inside.float().mean() > 0.99


def test_inside_the_mask_the_edit_is_whole_and_the_edge_fades_without_a_step() -> None:
    image = torch.zeros(1, 256, 256, 3)
    canvas = prepare(image, box_mask(256, 256, 100, 100, 50), megapixels=1 / 16, margin=100, feather=16)
    result = restore(torch.ones_like(canvas.prepared), canvas)
    assert torch.equal(result[:, 100:150, 100:150], torch.ones(1, 50, 50, 3))
    across = result[0, 125, 60:110, 0]
    assert (across.diff() >= 0).all() and across.diff().max() < 0.2 and 0 < across[32] < 1


def feathered_by_hand(mask: Tensor, feather: int) -> Tensor:
    """The mask [H,W] grown by the larger half of the feather, then averaged over the smaller; window by window."""

    def windows(values: Tensor, radius: int) -> list[list[Tensor]]:
        height, width = values.shape
        return [
            [
                values[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1].double()
                for x in range(width)
            ]
            for y in range(height)
        ]

    blur = feather // 2
    grown = torch.tensor([[float(window.max()) for window in row] for row in windows(mask, feather - blur)])
    means = torch.tensor([[float(window.mean()) for window in row] for row in windows(grown, blur)])
    return torch.maximum(means, mask)


@pytest.mark.parametrize("feather", [1, 2, 3, 8, 21, 90])
def test_a_feather_of_another_shape_is_noticed(feather: int) -> None:
    torch.manual_seed(feather)
    height, width = 37, 52
    mask = torch.rand(height, width) * (torch.rand(height, width) < 0.01)
    mask[20:24, 30:33] = 1
    mask[:2, :3] = 1e-4
    canvas = prepare(torch.zeros(1, height, width, 3), mask, size=(64, 48), margin=90, feather=feather)
    weight = restore(torch.ones_like(canvas.prepared), canvas)[0, ..., 0]
    expected = feathered_by_hand(mask, feather)
    assert torch.equal(weight == 0, expected == 0)
    assert (weight - expected).abs().max() < 1e-6


def test_a_wide_feather_takes_no_longer_than_the_picture_itself() -> None:
    image = torch.rand(1, 1000, 1500, 3)
    canvas = prepare(image, box_mask(1000, 1500, 300, 300, 400), margin=512, feather=512)
    edit = edited(canvas)
    seconds = {}
    for feather in (16, 512):
        started = time.process_time()
        restore(edit, replace(canvas, feather=feather))
        seconds[feather] = time.process_time() - started
    assert seconds[512] < 4 * seconds[16] + 1


def test_a_soft_mask_is_kept_soft() -> None:
    mask = torch.full((1, 64, 64), 0.5)
    canvas = prepare(torch.zeros(1, 64, 64, 3), mask, megapixels=1 / 256, feather=0)
    assert restore(torch.ones_like(canvas.prepared), canvas).mean() == pytest.approx(0.5)


def test_where_a_part_was_edited_the_rest_is_the_source() -> None:
    image = torch.rand(1, 800, 600, 3)
    canvas = prepare(image, megapixels=0.1, feather=8)
    edit = canvas.prepared.clone()
    edit[:, :40, :40] = 0
    result = restore(edit, canvas)
    assert not result[:, :40, :40].any()
    assert identical(result[:, 300:], image[:, 300:]) and identical(result[:, :, 300:], image[:, :, 300:])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 4096), (1, 1), (37, 1), (1000, 8)])
def test_pictures_smaller_than_their_padding_are_filled_by_reflection(height: int, width: int) -> None:
    image = torch.rand(1, height, width, 3)
    canvas = prepare(image, size=(256, 512))
    assert canvas.prepared.shape == (1, 512, 256, 3) and torch.isfinite(canvas.prepared).all()
    assert identical(restore(canvas.prepared, canvas), image)


def test_the_padding_mirrors_the_picture_at_its_edge() -> None:
    image = torch.rand(1, 90, 100, 3)
    canvas = prepare(image, megapixels=0.01)
    top, left = canvas.content.top, canvas.content.left
    assert (canvas.content.width, canvas.content.height) == (100, 90) and top > 0 and left > 0
    assert torch.equal(canvas.prepared[:, top : top + 90, left : left + 100], image)
    assert torch.equal(canvas.prepared[:, top - 1, left : left + 100], image[:, 1])
    assert torch.equal(canvas.prepared[:, top : top + 90, left - 2], image[:, :, 2])


def test_a_size_that_nearly_fits_is_not_resampled_and_an_edit_of_it_comes_back_exactly() -> None:
    image = torch.rand(1, 1000, 1000, 3)
    canvas = prepare(image)
    assert canvas.prepared.shape[1:3] == (1008, 1008)
    edit = edited(canvas)
    assert torch.equal(restore(edit, canvas), edit[:, 4:1004, 4:1004])


@pytest.mark.parametrize(("height", "width"), [(300, 500), (511, 77), (64, 1000)])
def test_scaling_neither_shifts_nor_stretches(height: int, width: int) -> None:
    image = gradient(height, width)
    canvas = prepare(image, megapixels=0.5)
    across, down = canvas.content.width / width, canvas.content.height / height
    assert abs(across - down) * min(height, width) <= 0.5
    edit = canvas.prepared + 1e-6
    assert (restore(edit, canvas) - image).abs().max() < 0.02


def test_the_affine_leads_from_the_prepared_picture_to_the_source() -> None:
    canvas = prepare(torch.rand(1, 300, 400, 3), box_mask(300, 400, 100, 200, 40), megapixels=0.1, margin=30)
    (a, _, c), (_, e, f) = canvas.affine
    box, region = canvas.content, canvas.region
    assert (a * box.left + c, e * box.top + f) == pytest.approx((region.left, region.top))
    right, bottom = a * (box.left + box.width) + c, e * (box.top + box.height) + f
    assert (right, bottom) == pytest.approx((region.left + region.width, region.top + region.height))


def test_the_cut_holds_the_masks_of_the_whole_batch_and_the_margin() -> None:
    masks = torch.cat([box_mask(400, 400, 100, 150, 10), box_mask(400, 400, 180, 90, 10)])
    canvas = prepare(torch.rand(2, 400, 400, 3), masks, margin=20, feather=4)
    region = canvas.region
    assert (region.left, region.top) == (70, 80)
    assert (region.left + region.width, region.top + region.height) == (180, 210)


def test_a_mask_of_zeros_means_the_whole_picture() -> None:
    image = torch.rand(1, 100, 120, 3)
    canvas = prepare(image, torch.zeros(1, 64, 64), megapixels=0.01)
    assert canvas.mask is None and canvas.region.width == 120


def test_a_mask_of_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(ImageError, match=r"64x64.*120x100"):
        prepare(torch.rand(1, 100, 120, 3), torch.ones(1, 64, 64))


def test_alpha_and_grey_follow_the_source() -> None:
    image = torch.rand(1, 50, 60, 4)
    canvas = prepare(image, megapixels=0.01)
    assert canvas.prepared.shape[3] == 3
    assert identical(restore(edited(canvas), canvas)[..., 3].contiguous(), image[..., 3].contiguous())
    grey = torch.rand(1, 50, 60, 1)
    canvas = prepare(grey, megapixels=0.01)
    assert torch.equal(restore(canvas.prepared, canvas), grey.expand(-1, -1, -1, 3))


def test_several_edits_go_back_onto_one_source() -> None:
    canvas = prepare(torch.rand(1, 90, 100, 3), megapixels=0.01)
    edits = torch.rand(4, *canvas.prepared.shape[1:])
    assert restore(edits, canvas).shape == (4, 90, 100, 3)


def test_in_a_batch_the_picture_that_was_not_edited_is_the_source() -> None:
    image = torch.rand(2, 300, 200, 3)
    canvas = prepare(image, megapixels=0.02)
    edit = canvas.prepared.clone()
    edit[1] = 0
    result = restore(edit, canvas)
    assert identical(result[0], image[0]) and not result[1].any()


def test_edits_of_another_count_than_the_sources_are_refused() -> None:
    canvas = prepare(torch.rand(3, 90, 100, 3), megapixels=0.01)
    with pytest.raises(ImageError, match="2 edits for a canvas of 3"):
        restore(canvas.prepared[:2], canvas)


def test_an_edit_in_the_services_own_size_is_put_back() -> None:
    image = gradient(600, 900)
    canvas = prepare(image, megapixels=0.2)
    height, width = canvas.prepared.shape[1:3]
    answer = gradient(height + 8, width - 10)
    assert (restore(answer, canvas) - image).abs().mean() < 0.03


def test_an_edit_that_was_reframed_is_refused_with_what_to_choose() -> None:
    canvas = prepare(torch.rand(1, 600, 900, 3), megapixels=0.2)
    with pytest.raises(ImageError, match=r"512x512.*match_input_image"):
        restore(torch.rand(1, 512, 512, 3), canvas)


@pytest.mark.parametrize(("width", "height"), [(1280, 1024), (1024, 1280), (1085, 1000), (1000, 1085)])
def test_an_edit_that_was_stretched_to_the_nearest_of_kontexts_sizes_is_put_back(width: int, height: int) -> None:
    image = gradient(height, width)
    canvas = prepare(image)
    across, down = output_size("match_input_image", (canvas.prepared.shape[2], canvas.prepared.shape[1]))
    answer = torch.nn.functional.interpolate(canvas.prepared.movedim(-1, 1), (down, across), mode="bilinear")
    assert (restore(answer.movedim(1, -1), canvas) - image).abs().mean() < 0.01


@pytest.mark.parametrize(("canvas", "edit"), [((1184, 880), (1140, 912)), ((1024, 1024), (1104, 944))])
def test_an_edit_in_a_shape_that_is_not_kontexts_nearest_was_reframed(
    canvas: tuple[int, int], edit: tuple[int, int]
) -> None:
    image = torch.rand(1, canvas[1], canvas[0], 3)
    with pytest.raises(ImageError, match="reframed"):
        restore(torch.rand(1, edit[1], edit[0], 3), prepare(image))


def test_the_sizes_of_kontext_are_the_stand_ins() -> None:
    assert KONTEXT_SIZES == SIZES


def test_a_long_picture_that_no_editor_gives_back_in_its_shape_has_a_way_through_and_the_error_names_it() -> None:
    image = gradient(200, 800)
    with pytest.raises(ImageError, match=r"if that was set.*Kontext Prepare the aspect_ratio nearest to the edit's"):
        restore(torch.rand(1, 336, 784, 3), prepare(image, megapixels=0.25))
    canvas = prepare(image, size=pick_size("21:9", 800, 200, megapixels=0.25), megapixels=0.25)
    answer = torch.nn.functional.interpolate(canvas.prepared.movedim(-1, 1), (336, 784), mode="bilinear").movedim(1, -1)
    assert (restore(answer, canvas) - image).abs().mean() < 0.03


def test_the_region_of_a_long_mask_takes_in_more_of_the_picture_until_an_editor_can_make_its_shape() -> None:
    image, mask = torch.rand(1, 1200, 1800, 3), torch.zeros(1, 1200, 1800)
    mask[:, 1150:1160, 100:1700] = 1
    canvas = prepare(image, mask, margin=64, longest=LONGEST)
    height, width = canvas.prepared.shape[1:3]
    assert width / height == pytest.approx(LONGEST, rel=0.02)
    region, content = canvas.region, canvas.content
    assert (region.left, region.width, region.top + region.height) == (36, 1728, 1200)
    assert region.width / region.height == pytest.approx(LONGEST, rel=0.01)
    # No reflection was needed: the picture had enough around the mask.
    assert content.width >= width - 16 and content.height >= height - 16
    assert identical(restore(edited(canvas), canvas)[0, :1000], image[0, :1000])
    upright = prepare(image.transpose(1, 2), mask.transpose(1, 2), margin=64, longest=LONGEST)
    assert identical(upright.prepared, canvas.prepared.transpose(1, 2).contiguous())


@pytest.mark.parametrize(("width", "height"), [(800, 200), (200, 800), (1500, 500), (3000, 10), (1, 999)])
def test_a_picture_longer_than_any_editor_makes_is_filled_up_to_the_longest_and_comes_back_whole(
    width: int, height: int
) -> None:
    image = gradient(height, width)
    canvas = prepare(image, longest=LONGEST)
    down, across = canvas.prepared.shape[1:3]
    assert max(across / down, down / across) == pytest.approx(LONGEST, rel=0.02)
    assert across * down / 2**20 == pytest.approx(1, abs=0.25)
    assert restore(edited(canvas), canvas).shape == image.shape
    mask = torch.zeros(1, height, width)
    mask[:, : height // 2 + 1] = 1
    assert prepare(image, mask, margin=9999, longest=LONGEST).prepared.shape == canvas.prepared.shape


def test_a_picture_that_is_filled_up_to_the_longest_is_not_scaled_where_it_fits() -> None:
    image = torch.rand(1, 500, 1500, 3)
    canvas = prepare(image, longest=LONGEST)
    assert (canvas.content.width, canvas.content.height) == (1500, 500)
    left, top = canvas.content.left, canvas.content.top
    assert identical(canvas.prepared[:, top : top + 500, left : left + 1500].contiguous(), image)


def test_an_edit_with_nan_is_refused() -> None:
    canvas = prepare(torch.rand(1, 90, 100, 3), megapixels=0.01)
    with pytest.raises(ImageError, match="NaN"):
        restore(canvas.prepared * float("nan"), canvas)


def test_negative_margins_are_refused() -> None:
    with pytest.raises(ImageError, match="negative"):
        prepare(torch.rand(1, 9, 9, 3), margin=-1)


@settings(max_examples=300, deadline=None)
@given(
    width=st.integers(8, 8192),
    height=st.integers(8, 8192),
    megapixels=st.floats(0.25, 4),
    multiple=st.sampled_from([8, 16, 32]),
)
def test_a_grid_is_near_in_area_and_aspect_and_stays_when_asked_again(
    width: int, height: int, megapixels: float, multiple: int
) -> None:
    size = grid_size(width, height, megapixels, multiple)
    assert size[0] % multiple == size[1] % multiple == 0
    if max(width / height, height / width) <= 8:
        assert 0.75 <= size[0] * size[1] / (megapixels * 1024 * 1024) <= 1.3
        assert grid_size(*size, megapixels, multiple) == size
    area = megapixels * 1024 * 1024
    step = multiple / min((area * width / height) ** 0.5, (area * height / width) ** 0.5)
    assert abs(size[0] / size[1] / (width / height) - 1) <= 2 * step


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(1024, 1024, (1024, 1024)), (8, 8, (1024, 1024)), (8192, 8192, (1024, 1024)), (1000, 1000, (1008, 1008))],
)
def test_any_size_becomes_about_a_megapixel_in_steps_of_sixteen(
    width: int, height: int, expected: tuple[int, int]
) -> None:
    assert grid_size(width, height) == expected


@pytest.mark.parametrize("size", [(0, 5, 1.0), (5, -1, 1.0), (5, 5, 0.0)])
def test_sizes_that_are_none_are_refused(size: tuple[int, int, float]) -> None:
    with pytest.raises(ImageError):
        grid_size(*size)


@pytest.mark.parametrize("ratio", ["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21"])
def test_every_aspect_ratio_of_the_service_has_a_size(ratio: str) -> None:
    width, height = pick_size(ratio, 100, 700)
    across, down = map(int, ratio.split(":"))
    assert width * down / (height * across) == pytest.approx(1, abs=0.02)
    assert width * height / 2**20 == pytest.approx(1, abs=0.05)


def test_matching_the_input_takes_the_pictures_aspect() -> None:
    assert pick_size("match_input_image", 3000, 2000) == grid_size(3000, 2000)


@pytest.mark.parametrize("ratio", ["", "16", "0:9", "16:9:1", "wide", "-1:2", "1.5:1"])
def test_an_unknown_aspect_ratio_is_refused(ratio: str) -> None:
    with pytest.raises(ImageError, match="aspect ratio"):
        pick_size(ratio, 100, 100)
