"""Pictures to bytes and back, whole: every format, every kind of pixel, every picture of a batch."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kontext_bridge.imaging.codec import (
    DEFAULT_FORMAT,
    DecodedImage,
    ImageFormat,
    decode,
    decode_batch,
    encode,
    encode_batch,
    to_tensors,
)
from kontext_bridge.imaging.errors import ImageError
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]
LOSSLESS = [ImageFormat.PNG, ImageFormat.WEBP_LOSSLESS]


def test_the_default_format_loses_nothing() -> None:
    assert DEFAULT_FORMAT in LOSSLESS


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    channels=st.sampled_from([1, 3, 4]),
    seed=st.integers(0, 2**32 - 1),
    format=st.sampled_from(LOSSLESS),
)
def test_lossless_formats_give_back_every_pixel(
    height: int, width: int, channels: int, seed: int, format: ImageFormat
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    picture = decode(encode(pixels, format).data)
    assert np.array_equal(picture.rgb, np.broadcast_to(pixels[..., :3], (height, width, 3)))
    if channels == 4:
        assert np.array_equal(picture.alpha, pixels[..., 3])
    else:
        assert picture.alpha is None


@pytest.mark.parametrize("format", LOSSLESS)
def test_colour_under_full_transparency_is_kept(format: ImageFormat) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    pixels[..., 3] = 0
    assert np.array_equal(decode(encode(pixels, format).data).rgb, pixels[..., :3])


@pytest.mark.parametrize(
    ("format", "media_type"),
    [
        (ImageFormat.PNG, "image/png"),
        (ImageFormat.WEBP_LOSSLESS, "image/webp"),
        (ImageFormat.WEBP, "image/webp"),
        (ImageFormat.JPEG, "image/jpeg"),
    ],
)
def test_the_media_type_is_what_the_bytes_are(
    format: ImageFormat, media_type: str, picture: Callable[..., Pixels]
) -> None:
    encoded = encode(picture(), format)
    assert (encoded.media_type, encoded.width, encoded.height) == (media_type, 53, 37)
    assert decode(encoded.data).media_type == media_type


@pytest.mark.parametrize("format", [ImageFormat.WEBP, ImageFormat.JPEG])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossy_formats_stay_close_and_quality_counts(
    format: ImageFormat, channels: int, picture: Callable[..., Pixels]
) -> None:
    pixels = picture(200, 300, channels)
    good, poor = encode(pixels, format, 95), encode(pixels, format, 20)
    assert len(poor.data) < len(good.data)
    assert np.abs(decode(good.data).rgb.astype(int) - pixels).mean() < 4


@pytest.mark.parametrize("quality", [0, 101, -1])
def test_a_quality_out_of_range_is_refused(quality: int, picture: Callable[..., Pixels]) -> None:
    with pytest.raises(ImageError, match=r"1 .*100"):
        encode(picture(), ImageFormat.JPEG, quality)


def test_transparency_in_a_jpeg_is_refused_with_what_to_choose() -> None:
    image = torch.rand(2, 8, 8, 3)
    mask = torch.zeros(2, 8, 8)
    mask[1, 0, 0] = 1
    with pytest.raises(ImageError, match=r"Picture 2 of 2: JPEG cannot hold transparency\. Choose PNG or WebP"):
        encode_batch(image, mask, format=ImageFormat.JPEG)
    # of itself, and not by a mask: there is none to disconnect
    own = torch.cat([image, 1 - mask[..., None]], -1)
    with pytest.raises(ImageError, match=r"connect an empty one .* where the picture has an alpha of its own"):
        encode_batch(own, format=ImageFormat.JPEG)
    assert len(encode_batch(own, torch.zeros(1, 64, 64), format=ImageFormat.JPEG)) == 2


def test_an_opaque_alpha_does_not_stand_in_the_way_of_a_jpeg() -> None:
    image = torch.rand(1, 8, 8, 4)
    image[..., 3] = 1
    assert encode_batch(image, format=ImageFormat.JPEG)[0].media_type == "image/jpeg"


def test_a_side_too_long_for_webp_becomes_a_png_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (2, 16384, 3), dtype=np.uint8)
    with caplog.at_level(logging.WARNING):
        encoded = encode(pixels, ImageFormat.WEBP_LOSSLESS)
    assert encoded.media_type == "image/png" and "16384x2" in caplog.text
    assert np.array_equal(decode(encoded.data).rgb, pixels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_picture_of_a_batch_is_encoded_in_order(channels: int, dtype: torch.dtype) -> None:
    levels = torch.randint(0, 256, (9, 20, 30, channels))
    encoded = encode_batch((levels / 255).to(dtype), workers=3)
    stacked = to_tensors(decode_batch([one.data for one in encoded]))
    expected = (levels / 255)[..., :3].expand(-1, -1, -1, 3)
    assert torch.equal(stacked.image, expected) and stacked.resized == ()
    if channels == 4:
        assert torch.equal((stacked.mask * 255).round().long(), 255 - levels[..., 3])


def test_the_number_of_workers_changes_no_byte() -> None:
    image = torch.rand(5, 33, 44, 3)
    assert encode_batch(image, workers=1) == encode_batch(image, workers=4)


def test_pixels_computed_under_inference_mode_can_be_encoded() -> None:
    with torch.inference_mode():
        image = torch.rand(2, 8, 8, 3) * 0.5
    assert len(encode_batch(image)) == 2


def test_a_picture_that_still_carries_gradients_can_be_encoded() -> None:
    assert encode_batch(torch.rand(1, 8, 8, 3, requires_grad=True))[0].width == 8


@pytest.mark.parametrize(
    ("format", "mode"),
    [
        *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        *(("JPEG", mode) for mode in ("1", "L", "RGB", "CMYK")),
        *(("WEBP", mode) for mode in ("L", "LA", "P", "RGB", "RGBA")),
        *(("GIF", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
    ],
)
def test_every_mode_that_pillow_writes_is_read_as_pillow_shows_it(
    format: str, mode: str, picture: Callable[..., Pixels], saved: Callable[..., bytes]
) -> None:
    source = Image.fromarray(picture(channels=4))
    data = saved(source.convert(mode), format)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    decoded = decode(data)
    alpha = np.full(expected.shape[:2], 255) if decoded.alpha is None else decoded.alpha
    assert np.array_equal(alpha, expected[..., 3])
    assert np.array_equal(decoded.rgb, expected[..., :3])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_small_palettes_are_read_as_pillow_shows_them(
    bits: int, picture: Callable[..., Pixels], saved: Callable[..., bytes]
) -> None:
    source = Image.fromarray(picture()).quantize(1 << bits)
    data = saved(source, "PNG", bits=bits)
    assert np.array_equal(decode(data).rgb, np.asarray(source.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_key_colour_becomes_transparent(
    mode: str, picture: Callable[..., Pixels], saved: Callable[..., bytes]
) -> None:
    source = Image.fromarray(picture()).convert(mode)
    key = source.getpixel((5, 6))
    data = saved(source, "PNG", transparency=key)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3]
    assert expected[6, 5] == 0
    assert np.array_equal(decode(data).alpha, expected)


def test_a_palette_with_an_alpha_for_each_entry_keeps_them(
    picture: Callable[..., Pixels], saved: Callable[..., bytes]
) -> None:
    source = Image.fromarray(picture()).quantize(8)
    data = saved(source, "PNG", transparency=bytes([0, 40, 80, 120, 160, 200, 240]))
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert np.array_equal(decode(data).alpha, expected[..., 3])


def test_16_bit_grey_is_scaled_and_not_clipped_to_white(saved: Callable[..., bytes]) -> None:
    deep = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    assert np.array_equal(decode(saved(Image.fromarray(deep), "PNG")).rgb[..., 1], deep >> 8)


def test_an_interlaced_png_is_read(files: dict[str, bytes]) -> None:
    assert np.array_equal(decode(files["png interlaced"]).rgb, decode(files["png"]).rgb)


@pytest.mark.parametrize("kind", ["png animated", "webp animated", "gif animated"])
def test_an_animation_gives_its_first_frame(kind: str, files: dict[str, bytes]) -> None:
    expected = np.asarray(Image.open(io.BytesIO(files[kind])).convert("RGB"))
    assert np.array_equal(decode(files[kind]).rgb, expected)


def test_a_gif_frame_smaller_than_its_screen_is_transparent_around(saved: Callable[..., bytes]) -> None:
    small = saved(Image.fromarray(np.full((4, 5), 200, np.uint8)), "GIF")
    at = small.index(b"\x2c")
    moved = small[at + 1 : at + 5].replace(b"\0\0\0\0", b"\x03\0\x02\0")
    data = small[:6] + b"\x0c\0\x0a\0" + small[10 : at + 1] + moved + small[at + 5 :]
    decoded = decode(data)
    assert decoded.rgb.shape == (10, 12, 3) and decoded.alpha is not None
    assert decoded.alpha[2:6, 3:8].min() == 255 and decoded.alpha.sum() == 255 * 20
    assert decoded.rgb[2:6, 3:8].min() == 200


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_turns_the_picture_upright(
    order: str, format: str, orientation: int, picture: Callable[..., Pixels], saved: Callable[..., bytes]
) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F] = "maker"
    exif[0x0112] = orientation
    data = saved(Image.fromarray(picture()), format, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode(data).rgb, np.asarray(expected))


def test_a_mask_follows_the_orientation_too(picture: Callable[..., Pixels], saved: Callable[..., bytes]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = picture(channels=4)
    decoded = decode(saved(Image.fromarray(pixels), "PNG", exif=exif))
    assert np.array_equal(decoded.alpha, np.rot90(pixels[..., 3], -1))


def test_without_alpha_the_mask_is_zero_and_of_the_pictures_size(files: dict[str, bytes]) -> None:
    stacked = to_tensors(decode_batch([files["png"], files["jpeg"]]))
    assert stacked.mask.shape == stacked.image.shape[:3] and not stacked.mask.any()
    assert stacked.image.dtype == stacked.mask.dtype == torch.float32


def test_transparent_pixels_are_1_in_the_mask() -> None:
    alpha = np.array([[0, 255, 51]], np.uint8)
    stacked = to_tensors([DecodedImage(np.zeros((1, 3, 3), np.uint8), alpha, "image/png")])
    assert stacked.mask.flatten().tolist() == pytest.approx([1.0, 0.0, 0.8])


def test_pictures_of_unequal_size_take_the_first_ones_and_are_named(picture: Callable[..., Pixels]) -> None:
    sizes = [(30, 40), (30, 40), (60, 80), (31, 40)]
    pictures = [DecodedImage(picture(*size), None, "image/png") for size in sizes]
    stacked = to_tensors(pictures)
    assert stacked.image.shape == (4, 30, 40, 3) and stacked.resized == (2, 3)
    assert stacked.image.min() >= 0 and stacked.image.max() <= 1


def test_no_picture_at_all_is_an_error_and_not_an_empty_batch() -> None:
    with pytest.raises(ImageError, match="no picture"):
        to_tensors([])


def test_the_broken_picture_of_several_is_named(files: dict[str, bytes]) -> None:
    with pytest.raises(ImageError, match="Picture 3 of 3"):
        decode_batch([files["png"], files["gif"], files["jpeg"][:200]])
