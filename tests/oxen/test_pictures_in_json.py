"""A picture of megabytes within JSON: written and read without a look at each of its characters."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from kontext_bridge.oxen.errors import UnexpectedReply
from kontext_bridge.oxen.http.envelope import parse_json
from kontext_bridge.oxen.http.writing import json_bytes

PICTURE = "data:image/png;base64," + "iVBORw0KGgo/+A==" * 131072


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of the quickest of some tries."""
    taken = []
    for _ in range(5):
        since = time.thread_time()
        work()
        taken.append(time.thread_time() - since)
    return min(taken)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"input_image": PICTURE, "seed": 3, "again": [PICTURE, None, {"deep": PICTURE}]},
        {"input_image": 'a "quoted" \\ text\n' * 2000, "beside": PICTURE},
        {"input_image": "\x7f\x1f" + PICTURE, "\U0001f402": "\U0001f402" * 20_000},
        {PICTURE: (PICTURE, 0.5, True)},
        [PICTURE, "\ud83d" + PICTURE, ""],
    ],
    ids=["nothing", "pictures", "quotes", "controls", "a name", "half a character"],
)
def test_any_json_is_written_as_the_plain_way_writes_it(value: Any) -> None:
    assert json_bytes(value) == json.dumps(value).encode()


def test_a_number_that_json_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_bytes({"guidance": float("nan")})


def test_a_picture_is_written_in_a_fraction_of_the_plain_ways_time() -> None:
    value = {"input_image": PICTURE}
    assert seconds(lambda: json_bytes(value)) < 0.7 * seconds(lambda: json.dumps(value).encode())


@pytest.mark.parametrize(
    "value",
    [
        {
            "input_image": PICTURE,
            "prompt": "an ox",
            "seed": 3,
            "again": [PICTURE, None, {"deep": [PICTURE, "\ud800"]}],
        },
        [PICTURE, PICTURE + "\n", "x" * 40_000, PICTURE + '"', '"' + PICTURE, "\\" + PICTURE + "\\"],
        {PICTURE: PICTURE, "input_image": "\U0001f402" * 20_000},
        ["a", [1] * 20_000, "b", list(range(20_000))],
        PICTURE,
    ],
    ids=["pictures", "escapes", "a name", "numbers", "a text alone"],
)
def test_a_reply_with_large_texts_is_read_as_the_plain_way_reads_it(value: Any) -> None:
    for body in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        with contextlib.suppress(UnicodeEncodeError):
            expected = json.loads(body.encode())
            read = json.dumps(parse_json(body.encode())).encode()
            assert read == json.dumps(expected).replace("\\ud800", "?").encode()


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "' + b"x" * 50_000 + b'\n"}',
        b'{"a": "' + b"x" * 50_000 + b'"',
        b'{"a": "' + b"x" * 50_000,
        b'"a"' + b"1" * 50_000 + b'"b"',
        b'["' + b"x" * 50_000 + b'" "' + b"y" * 50_000 + b'"]',
        b"x" * 50_000,
    ],
    ids=["a line's end", "no end", "no quotation mark", "digits", "no comma", "no text"],
)
def test_what_is_no_json_is_none_with_large_texts_as_well(body: bytes) -> None:
    with pytest.raises(UnexpectedReply, match="no JSON"):
        parse_json(body)


def test_more_values_than_a_reply_has_are_not_read_between_large_texts() -> None:
    body = b'["' + b"x" * 50_000 + b'",' + b"1," * 600_000 + b'"' + b"x" * 50_000 + b'"]'
    with pytest.raises(UnexpectedReply, match="more values"):
        parse_json(body)


def test_a_reply_that_repeats_a_picture_is_read_sooner_than_the_plain_way() -> None:
    body = json.dumps({"input_image": PICTURE}).encode()
    assert seconds(lambda: parse_json(body)) < 0.8 * seconds(lambda: json.loads(body))


@pytest.mark.parametrize("picture", [PICTURE, "https://example.org/a.png", [PICTURE, "b"], 'a "quoted"\n' + PICTURE])
def test_fields_that_nobody_reads_are_left_out_and_all_others_stay(picture: Any) -> None:
    row = {"id": "7", "input_image": picture, "result_url": PICTURE, "again": [{"input_image": picture}, "input_image"]}
    read = parse_json(json.dumps(row).encode(), unread=["input_image"])
    assert read == {"id": "7", "result_url": PICTURE, "again": [{}, "input_image"]}


def test_a_picture_that_nobody_reads_takes_no_memory_again() -> None:
    body = json.dumps({"input_image": PICTURE, "seed": 3}).encode()
    tracemalloc.start()
    try:
        assert parse_json(body, unread=["input_image"]) == {"seed": 3}
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < len(body) / 4
