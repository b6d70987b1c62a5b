"""The fast deflate: every inflater must get back every byte."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kontext_bridge.imaging import deflate
from kontext_bridge.imaging.png import write_png
from PIL import Image


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=600), repeats=st.integers(1, 50))
def test_any_bytes_come_back(data: bytes, repeats: int) -> None:
    whole = data * repeats
    assert zlib.decompress(deflate.compress(np.frombuffer(whole, np.uint8))) == whole


@pytest.mark.parametrize("spread", [0.6, 5, 40])
@pytest.mark.parametrize("extra", range(-5, 6))
def test_lengths_around_a_strip_come_back(extra: int, spread: float) -> None:
    noise = np.random.default_rng(extra + 9).normal(128, spread, 2 * deflate._STRIP_BYTES + extra)
    raw = noise.astype(np.uint8)
    assert zlib.decompress(deflate.compress(raw)) == raw.tobytes()


def test_runs_of_every_length_come_back() -> None:
    lengths = np.random.default_rng(3).permutation(np.arange(1, 1100))
    raw = np.repeat(np.resize(np.arange(256, dtype=np.uint8), len(lengths)), lengths)
    assert zlib.decompress(deflate.compress(raw)) == raw.tobytes()


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_runs_over_many_strips_come_back(extra: int) -> None:
    raw = np.zeros(3 * deflate._STRIP_BYTES + extra, np.uint8)
    raw[::50_021] = 7
    assert zlib.decompress(deflate.compress(raw)) == raw.tobytes()


def test_noise_that_a_look_at_some_of_it_missed_comes_back_among_runs() -> None:
    raw = np.zeros(deflate._STRIP_BYTES, np.uint8)
    for at in range(deflate._LOOKED_AT, len(raw), deflate._OF):
        unseen = raw[at : at + deflate._OF - deflate._LOOKED_AT]
        unseen[:] = np.random.default_rng(at).integers(0, 256, len(unseen))
    assert zlib.decompress(deflate.compress(raw)) == raw.tobytes()


def test_a_picture_of_drawing_and_photograph_in_turns_is_as_small_as_its_parts() -> None:
    noise = np.random.default_rng(5).normal(0, 3, 2 * deflate._STRIP_BYTES).astype(np.int8).view(np.uint8)
    drawn = np.repeat(np.random.default_rng(6).integers(0, 9, deflate._STRIP_BYTES // 16, np.uint8), 16)
    raw = np.concatenate([drawn, noise, drawn, drawn, noise])
    packed = deflate.compress(raw)
    assert zlib.decompress(packed) == raw.tobytes()
    assert len(packed) < 1.01 * (2 * len(deflate.compress(noise)) + 3 * len(deflate.compress(drawn)))


def test_repeats_are_packed_as_well_as_by_zlib() -> None:
    lengths = np.random.default_rng(7).geometric(1 / 20, 20_000)
    raw = np.repeat(np.random.default_rng(8).integers(0, 256, len(lengths), np.uint8), lengths)
    deflater = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    assert len(deflate.compress(raw)) < len(deflater.compress(raw.data) + deflater.flush()) * 1.03


def test_bytes_that_the_sample_missed_still_have_a_code() -> None:
    raw = np.tile(np.array([1, 2], np.uint8), 60_000)
    raw[1::11] = np.resize(np.arange(256, dtype=np.uint8), len(raw[1::11]))
    assert zlib.decompress(deflate.compress(raw)) == raw.tobytes()


def test_no_code_is_longer_than_four_to_a_word_allow() -> None:
    counts = [1, 1]
    while len(counts) < 40:
        counts.append(counts[-1] + counts[-2])
    lengths = deflate.code_lengths(counts + [0] * 217)
    assert max(lengths) <= 15
    assert sum(2.0**-length for length in lengths) == 1.0


def test_repeats_are_packed_and_not_only_coded() -> None:
    raw = np.zeros(1 << 20, np.uint8)
    assert len(deflate.compress(raw)) < len(raw) / 200


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (300, 401)])
def test_pillow_and_its_checks_accept_the_png(size: tuple[int, int], channels: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*size, channels), dtype=np.uint8)
    data = write_png(pixels)
    Image.open(io.BytesIO(data)).verify()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))).reshape(pixels.shape), pixels)
