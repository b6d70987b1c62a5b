from __future__ import annotations

import time

import pytest
from kontext_bridge.oxen.secrets import Redactor, without_query

KEY = "SFMyNTY.g2gDbQAAACQ3-0123456789.abcDEF_ghi"


def test_the_whole_key_is_hidden_and_the_rest_of_the_text_stays() -> None:
    assert Redactor(KEY)(f"bad key {KEY}, sorry") == "bad key [hidden], sorry"


def test_every_piece_of_twelve_characters_or_more_is_hidden_wherever_it_starts() -> None:
    redact = Redactor(KEY)
    for length in (12, 13, 20, len(KEY) - 1):
        for start in range(len(KEY) - length + 1):
            piece = KEY[start : start + length]
            assert redact(f"<{piece}>") == "<[hidden]>", piece
            assert redact(piece) == "[hidden]"


def test_two_pieces_side_by_side_are_both_hidden() -> None:
    shown = Redactor(KEY)(KEY[:14] + KEY[20:34] + "|" + KEY * 2)
    assert not any(KEY[i : i + 12] in shown for i in range(len(KEY) - 11))
    assert "|" in shown


def test_a_short_key_is_hidden_whole_and_no_key_hides_nothing() -> None:
    assert Redactor("short")("a short text") == "a [hidden] text"
    assert Redactor("")("a text") == Redactor(None)("a text") == "a text"


@pytest.mark.parametrize(
    "uri",
    [
        "data:image/png;base64," + "iVBORw0KGgo" * 30,
        "data:image/svg+xml;charset=utf-8;base64," + "A" * 16,
        "data:;base64," + "QUJD" * 5,
        "data:application/octet-stream," + "%89PNG%0D%0A" * 4,
        "DATA:image/png;base64," + "iVBORw0KGgo" * 3,
    ],
    ids=["png", "with a charset", "without a type", "percent-encoded", "in capitals"],
)
def test_a_data_uri_is_hidden(uri: str) -> None:
    assert Redactor(None)(f"cannot open {uri} as a picture") == "cannot open [data URI] as a picture"


@pytest.mark.parametrize("scheme", ["https", "http", "HTTPS"])
def test_the_query_of_an_address_is_hidden_and_its_path_is_not(scheme: str) -> None:
    url = f"{scheme}://hub.oxen.ai/api/repos/me/files/a.png?oxen_signature=abc&oxen_expires=1"
    shown = Redactor(None)(f"403 Client Error: Forbidden for url: {url} and more")
    assert shown == f"403 Client Error: Forbidden for url: {scheme}://hub.oxen.ai/api/repos/me/files/a.png?… and more"


def test_an_address_fit_to_be_shown_has_neither_query_nor_fragment() -> None:
    assert without_query("https://a.example/b.png?x=1#y") == "https://a.example/b.png"
    assert without_query("https://a.example/b.png#y?x") == "https://a.example/b.png"


def test_no_text_and_no_name_of_a_json_value_keeps_the_key() -> None:
    redact = Redactor(KEY)
    value = {"a": [KEY, {"b": f"x{KEY[3:20]}y", KEY: 1}], "n": 5, "none": None, "id": "job-1"}
    assert redact.value(value) == {
        "a": ["[hidden]", {"b": "x[hidden]y", "[hidden]": 1}],
        "n": 5,
        "none": None,
        "id": "job-1",
    }
    assert redact.value(KEY) == "[hidden]"
    assert Redactor(None).value({"a": "b"}) == {"a": "b"}
    assert Redactor("short").value(["a short key"]) == ["a [hidden] key"]
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    redact.value(deep)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Failed to parse: http://me:secret@proxy:80/x", "Failed to parse: http://…@proxy:80/x"),
        ("cannot reach https://token-secret@hub.example/a", "cannot reach https://…@hub.example/a"),
        ("proxy me:secret@proxy:8080 is odd", "proxy …@proxy:8080 is odd"),
        ("socks5://me:sec%40ret@[::1]:1080", "socks5://…@[::1]:1080"),
        ("at 12:30 mail ox@example.com", "at 12:30 mail ox@example.com"),
    ],
)
def test_the_user_of_an_address_is_hidden(text: str, shown: str) -> None:
    assert Redactor(None)(text) == shown


def test_an_address_fit_to_be_shown_has_no_user() -> None:
    assert without_query("https://me:secret@a.example/b.png?x=1") == "https://…@a.example/b.png"


def test_hiding_users_takes_no_longer_for_a_text_that_is_made_to_hold_it_up() -> None:
    since = time.process_time()
    Redactor(None)("a" * 30_000 + ":" + "/" * 30_000 + "@ ")
    assert time.process_time() - since < 2.0
