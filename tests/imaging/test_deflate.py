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
