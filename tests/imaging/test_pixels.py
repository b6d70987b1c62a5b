"""Tensors to 8-bit pixels: what is refused, and that nothing wraps, drifts or goes missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kontext_bridge.imaging.errors import ImageError
from kontext_bridge.imaging.pixels import check_image, check_mask, digest, to_uint8, with_alpha


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_level_of_the_8_bit_grid_survives(dtype: torch.dtype) -> None:
    levels = torch.arange(256).reshape(16, 16, 1)
    if dtype is torch.bfloat16:
        levels = levels[:8] * 2 // 2
    assert np.array_equal(to_uint8((levels / 255).to(dtype)), levels.numpy())


def test_overshoot_is_clamped_and_never_wraps() -> None:
    image = torch.tensor([1.02, -0.02, 3.0, -7.0, 1.0, 0.0]).reshape(1, 2, 3)
    assert to_uint8(image).reshape(-1).tolist() == [255, 0, 255, 0, 255, 0]


def test_levels_are_rounded_to_the_nearest_and_not_cut_off() -> None:
    values = torch.rand(200, 300, 3)
    error = to_uint8(values).astype(np.float64) - values.double().numpy() * 255
    assert np.abs(error).max() <= 0.5 + 1e-4
    assert abs(error.mean()) < 0.01


def test_a_channels_last_view_of_a_channels_first_tensor_is_read_in_the_right_order() -> None:
    channels_first = torch.rand(3, 40, 50)
    view = channels_first.permute(1, 2, 0)
    assert np.array_equal(to_uint8(view), to_uint8(view.contiguous()))


@pytest.mark.parametrize("shape", [(4, 4, 3), (1, 1, 4, 4, 3), (16,)])
def test_a_wrong_rank_is_refused_with_the_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=str(shape[-1])):
        check_image(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (1, 0, 4, 3), (1, 4, 0, 3)])
def test_a_picture_of_zero_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="nothing in it"):
        check_image(torch.zeros(shape))


@pytest.mark.parametrize("channels", [0, 2, 5, 16])
def test_channels_other_than_1_3_4_are_refused_with_their_number(channels: int) -> None:
    with pytest.raises(ImageError, match=f"{channels} channels"):
        check_image(torch.zeros(1, 4, 4, channels))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_nan_or_infinity_names_its_picture(bad: float, dtype: torch.dtype) -> None:
    image = torch.zeros(5, 8, 8, 3, dtype=dtype)
    image[3, 2, 1, 0] = bad
    with pytest.raises(ImageError, match="Picture 4 of 5 holds 1 values"):
        check_image(image)


def test_whole_numbers_are_refused_instead_of_read_as_white() -> None:
    with pytest.raises(ImageError, match="uint8"):
        check_image(torch.zeros(1, 4, 4, 3, dtype=torch.uint8))


def test_something_that_is_no_tensor_is_refused_by_its_type() -> None:
    with pytest.raises(ImageError, match="ndarray"):
        check_image(np.zeros((1, 4, 4, 3)))  # type: ignore[arg-type]


def test_a_broken_mask_is_refused() -> None:
    for mask in (torch.zeros(1, 1, 4, 4), torch.zeros(1, 0, 4), torch.full((1, 4, 4), float("nan"))):
        with pytest.raises(ImageError):
            check_mask(mask)


def test_a_mask_without_a_batch_gains_one() -> None:
    assert check_mask(torch.zeros(4, 5)).shape == (1, 4, 5)


def test_the_mask_becomes_alpha_turned_round() -> None:
    mask = torch.tensor([[[0.0, 1.0], [0.25, 0.0]]])
    combined = with_alpha(torch.full((1, 2, 2, 3), 0.5), mask)
    assert torch.equal(combined[..., 3], 1 - mask)


def test_one_mask_serves_the_whole_batch() -> None:
    combined = with_alpha(torch.rand(3, 4, 4, 3), torch.ones(1, 4, 4))
    assert combined.shape == (3, 4, 4, 4) and not combined[..., 3].any()


def test_a_grey_picture_with_a_mask_becomes_rgba() -> None:
    grey = torch.rand(1, 4, 4, 1)
    combined = with_alpha(grey, torch.ones(1, 4, 4))
    assert torch.equal(combined[..., :3], grey.expand(-1, -1, -1, 3))


def test_the_64x64_zero_mask_of_a_file_without_alpha_means_opaque() -> None:
    image = torch.rand(2, 100, 30, 3)
    assert torch.equal(with_alpha(image, torch.zeros(1, 64, 64)), image)


def test_a_mask_of_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(ImageError, match=r"64x32.*30x100"):
        with_alpha(torch.rand(1, 100, 30, 3), torch.ones(1, 32, 64))


def test_masks_of_another_count_are_refused_with_both_counts() -> None:
    with pytest.raises(ImageError, match="2 masks for 3 pictures"):
        with_alpha(torch.rand(3, 4, 4, 3), torch.ones(2, 4, 4))


def test_pictures_of_the_same_bytes_and_another_shape_have_another_digest() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert digest(pixels) == digest(pixels.copy()[:])
    assert len({digest(pixels), digest(pixels.reshape(4, 2, 3)), digest(pixels + np.uint8(1))}) == 3


def test_the_digest_of_a_view_is_that_of_its_pixels() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert digest(pixels[:, ::2]) == digest(np.ascontiguousarray(pixels[:, ::2]))


def test_errors_show_to_the_artist_under_the_packs_name() -> None:
    assert f"{ImageError.__module__}.{ImageError.__qualname__}" == "kontext_bridge.ImageError"


def test_a_look_at_pictures_cut_out_of_larger_ones_copies_no_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[torch.Size] = []
    aminmax = torch.aminmax
    monkeypatch.setattr(torch, "aminmax", lambda values: looked_at.append(values.shape) or aminmax(values))
    check_image(torch.rand(8, 72, 72, 3)[:, 4:68, 4:68])
    assert looked_at == [torch.Size([64, 64, 3])] * 8  # torch makes one piece of what it looks at
