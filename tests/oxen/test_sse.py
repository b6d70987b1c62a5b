from __future__ import annotations

from itertools import combinations

import pytest
from kontext_bridge.oxen.errors import UnexpectedReply
from kontext_bridge.oxen.http.sse import Decoder, ServerEvent

STREAM = (
    b"\xef\xbb\xbf: keep-alive\n\n"
    b'event: media_generation_completed\r\ndata: {"a":1}\r\n\r\n'
    b"event:x\rdata: first\rdata:second \r\r"
    b"data: no name \xc3\xa9\xe2\x82\xac\n\n"
    b"event: nothing in it\n\n"
    b"id: 7\r\nretry: 10\r\ndata\r\rdata: mixed\r\n\n"
)
EVENTS = [
    ServerEvent("media_generation_completed", '{"a":1}'),
    ServerEvent("x", "first\nsecond "),
    ServerEvent("message", "no name é€"),
    ServerEvent("message", ""),
    ServerEvent("message", "mixed"),
]


def events_of(*chunks: bytes, max_bytes: int = 1 << 20) -> list[ServerEvent]:
    decoder = Decoder(max_bytes)
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def test_a_stream_in_one_piece_gives_every_event_in_order() -> None:
    assert events_of(STREAM) == EVENTS


def test_a_cut_at_any_position_changes_no_event() -> None:
    for cut in range(len(STREAM) + 1):
        assert events_of(STREAM[:cut], STREAM[cut:]) == EVENTS, f"cut at {cut}"


def test_two_cuts_at_any_positions_change_no_event() -> None:
    for first, second in combinations(range(len(STREAM) + 1), 2):
        got = events_of(STREAM[:first], STREAM[first:second], STREAM[second:])
        assert got == EVENTS, f"cut at {first} and {second}"


def test_bytes_one_by_one_with_empty_reads_between_change_no_event() -> None:
    chunks = [piece for i in range(len(STREAM)) for piece in (b"", STREAM[i : i + 1], b"")]
    assert events_of(*chunks) == EVENTS


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
def test_each_line_ending_ends_a_line_once(end: bytes) -> None:
    assert events_of(b"event: x" + end + b"data: 1" + end + b"data: 2" + end + end) == [ServerEvent("x", "1\n2")]


def test_a_crlf_cut_in_the_middle_is_one_line_end_and_no_blank_line() -> None:
    assert events_of(b"event: x\r", b"\ndata: 1\r", b"\ndata: 2\r", b"\n\r", b"\n") == [ServerEvent("x", "1\n2")]


def test_an_event_ended_by_a_bare_cr_is_given_before_the_next_byte_arrives() -> None:
    assert events_of(b"data: 1\r\r") == [ServerEvent("message", "1")]


def test_a_lf_after_a_cr_and_other_bytes_still_ends_a_line() -> None:
    assert events_of(b"data: 1\r", b"data: 2\n", b"\n") == [ServerEvent("message", "1\n2")]


def test_a_byte_order_mark_is_taken_off_the_first_line_only() -> None:
    mark = b"\xef\xbb\xbf"
    assert events_of(mark + b"data: 1\n\n" + mark + b"data: 2\n\n") == [ServerEvent("message", "1")]


def test_comments_and_keep_alives_are_no_events_and_part_no_event() -> None:
    assert events_of(b": keep-alive\n\n:\n\ndata: 1\n: between\ndata: 2\n\n") == [ServerEvent("message", "1\n2")]


def test_only_one_blank_after_the_colon_is_dropped() -> None:
    assert events_of(b"data:  two\n\ndata:none\n\ndata: a: b\n\n") == [
        ServerEvent("message", " two"),
        ServerEvent("message", "none"),
        ServerEvent("message", "a: b"),
    ]


def test_an_event_without_its_final_blank_line_is_not_given() -> None:
    assert events_of(b"event: x\ndata: half") == []
    assert events_of(b"event: x\ndata: half\n") == []


def test_a_name_does_not_leak_into_the_next_event() -> None:
    assert events_of(b"event: x\n\ndata: 1\n\n") == [ServerEvent("message", "1")]


def test_unknown_fields_and_fields_that_only_begin_like_ours_are_ignored() -> None:
    assert events_of(b"datax: 1\n data: 2\nDATA: 3\nevents: y\ndata: 4\n\n") == [ServerEvent("message", "4")]


def test_bytes_that_are_no_utf_8_become_replacement_characters_and_spoil_nothing_else() -> None:
    assert events_of(b"event: \xff\ndata: a\xc3(b\n\ndata: next\n\n") == [
        ServerEvent("\ufffd", "a\ufffd(b"),
        ServerEvent("message", "next"),
    ]


@pytest.mark.parametrize(
    "endless",
    [[b"data: " + b"a" * 60, b"a" * 60], [b"data: " + b"a" * 20 + b"\n"] * 10, [b"a" * 101]],
    ids=["one line in two pieces", "many data lines", "one line without a colon"],
)
def test_an_event_over_the_limit_is_refused_before_it_is_whole(endless: list[bytes]) -> None:
    with pytest.raises(UnexpectedReply, match="more than 100 bytes"):
        events_of(*endless, max_bytes=100)


def test_the_limit_is_for_one_event_and_not_for_the_stream() -> None:
    assert len(events_of(*[b"data: " + b"a" * 80 + b"\n\n"] * 50, max_bytes=100)) == 50
    assert events_of(*[b": " + b"a" * 80 + b"\n"] * 50, max_bytes=100) == []
