"""Data URIs: what people paste, and what is refused."""

from __future__ import annotations

import base64
from urllib.parse import quote_from_bytes

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kontext_bridge.imaging import uri
from kontext_bridge.imaging.codec import decode, encode_batch
from kontext_bridge.imaging.errors import ImageError, ImageTooLarge
from kontext_bridge.imaging.limits import Limits


def test_a_picture_comes_back_from_its_uri() -> None:
    encoded = encode_batch(torch.rand(1, 9, 7, 3))[0]
    text = uri.to_data_uri(encoded)
    assert text.startswith("data:image/png;base64,") and uri.is_data_uri(text)
    assert uri.parse_data_uri(text) == encoded.data
    assert decode(uri.parse_data_uri(text)).width == 7


@given(data=st.binary(min_size=1, max_size=200))
def test_both_forms_carry_any_bytes(data: bytes) -> None:
    assert uri.parse_data_uri("data:image/png;base64," + base64.b64encode(data).decode()) == data
    assert uri.parse_data_uri("data:image/png," + quote_from_bytes(data)) == data


@pytest.mark.parametrize(
    "text",
    [
        "DATA:image/png;BASE64,aGVsbG8=",
        "  data:;base64,aGVs\n bG8=\r\n",
        "data:image/png;charset=x;base64,aGVsbG8=",
        "data:image/png;base64,aGVsbG8%3D",
        "data:,hello",
        "data:text/plain,%68ello",
    ],
)
def test_every_spelling_is_read(text: str) -> None:
    assert uri.is_data_uri(text)
    assert uri.parse_data_uri(text) == b"hello"


@pytest.mark.parametrize("payload", ["hello world!", "<html>", "aGVs*bG8=", "aGVsbG8", "aGVsbG8==", "äöü=", "aGVs-_8="])
def test_what_is_not_base64_is_shown(payload: str) -> None:
    with pytest.raises(ImageError, match=f"not: it starts with '{payload[:3]}".replace("*", r"\*")):
        uri.parse_data_uri("data:image/png;base64," + payload)


@pytest.mark.parametrize("text", ["", "http://example.com/a.png", "image/png;base64,aGVs", "database"])
def test_what_is_no_data_uri_is_told_apart(text: str) -> None:
    assert not uri.is_data_uri(text)
    with pytest.raises(ImageError, match="not a data URI"):
        uri.parse_data_uri(text)


def test_a_uri_without_a_comma_is_refused() -> None:
    with pytest.raises(ImageError, match="no comma"):
        uri.parse_data_uri("data:image/png;base64")


def test_a_uri_without_data_is_refused() -> None:
    with pytest.raises(ImageError, match="no data after"):
        uri.parse_data_uri("data:image/png;base64,")


def test_the_length_is_checked_before_decoding() -> None:
    limits = Limits(max_bytes=1000)
    with pytest.raises(ImageTooLarge):
        uri.parse_data_uri("data:image/png;base64," + "!" * 5000, limits)
    with pytest.raises(ImageTooLarge):
        uri.parse_data_uri("data:image/png," + "%00" * 2000, limits)
    with pytest.raises(ImageTooLarge):
        uri.parse_data_uri("data:image/png;base64," + base64.b64encode(b"x" * 1001).decode(), limits)


def test_a_picture_at_the_limit_is_read_with_its_line_breaks() -> None:
    limits = Limits(max_bytes=1000)
    text = base64.encodebytes(b"x" * 1000).decode()
    assert len(uri.parse_data_uri("data:image/png;base64," + text, limits)) == 1000
