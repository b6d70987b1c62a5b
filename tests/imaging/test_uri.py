"""Data URIs: what people paste, and what is refused."""

from __future__ import annotations

import base64
from collections.abc import Callable
from urllib.parse import quote_from_bytes

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kontext_bridge.imaging import uri
from kontext_bridge.imaging.codec import EncodedImage, decode, encode_batch
from kontext_bridge.imaging.errors import ImageError, ImageTooLarge
from kontext_bridge.imaging.limits import Limits
from PIL import Image


def test_a_picture_comes_back_from_its_uri() -> None:
    encoded = encode_batch(torch.rand(1, 9, 7, 3))[0]
    text = uri.to_data_uri(encoded)
    assert text.startswith("data:image/png;base64,") and uri.is_data_uri(text)
    assert uri.parse_data_uri(text) == encoded.data
    assert decode(uri.parse_data_uri(text)).width == 7


@pytest.mark.parametrize("size", [0, 1, 2, 3, *(uri._PIECE + more for more in (-1, 0, 1, 2)), 2 * uri._PIECE + 1])
def test_a_uri_that_is_made_in_pieces_is_the_plain_one(size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    picture = EncodedImage(data[:size], "image/png", 1, 1)
    assert uri.to_data_uri(picture) == "data:image/png;base64," + base64.b64encode(data[:size]).decode()


@given(data=st.binary(min_size=1, max_size=200))
def test_a_data_uri_carries_any_bytes_in_base64_and_percent_encoded(data: bytes) -> None:
    assert uri.parse_data_uri("data:image/png;base64," + base64.b64encode(data).decode()) == data
    assert uri.parse_data_uri("data:image/png," + quote_from_bytes(data)) == data


@pytest.mark.parametrize(
    "text",
    [
        "DATA:image/png;BASE64,aGVsbG8=",
        "  data:;base64,aGVs\n bG8=\r\n",
        "data:image/png;charset=x;base64,aGVsbG8=",
        "data:image/png;base64,aGVsbG8%3D",
        "data:image/png;base64,aGVsbG8",
        "data:image/png;base64, aGVs bG8 ",
        "data:image/png;base64,aGVs\r\n\tbG8=\r\n",
        "data:image/png;base64,aGVs%0AbG8%3d",
        "data:image/png;base64,aGVs%20bG8",
        "data:image/png;base64,aGVsbG8=#name",
        "data:image/png; base64 ,aGVsbG8=",
        "data:image/png;base64;charset=utf-8,aGVsbG8=",
        "data:text/html;charset=US-ASCII;name=a.png;Base64,aGVsbG8=",
        "data:base64;base64,aGVsbG8=",
        "data:,hello",
        "data:;charset=x,hello#name",
        "data:text/plain,%68ello",
    ],
)
def test_every_spelling_is_read(text: str) -> None:
    assert uri.is_data_uri(text)
    assert uri.parse_data_uri(text) == b"hello"


@pytest.mark.parametrize(
    "payload", ["hello world!", "<html>", "aGVs*bG8=", "aGVsb", "aGVsbG8==", "äöü=", "aGVs-_8=", "aGVsbG=8"]
)
def test_what_is_not_base64_is_shown(payload: str) -> None:
    with pytest.raises(ImageError, match=f"not: it starts with '{payload[:3]}".replace("*", r"\*")):
        uri.parse_data_uri("data:image/png;base64," + payload)


@pytest.mark.parametrize("text", ["", "http://example.com/a.png", "image/png;base64,aGVs", "database"])
def test_what_is_no_data_uri_is_told_apart(text: str) -> None:
    assert not uri.is_data_uri(text)
    with pytest.raises(ImageError, match="not a data URI"):
        uri.parse_data_uri(text)


def test_url_safe_letters_are_named_with_what_to_replace() -> None:
    with pytest.raises(ImageError, match=r"URL-safe base64.*- by \+ and _ by /"):
        uri.parse_data_uri("data:image/png;base64,aGVs-_8=")


@pytest.mark.parametrize("size", range(1, 40))
def test_padding_may_be_missing_at_every_length(size: int) -> None:
    data = bytes(range(size))
    text = base64.b64encode(data).decode()
    assert uri.parse_data_uri("data:image/png;base64," + text.rstrip("=")) == data
    assert uri.parse_data_uri("data:image/png;base64," + quote_from_bytes(text.encode(), safe="")) == data


@pytest.mark.parametrize(("format", "kind"), [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp"), ("GIF", "gif")])
def test_bare_base64_is_named_with_what_to_put_before_it(format: str, kind: str, saved: Callable[..., bytes]) -> None:
    text = base64.b64encode(saved(Image.new("RGB", (5, 4)), format)).decode()
    for bare in (text, "\n" + text[:40] + "\n" + text[40:], text.rstrip("=")):
        with pytest.raises(ImageError, match=f"looks like bare base64.*data:image/{kind};base64, before it"):
            uri.parse_data_uri(bare)
    with pytest.raises(ImageError, match="put data: before it"):
        uri.parse_data_uri(f"image/{kind};base64,{text}")


@pytest.mark.parametrize("text", ["hello", "database", "C:\\a.png", "/home/me/ox.png", "http://x/" + "a" * 90, ""])
def test_other_texts_are_not_taken_for_base64(text: str) -> None:
    assert uri.names_base64(text) is None


def test_wrapped_base64_is_one_uri_among_others() -> None:
    text = base64.encodebytes(bytes(range(256))).decode()
    wrapped = "data:image/png;base64," + text
    whole = "".join(wrapped.split())
    bare = "iVBORw0KGgo" + "A" * 90
    for between in ("", "\n", "\r\n  "):
        lines = between.join((f"{wrapped}\n", "https://example.com/a.png\n", f"{wrapped}\n", f"{wrapped}\n", bare))
        assert uri.split_uris(lines) == [whole, "https://example.com/a.png", whole, whole, bare]
    assert uri.split_uris("data:image/png;base64,\nAAAA\n/home/me/a.png") == [
        "data:image/png;base64,AAAA",
        "/home/me/a.png",
    ]
    assert uri.split_uris("data:image/png;base64,AA%2B\nAA%3D") == ["data:image/png;base64,AA%2BAA%3D"]
    assert uri.split_uris("http://example.com/a\nAAAA\n\n") == ["http://example.com/a", "AAAA"]
    assert uri.split_uris(bare[:76] + "\n" + bare[76:]) == [bare]


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


def test_half_a_character_in_a_data_uri_is_told_in_words() -> None:
    for text in ("data:,\ud800", "data:image/png,%89\udc80", "data:;base64,\ud800", "data:;base64,%41\ud800"):
        with pytest.raises(ImageError, match="data URI"):
            uri.parse_data_uri(text)
