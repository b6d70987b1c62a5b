from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

import pytest
from kontext_bridge.oxen.api.replies import (
    JobEvent,
    JobStatus,
    is_generation_id,
    read_edit,
    read_event,
    read_generation_ids,
    read_history,
    read_history_row,
    read_model,
    read_row,
    read_rows,
)
from kontext_bridge.oxen.errors import UnexpectedReply
from kontext_bridge.oxen.http.envelope import error_text, parse_json

ID = "bb8f5eb7-361e-4e13-ab73-67457bc8057e"
URL = "https://hub.oxen.ai/api/repos/me/files/image.png?oxen_signature=abc"
ROW = {
    "generation_id": ID,
    "model_name": "flux-kontext-dev",
    "prompt": "a hat",
    "media_type": "image",
    "status": "succeeded",
    "result_url": URL,
    "error_message": None,
    "enqueued_at": 1775091431,
    "started_at": 1775091432,
    "completed_at": 1775091445,
    "aspect_ratio": "match_input_image",
    "seed": 42,
}


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "an HTML page"),
        (b"\n  <HTML><head>", "an HTML page"),
        (b"Internal Server Error", "no JSON"),
        (b"", "no JSON"),
        (b'{"generations": [', "no JSON"),
        (b"\xff\xfe{}", "no JSON"),
        (b"1" * 5000, "no JSON"),
    ],
    ids=["html", "html in capitals", "text", "nothing", "cut", "no UTF-8", "a number of 5000 digits"],
)
def test_what_is_no_json_is_named_with_how_it_begins(body: bytes, what: str) -> None:
    with pytest.raises(UnexpectedReply, match=f"answered with {what} .*text/x.*check OXEN_BASE_URL"):
        parse_json(body, "text/x")


@pytest.mark.parametrize("deep", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000])
def test_json_nested_too_deeply_is_an_error_of_ours(deep: bytes) -> None:
    with pytest.raises(UnexpectedReply, match="nested too deeply"):
        parse_json(deep)


def envelope_a(**error: Any) -> dict[str, Any]:
    return {"error": {"type": "invalid_params", **error}, "status": "error", "status_message": "invalid_params"}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (envelope_a(title="a title", detail="the detail"), "the detail"),
        (envelope_a(title="a title"), "a title"),
        (envelope_a(), "invalid_params"),
        ({"error": {"message": "Model not found: x"}}, "Model not found: x"),
        ({"error": {"detail": "name already taken"}}, "name already taken"),
        ({"error": {"type": "upstream", "title": "The provider failed."}, "status": 502}, "The provider failed."),
        ({"error": "plain text"}, "plain text"),
        ({"error": {"detail": {"field": "seed"}, "message": "m"}}, "m"),
        ({"error": {"detail": "  ", "title": "t"}}, "t"),
        ({"error_message": "from a row", "message": "other"}, "from a row"),
        ({"message": "just so"}, "just so"),
        ({"status": "error", "status_message": "s", "status_description": "described"}, "described"),
        ({"error": {"type": "only_a_type"}}, "only_a_type"),
        ({"error": {"title": "x" * 1000}}, "x" * 300),
        ({"error": None}, None),
        ({"error": []}, None),
        ({}, None),
        ([1], None),
        ("text", None),
        (None, None),
    ],
)
def test_the_most_telling_words_of_an_error_are_found(reply: Any, words: str | None) -> None:
    assert error_text(reply) == words


def test_the_ids_of_an_enqueue_come_in_order() -> None:
    reply = {"generations": [{"generation_id": "a", "status": "queued"}, {"generation_id": "b"}]}
    assert read_generation_ids(reply) == ("a", "b")


@pytest.mark.parametrize(
    "reply",
    [
        {"generations": []},
        {"generations": None},
        {"generations": {"generation_id": ID}},
        {"generations": [{"id": ID}]},
        {"generations": [{"generation_id": 5}]},
        {"generations": [{"generation_id": ""}]},
        {"generations": [{"generation_id": "../../users/me"}]},
        {"generations": [ID]},
        {},
        [],
        None,
        "accepted",
    ],
)
def test_a_success_that_names_no_generation_is_an_error(reply: Any) -> None:
    with pytest.raises(UnexpectedReply, match="named no generation"):
        read_generation_ids(reply)


def test_a_success_with_an_error_in_it_says_what_the_error_is() -> None:
    with pytest.raises(UnexpectedReply, match="not available"):
        read_generation_ids({"generations": [{"generation_id": ID}], "error": {"message": "not available"}})


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("reply", "data", "url"),
    [
        ({"images": [{"url": URL}], "model": "m", "created": 1}, None, URL),
        ({"images": [{"b64_json": b64(b"png")}]}, b"png", None),
        ({"images": [{"b64_json": b64(b"png"), "url": URL, "revised_prompt": None}]}, b"png", None),
        ({"images": [{"b64_json": None, "url": URL}]}, None, URL),
        ({"images": [{"b64_json": "", "url": URL}]}, None, URL),
        ({"images": [], "image_url": URL}, None, URL),
        ({"image_url": URL}, None, URL),
        ({"url": URL}, None, URL),
        ({"images": [None, {"url": URL}]}, None, URL),
        ({"images": [{"url": URL}], "error": None}, None, URL),
        ({"images": {"url": URL}, "url": URL}, None, URL),
    ],
)
def test_every_shape_of_an_edits_reply_gives_its_picture(reply: Any, data: bytes | None, url: str | None) -> None:
    picture = read_edit(reply)[0]
    assert (picture.data, picture.url) == (data, url)


def test_several_pictures_come_in_order() -> None:
    assert [p.url for p in read_edit({"images": [{"url": "https://a"}, {"url": "https://b"}]})] == [
        "https://a",
        "https://b",
    ]


@pytest.mark.parametrize(
    "reply",
    [{}, {"images": []}, {"images": [{}]}, {"images": [{"url": 5}]}, {"images": "x"}, {"image_url": None}, [], None],
)
def test_an_edit_without_a_picture_is_an_error(reply: Any) -> None:
    with pytest.raises(UnexpectedReply, match="without a picture"):
        read_edit(reply)


def test_an_edit_with_an_error_gives_no_picture_even_where_it_has_one() -> None:
    with pytest.raises(UnexpectedReply, match="without a picture: sorry") as told:
        read_edit({"images": [{"url": URL}], "error": "sorry"})
    assert not told.value.definite, "it may be on the bill"
    with pytest.raises(UnexpectedReply, match="without a picture: sorry") as told:
        read_edit({"images": [], "error": "sorry"})
    assert told.value.definite


@pytest.mark.parametrize("text", ["*not base64*", "abcde", "é" * 8, "data:image/png;base64,*"])
def test_a_picture_that_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(UnexpectedReply, match="not base64"):
        read_edit({"images": [{"b64_json": text}]})


def test_a_row_is_read_whole_and_keeps_what_was_submitted() -> None:
    row = read_row(ROW)
    assert (row.generation_id, row.status, row.model) == (ID, JobStatus.SUCCEEDED, "flux-kontext-dev")
    assert (row.enqueued_at, row.started_at, row.completed_at) == (1775091431, 1775091432, 1775091445)
    assert (row.result_url, row.error_message) == (URL, None)
    assert {name: row.parameters[name] for name in ("prompt", "aspect_ratio", "seed")} == {
        "prompt": "a hat",
        "aspect_ratio": "match_input_image",
        "seed": 42,
    }


@pytest.mark.parametrize("status", ["queued", "processing", "succeeded", "failed", "cancelled"])
def test_each_documented_status_is_known_and_three_are_final(status: str) -> None:
    row = read_row({"generation_id": ID, "status": status})
    assert row.status.terminal == (status in {"succeeded", "failed", "cancelled"})


@pytest.mark.parametrize("status", ["completed", "error", "canceled", "timeout", "", None, 5, [], {}])
def test_a_status_that_no_document_lists_is_refused_by_name(status: Any) -> None:
    with pytest.raises(UnexpectedReply, match=f"{ID} has the unknown status"):
        read_row({"generation_id": ID, "status": status})


@pytest.mark.parametrize("reply", [None, [], "x", {}, {"status": "queued"}, {"generation_id": 5, "status": "queued"}])
def test_what_is_no_row_is_refused(reply: Any) -> None:
    with pytest.raises(UnexpectedReply, match="no generation"):
        read_row(reply)


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e999", '"soon"', "true", "[]", "null"])
def test_a_time_that_is_no_number_is_left_out_and_fails_nothing(number: str) -> None:
    row = read_row(json.loads(f'{{"generation_id":"{ID}","status":"queued","enqueued_at":{number}}}'))
    assert row.enqueued_at == 0


def test_the_name_of_the_model_is_read_under_either_name() -> None:
    assert read_row({"generation_id": ID, "status": "queued", "model": "m"}).model == "m"


def test_an_id_that_could_change_the_path_of_a_request_is_no_id() -> None:
    assert is_generation_id(ID)
    for odd in ("", "../x", "a/b", "a?b", "a%2fb", " a", "a\n", "-a", "a" * 200):
        assert not is_generation_id(odd), odd


def test_lists_keep_their_order_and_what_is_no_list_is_refused() -> None:
    listed = read_rows({"count": 2, "generations": [ROW, ROW | {"generation_id": "x"}]})
    assert [row.generation_id for row in listed.rows] == [ID, "x"] and listed.strange == ()
    with pytest.raises(UnexpectedReply, match="without a list"):
        read_rows({"count": 0})
    with pytest.raises(UnexpectedReply, match="without a list"):
        read_rows([])


@pytest.mark.parametrize(
    ("cost", "amount"),
    [("0.04", Decimal("0.04")), (0.04, Decimal("0.04")), (None, None), ("free", None), ("NaN", None), (True, None)],
)
def test_a_cost_is_an_exact_amount_or_unknown(cost: Any, amount: Decimal | None) -> None:
    assert read_row(ROW | {"cost": cost}).cost == amount


def test_a_page_of_history_has_its_numbers_and_its_total() -> None:
    reply = {"count": 1, "generations": [ROW], "page_number": 2, "page_size": 50, "total_pages": 3}
    history = read_history(reply | {"total_entries": 101, "total_cost": "4.04"})
    assert (history.page, history.pages, history.entries, history.total_cost) == (2, 3, 101, Decimal("4.04"))
    assert read_history({"generations": []}).total_cost is None


def test_the_details_of_one_generation_are_unwrapped() -> None:
    wrapped = {"generation": ROW | {"cost": "0.04"}, "status": "success", "status_message": "resource_found"}
    assert read_history_row(wrapped).cost == Decimal("0.04")
    for odd in (ROW, {"generation": None}, None, []):
        with pytest.raises(UnexpectedReply):
            read_history_row(odd)


@pytest.mark.parametrize("name", ["request_schema", "json_request_schema"])
def test_a_models_schema_is_read_under_either_name(name: str) -> None:
    reply = {"id": "m", "object": "model", "created": 1, "owned_by": "o", name: {"type": "object"}}
    assert read_model(reply).schema == {"type": "object"}


def test_of_both_schema_names_the_documented_one_counts() -> None:
    reply = {"id": "m", "request_schema": {"a": 1}, "json_request_schema": {"b": 1}}
    assert read_model(reply).schema == {"a": 1}


def test_a_models_price_and_words_are_read_where_there_are_any() -> None:
    model = read_model(
        {"id": "m", "pricing": {"method": "per_image", "cost_per_image": 0.022}, "summary": "s", "description": None}
    )
    assert (model.cost_per_image, model.pricing_method, model.name, model.description) == (
        Decimal("0.022"),
        "per_image",
        "m",
        "s",
    )
    bare = read_model({"id": "m", "pricing": None, "request_schema": None, "developer": "a text"})
    assert (bare.cost_per_image, bare.schema) == (None, None)


@pytest.mark.parametrize("reply", [None, [], {}, {"id": 5}])
def test_what_is_no_model_is_refused(reply: Any) -> None:
    with pytest.raises(UnexpectedReply, match="no model"):
        read_model(reply)


def test_an_event_is_read_by_its_own_names() -> None:
    succeeded = json.dumps({"generation_id": ID, "status": "succeeded", "media_type": "image", "url": URL})
    failed = json.dumps({"generation_id": ID, "status": "failed", "error": "Insufficient credits"})
    assert read_event(succeeded) == JobEvent(ID, JobStatus.SUCCEEDED, url=URL)
    assert read_event(failed) == JobEvent(ID, JobStatus.FAILED, error="Insufficient credits")


@pytest.mark.parametrize(
    "data",
    [
        *("", "null", "[]", "text", "{", '{"status":"succeeded"}', '{"generation_id":"x","status":"done"}'),
        *('{"generation_id":"../x","status":"failed"}', '{"generation_id":"x","status":["failed"]}', "[" * 100_000),
        '{"generation_id":"x\ud800","status":"failed"}',
    ],
    ids=lambda data: ascii(data[:24]),
)
def test_an_event_that_cannot_be_used_is_none_and_raises_nothing(data: str) -> None:
    assert read_event(data) is None


@pytest.mark.parametrize("number", [10**400, -(10**400), 1e300, float("inf"), float("nan"), 2**63])
def test_a_number_that_no_clock_and_no_page_can_have_is_left_out(number: float) -> None:
    row = read_row({"generation_id": "x", "status": "queued", "enqueued_at": number, "started_at": number})
    assert (row.enqueued_at, row.started_at) == (0, None)
