"""What the service's lists may look like, and what is made of a request whose answer was lost."""

from __future__ import annotations

import base64
import html
import random
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from kontext_bridge.oxen.api.replies import read_history, read_rows
from kontext_bridge.oxen.errors import InvalidParameters, UnexpectedReply
from kontext_bridge.oxen.jobs.lookup import Found, Nothing, Perhaps, look_up
from kontext_bridge.oxen.jobs.record import State

PROMPT = "mettez un chapeau à l'été, s'il vous plaît, and a red scarf"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200)) + b"\0\0\0\0IEND\xaeB`\x82"
OTHER_PICTURE = "data:image/png;base64," + base64.b64encode(PNG).decode()


class Service:
    """A client that shows these entries, newest first, as JSON would: the queue is empty, the history has all."""

    def __init__(self, *entries: Any, total_pages: Any = "right", total_entries: Any = None, cap: int = 10**9) -> None:
        self.entries = entries
        self.pages_read: list[int] = []
        self.queue: Any = []
        self._total_pages, self._total_entries, self._cap = total_pages, total_entries, cap
        self.transport = SimpleNamespace(clock_offset=0.0)

    def active(self, **_: Any) -> Any:
        return read_rows({"generations": self.queue})

    def history(self, *, page: int, page_size: int, **_: Any) -> Any:
        self.pages_read.append(page)
        size = min(page_size, self._cap)
        shown = self.entries[(page - 1) * size : page * size]
        pages = -(-len(self.entries) // size) if self._total_pages == "right" else self._total_pages
        return read_history(
            {
                "generations": list(shown),
                "total_pages": pages,
                "total_entries": self._total_entries,
                "page_number": page,
            }
        )


@pytest.fixture
def lost(remote: Any) -> Iterator[SimpleNamespace]:
    """A ledger, a request of it that was cut off, and the entry of the job that it became."""
    (edit,) = remote.edits(prompt=PROMPT, seed=7)
    picture = edit.input_image()
    with remote.session() as session:
        ledger = session.ledger

        def cut_off(key: str = "key", prompt: str = PROMPT, image: str = picture, seed: int = 7, **more: Any) -> Any:
            record = ledger.open(
                key, edit.parameters.changed(prompt=prompt, seed=seed, **more), image, None, clock_offset=0.0
            )
            ledger.leaving(record)
            return ledger.by_id(record.id)

        record = cut_off()
        entry = {
            **record.parameters,
            "input_image": picture,
            "generation_id": "ours",
            "status": "processing",
            "model_name": "flux-kontext-dev",
            "enqueued_at": int(record.created_at),
        }
        yield SimpleNamespace(ledger=ledger, record=record, entry=entry, cut_off=cut_off, edit=edit, session=session)


def kind(lost: Any, *entries: Any, **service: Any) -> type:
    return type(look_up(Service(*entries, **service), lost.ledger, lost.record))


def foreign(lost: Any, count: int, *, newer: float = 5.0) -> list[dict[str, Any]]:
    """Jobs of others, one a second, the newest first."""
    now = lost.entry["enqueued_at"] + newer
    return [
        {
            **lost.entry,
            "generation_id": f"other-{n}",
            "prompt": f"job {n}",
            "seed": n + 100,
            "enqueued_at": int(now + count - n),
        }
        for n in range(count)
    ]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"prompt": f"  {PROMPT}\n"},
        {"prompt": unicodedata.normalize("NFD", PROMPT)},
        {"prompt": PROMPT.replace(" and", "\n and")},
        {"guidance": "2.5"},
        {"guidance": 2.4999999},
        {"seed": "7"},
        {"seed": 7.0},
        {"num_inference_steps": "28"},
        {"disable_safety_checker": "False"},
        {"enqueued_at": None},
        {"enqueued_at": "yesterday"},
        {"enqueued_at": 5},
        {"enqueued_at": "2031-01-01T00:00:00Z"},
        {"status": "Processing"},
        {"status": "starting"},
    ],
    ids=str,
)
def test_a_row_that_shows_the_request_in_another_form_is_the_requests_own(lost: Any, change: Any) -> None:
    answer = look_up(Service({**lost.entry, **change}), lost.ledger, lost.record)
    assert isinstance(answer, Found) and answer.row.generation_id == "ours"


@pytest.mark.parametrize(
    "change",
    [
        {"input_image": "https://hub.oxen.ai/api/repos/me/files/stored.png"},
        {"input_image": "data:image/png;base64,iVBORw0KGgo"},
        {"input_image": OTHER_PICTURE},
        {"prompt": PROMPT[:20]},
        {"prompt": PROMPT[:20] + "…"},
        {"prompt": None},
        {"prompt": PROMPT.upper()},
        {"seed": None},
        {"guidance": 3.5},
        {"aspect_ratio": "3:2"},
        {"generation_id": None},
        {"generation_id": 5, "prompt": None},
        {"prompt": "make it night"},
        {"prompt": "make it night", "input_image": None},
        {"prompt": "make it night", "input_image": OTHER_PICTURE},
        {"seed": 8},
        {"seed": "8", "input_image": None},
        {"generation_id": None, "prompt": "make it night"},
        {"model_name": "gpt-image-1"},
    ],
    ids=str,
)
def test_a_row_that_may_be_the_requests_own_is_doubt(lost: Any, change: Any) -> None:
    assert kind(lost, {**lost.entry, **change}) is Perhaps


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "make it night", "seed": 8},
        {"prompt": "make it night", "seed": "8", "input_image": None},
        {"generation_id": None, "prompt": "make it night", "seed": 8},
        {"prompt": "make it night", "model_name": "gpt-image-1"},
        {"prompt": "make it night", "enqueued_at": 1_750_000_000},
        {"seed": 8, "enqueued_at": 1_750_000_000},
    ],
    ids=str,
)
def test_a_row_that_certainly_is_anothers_is_passed_over(lost: Any, change: Any) -> None:
    assert kind(lost, {**lost.entry, **change}) is Nothing


def test_without_any_row_there_is_nothing(lost: Any) -> None:
    assert kind(lost) is Nothing


def test_doubt_names_the_jobs_that_it_may_be(lost: Any) -> None:
    answer = look_up(Service({**lost.entry, "input_image": OTHER_PICTURE}), lost.ledger, lost.record)
    assert isinstance(answer, Perhaps) and answer.ids == ("ours",)


def test_a_row_without_its_picture_is_taken_where_nobody_else_works_on_the_account(lost: Any) -> None:
    entry = {**lost.entry, "input_image": None}
    assert kind(lost, entry) is Found
    assert kind(lost, {name: value for name, value in entry.items() if name != "input_image"}) is Found
    assert kind(lost, *foreign(lost, 1), entry) is Perhaps, "another machine may have had the same words"
    assert kind(lost, {**entry, "enqueued_at": None}) is Perhaps


def test_of_two_lost_edits_alike_but_for_the_picture_neither_is_guessed(lost: Any) -> None:
    other = lost.cut_off("other key", image=OTHER_PICTURE)
    rows = [{**lost.entry, "input_image": None, "generation_id": one} for one in ("ours", "theirs")]
    for record in (lost.record, other):
        assert isinstance(look_up(Service(*rows), lost.ledger, record), Perhaps)
        assert isinstance(look_up(Service(rows[0]), lost.ledger, record), Perhaps), "one may not have been taken"


def test_two_lost_edits_alike_but_for_the_picture_get_each_their_own_where_pictures_are_shown(lost: Any) -> None:
    other = lost.cut_off("other key", image=OTHER_PICTURE)
    rows = [lost.entry, {**lost.entry, "input_image": OTHER_PICTURE, "generation_id": "theirs"}]
    assert look_up(Service(*rows), lost.ledger, lost.record).row.generation_id == "ours"
    assert look_up(Service(*rows), lost.ledger, other).row.generation_id == "theirs"
    assert kind(lost, rows[1]) is Nothing


@pytest.mark.parametrize("more", [{"prompt": "make it night"}, {"seed": 8}], ids=str)
def test_where_pictures_are_shown_as_they_were_sent_another_picture_is_one_thing_of_two(lost: Any, more: Any) -> None:
    mine = lost.ledger.sent(lost.cut_off("earlier", prompt="earlier"), generation_id="earlier")
    shown = {**lost.entry, "prompt": mine.prompt, "generation_id": "earlier"}
    other = {**lost.entry, "input_image": OTHER_PICTURE}
    assert kind(lost, other, shown) is Perhaps, "small ones may be shown as they were sent, and of others a smaller one"
    assert kind(lost, {**other, **more}, shown) is Nothing
    assert kind(lost, {**other, **more}) is Perhaps, "this service may show every picture as another file"


def test_a_picture_that_another_request_of_this_machine_had_is_anothers(lost: Any) -> None:
    lost.ledger.sent(lost.cut_off("other", image=OTHER_PICTURE), generation_id="elsewhere")
    assert kind(lost, {**lost.entry, "input_image": OTHER_PICTURE}) is Nothing


@pytest.mark.parametrize("altered", [{"prompt": "something else"}, {"seed": 1234}, {"model_name": "its own"}], ids=str)
def test_what_a_service_is_known_to_show_otherwise_than_it_was_sent_says_nothing(lost: Any, altered: Any) -> None:
    mine = lost.ledger.sent(lost.cut_off("earlier", prompt="earlier", seed=11), generation_id="earlier")
    earlier = {**lost.entry, "prompt": mine.prompt, "seed": 11, "generation_id": "earlier"}
    row = {**lost.entry, "prompt": "make it night", "seed": 8}
    if "model_name" in altered:
        row |= {"seed": 7} | altered
    assert kind(lost, row, earlier) is Nothing
    assert kind(lost, row, {**earlier, **altered}) is Perhaps


def test_a_job_that_is_older_than_one_known_before_the_request_was_opened_is_anothers_in_other_words(lost: Any) -> None:
    lost.ledger.sent(lost.cut_off("earlier", prompt="earlier"), generation_id="earlier")
    record, now = lost.cut_off("later"), lost.entry["enqueued_at"]
    earlier = {**lost.entry, "prompt": "earlier", "generation_id": "earlier"}
    for seconds, answer in ((-1, Nothing), (1, Perhaps)):
        row = {**lost.entry, "prompt": "make it night", "enqueued_at": now + seconds}
        assert type(look_up(Service(row, earlier), lost.ledger, record)) is answer


def test_a_job_that_another_request_owns_is_not_taken(lost: Any) -> None:
    lost.ledger.sent(lost.cut_off("same key"), generation_id="ours")
    assert kind(lost, lost.entry) is Nothing


@pytest.mark.parametrize("total_pages", ["right", None, 1, 99, "two"])
@pytest.mark.parametrize("cap", [10, 4])
def test_a_job_behind_many_newer_ones_is_found_whatever_the_number_of_pages_is_said_to_be(
    lost: Any, total_pages: Any, cap: int
) -> None:
    answer = look_up(
        Service(*foreign(lost, 25), lost.entry, total_pages=total_pages, cap=cap), lost.ledger, lost.record
    )
    assert isinstance(answer, Found)


def test_a_list_that_shows_less_than_it_has_is_doubt(lost: Any) -> None:
    assert kind(lost, *foreign(lost, 3), total_entries=4) is Perhaps
    assert kind(lost, *foreign(lost, 3), total_entries=3) is Nothing


@pytest.mark.parametrize("rows", [1, 4, 10])
def test_a_page_that_comes_again_is_the_end_only_where_the_service_says_how_many_jobs_there_are(
    lost: Any, rows: int
) -> None:
    entries = foreign(lost, rows)
    reply: dict[str, Any] = {"generations": entries}
    service = Service()
    service.history = lambda **_: read_history(reply)
    assert isinstance(look_up(service, lost.ledger, lost.record), Perhaps)
    reply |= {"total_entries": rows + 1, "total_pages": 1}
    assert isinstance(look_up(service, lost.ledger, lost.record), Perhaps)
    reply |= {"total_entries": rows}
    assert isinstance(look_up(service, lost.ledger, lost.record), Nothing), (
        "as some give the last page for any after it"
    )


def test_a_list_that_is_said_to_have_more_pages_than_it_shows_is_doubt(lost: Any) -> None:
    assert kind(lost, *foreign(lost, 3), total_pages=4) is Perhaps
    assert kind(lost, total_pages=2) is Perhaps and kind(lost, total_pages=1) is Nothing


@pytest.mark.parametrize("since", [5, 5_000])
def test_a_list_whose_times_count_from_elsewhere_is_read_to_its_end(lost: Any, since: int) -> None:
    newer = [{**entry, "enqueued_at": since + 100 - n} for n, entry in enumerate(foreign(lost, 15))]
    answer = look_up(Service(*newer, {**lost.entry, "enqueued_at": since}), lost.ledger, lost.record)
    assert isinstance(answer, Found)


def test_a_list_that_shows_one_page_again_and_again_is_doubt(lost: Any) -> None:
    service = Service(*foreign(lost, 10))
    service.history = lambda **_: read_history({"generations": foreign(lost, 10)})
    assert isinstance(look_up(service, lost.ledger, lost.record), Perhaps)


@pytest.mark.parametrize("reply", [None, {"generations": None}, "text"])
def test_a_history_that_is_none_is_doubt_and_not_an_error(lost: Any, reply: Any) -> None:
    service = Service()
    service.history = lambda **_: read_history(reply)
    assert isinstance(look_up(service, lost.ledger, lost.record), Perhaps)


def test_a_queue_that_is_none_leaves_the_history(lost: Any) -> None:
    service = Service(lost.entry)
    service.queue = None
    assert isinstance(look_up(service, lost.ledger, lost.record), Found)


def test_a_page_that_there_is_not_ends_the_list(lost: Any) -> None:
    service = Service(*foreign(lost, 10))
    plain = service.history

    def history(*, page: int, **more: Any) -> Any:
        if page > 1:
            raise InvalidParameters("no such page", status=400)
        return plain(page=page, **more)

    service.history = history
    assert isinstance(look_up(service, lost.ledger, lost.record), Perhaps), "it may be a gateway's word"

    def told(**asked: Any) -> Any:
        try:
            return history(**asked)
        except InvalidParameters as error:
            error.definite = True
            raise

    service.history = told
    assert isinstance(look_up(service, lost.ledger, lost.record), Nothing)
    service.history = lambda **_: (_ for _ in ()).throw(InvalidParameters("no", status=400))
    with pytest.raises(InvalidParameters):
        look_up(service, lost.ledger, lost.record)


@pytest.mark.parametrize("order", ["oldest first", "shuffled"])
def test_a_list_in_another_order_is_read_to_its_end(lost: Any, order: str) -> None:
    old = [{**entry, "enqueued_at": entry["enqueued_at"] - 10**6} for entry in foreign(lost, 40)]
    if order == "shuffled":
        random.Random(1).shuffle(old)
    assert kind(lost, *(old if order == "shuffled" else reversed(old)), lost.entry) is Found


def test_the_search_ends_at_a_job_that_was_taken_before_the_request_was_opened(lost: Any) -> None:
    lost.ledger.sent(lost.cut_off("earlier", prompt="earlier"), generation_id="earlier")
    record = lost.cut_off("later", prompt="later")
    now = lost.entry["enqueued_at"]
    rows = [
        {**lost.entry, "prompt": "earlier", "generation_id": "earlier", "enqueued_at": now - 1},
        *(
            {**lost.entry, "prompt": "old", "generation_id": f"old-{n}", "enqueued_at": now - 200 - n}
            for n in range(50)
        ),
    ]
    service = Service(*rows)
    assert isinstance(look_up(service, lost.ledger, record), Nothing)
    assert service.pages_read == [1]


def test_a_job_of_a_busy_account_is_found_although_the_services_clocks_differ_by_some_seconds(lost: Any) -> None:
    """Of two of its machines one is half a minute behind, and puts the job below many that are older."""
    lost.ledger.sent(lost.cut_off("earlier", prompt="earlier"), generation_id="earlier")
    record = lost.cut_off("later", prompt="later")
    now = lost.entry["enqueued_at"]
    others = foreign(lost, 40, newer=-41.0)
    rows = [
        {**lost.entry, "prompt": "earlier", "generation_id": "earlier", "enqueued_at": now},
        *others[:30],
        {**lost.entry, "prompt": "later", "enqueued_at": now - 30},
        *others[30:],
    ]
    answer = look_up(Service(*rows), lost.ledger, record)
    assert isinstance(answer, Found) and answer.row.generation_id == "ours"


@pytest.mark.parametrize(("offset", "pages"), [(0.0, [1]), (None, [1, 2, 3, 4, 5]), (3e7, [1, 2, 3, 4, 5])])
def test_the_search_ends_at_much_older_jobs_only_where_two_clocks_agree(
    lost: Any, offset: float | None, pages: list[int]
) -> None:
    old = [{**entry, "enqueued_at": entry["enqueued_at"] - 10**6} for entry in foreign(lost, 40)]
    service = Service(*old)
    record = replace(lost.record, clock_offset=offset)
    assert isinstance(look_up(service, lost.ledger, record), Nothing)
    assert service.pages_read == pages


def test_a_history_without_end_leaves_the_edit_in_doubt(lost: Any) -> None:
    service = Service()
    service.history = lambda *, page, **_: read_history(
        {"generations": [{**entry, "generation_id": f"{page}-{entry['seed']}"} for entry in foreign(lost, 10)]}
    )
    assert isinstance(look_up(service, lost.ledger, lost.record), Perhaps)


def test_what_the_lists_refuse_is_raised(lost: Any) -> None:
    service = Service()
    service.active = lambda **_: (_ for _ in ()).throw(InvalidParameters("no"))
    with pytest.raises(InvalidParameters):
        look_up(service, lost.ledger, lost.record)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ('a sign that says "A & B"', html.escape('a sign that says "A & B"')),
        ('a sign that says "A & B"', "a sign that says “A & B”"),
        ("the ox's hat", "the ox’s hat"),
        ("an astronaut \N{WOMAN}\u200d\N{ROCKET} rides", "an astronaut \N{WOMAN}\N{ROCKET} rides"),
        ("an astronaut \N{WOMAN}\u200d\N{ROCKET} rides", "an astronaut ??? rides"),
        ("a soft\u00adhyphen", "a softhyphen"),
        ("give the ox a red hat", '"give the ox a red hat"'),
        ("give the ox a red hat", "Edit the picture: give the ox a red hat"),
        ("un chapeau à l'été", "un chapeau a l'ete"),
        ("give the ox a red hat, and make it night over the sea", "give the ox a … over the sea"),
        ("give the ox a red hat", "give%20the%20ox%20a%20red%20hat"),
        ("give the ox a red hat", "givetheoxaredhat"),
        ("give the <b>ox</b> a hat", "give the ox a hat"),
        ("a hat\\nand a scarf", "a hat\nand a scarf"),
    ],
    ids=range(14),
)
@pytest.mark.parametrize("picture", ["whole", None, "https://hub.oxen.ai/stored.png"])
def test_a_prompt_that_comes_back_a_little_changed_is_not_certainly_anothers(
    lost: Any, sent: str, shown: str, picture: str | None
) -> None:
    record = lost.cut_off("another key", prompt=sent)
    echo = lost.entry["input_image"] if picture == "whole" else picture
    entry = {**lost.entry, "prompt": shown, "input_image": echo}
    answer = look_up(Service(entry), lost.ledger, record)
    assert not isinstance(answer, Nothing)


def test_a_service_that_stores_large_pictures_and_shows_small_ones_leaves_large_ones_in_doubt(lost: Any) -> None:
    mine = lost.ledger.sent(lost.cut_off("earlier", prompt="earlier"), generation_id="earlier")
    shown = {**lost.entry, "prompt": mine.prompt, "generation_id": "earlier"}
    for echo in ("https://hub.oxen.ai/stored.png", lost.entry["input_image"][:-9], "[image]"):
        assert kind(lost, {**lost.entry, "input_image": echo}, shown) is Perhaps
    assert kind(lost, {**lost.entry, "input_image": OTHER_PICTURE}, shown) is Perhaps


def test_an_address_that_is_shown_as_it_was_sent_says_nothing_of_pictures_in_the_request(lost: Any) -> None:
    url = "https://hub.oxen.ai/api/repos/me/kontext/file/main/a.png?oxen_signature=1"
    mine = lost.ledger.sent(lost.cut_off("earlier", prompt="earlier", image=url), generation_id="earlier")
    shown = {**lost.entry, "prompt": mine.prompt, "generation_id": "earlier", "input_image": url}
    stored = "https://hub.oxen.ai/api/repos/me/kontext/file/main/b.png"
    assert kind(lost, {**lost.entry, "input_image": stored}, shown) is Perhaps


@pytest.mark.parametrize("what", ["blocking", "made anew", "failed"])
def test_a_row_without_its_picture_may_be_an_alike_edit_that_is_closed(lost: Any, what: str) -> None:
    alike = lost.cut_off("other key", image=OTHER_PICTURE)
    if what == "blocking":
        lost.ledger.done(alike, b"its picture", "png")
    else:
        lost.ledger.ended(alike, State.GONE if what == "made anew" else State.FAILED, "")
    assert kind(lost, {**lost.entry, "input_image": None}) is Perhaps


@pytest.mark.parametrize("seconds", [-86400 * 7, -7200, 86400])
def test_a_row_without_its_picture_of_another_time_is_not_taken(lost: Any, seconds: int) -> None:
    entry = {**lost.entry, "input_image": None, "enqueued_at": lost.entry["enqueued_at"] + seconds}
    assert kind(lost, entry) is Perhaps


def test_two_lost_edits_that_differ_in_what_is_not_shown_are_not_guessed(lost: Any) -> None:
    other = lost.cut_off("other key", guidance=5.0)
    entry = {name: value for name, value in lost.entry.items() if name != "guidance"}
    rows = [{**entry, "generation_id": one} for one in ("ours", "theirs")]
    for record in (lost.record, other):
        assert isinstance(look_up(Service(*rows), lost.ledger, record), Perhaps)
        assert isinstance(look_up(Service(rows[0]), lost.ledger, record), Perhaps)
    assert kind(lost, lost.entry) is Found


def test_an_id_in_another_case_is_that_id(lost: Any) -> None:
    lost.ledger.sent(lost.cut_off("same key"), generation_id="0aa1b2c3-d4e5")
    assert kind(lost, {**lost.entry, "generation_id": "0AA1B2C3-D4E5"}) is Nothing


def test_a_queue_that_cannot_be_read_is_doubt_where_the_history_has_nothing(lost: Any) -> None:
    service = Service(*foreign(lost, 3))
    service.active = lambda **_: (_ for _ in ()).throw(UnexpectedReply("too large"))
    assert isinstance(look_up(service, lost.ledger, lost.record), Perhaps)


@pytest.mark.parametrize("picture", ["shown", None])
def test_a_job_of_another_model_is_not_taken_where_a_list_shows_all_models(lost: Any, picture: str | None) -> None:
    entry = {**lost.entry, "model_name": "flux-kontext-max"}
    assert kind(lost, entry if picture else {**entry, "input_image": None}) is Perhaps
    assert kind(lost, {**entry, "model_name": "Flux-Kontext-Dev"}) is not Nothing


@pytest.mark.parametrize("before", ["blocking", "given up"])
def test_a_job_of_the_same_edit_made_before_is_not_taken_for_the_lost_one(lost: Any, before: str) -> None:
    ledger, first, second = lost.ledger, lost.cut_off("same key"), lost.cut_off("same key")
    hour = 3600.0
    first = ledger._update(first, created_at=first.created_at - hour, left_at=first.created_at - hour)
    if before == "blocking":
        ledger.done(first, b"its picture", "png")
    else:
        ledger.ended(first, State.GONE, "")
    ledger.ended(lost.record, State.REFUSED, "")
    old = {**lost.entry, "generation_id": "old", "enqueued_at": lost.entry["enqueued_at"] - int(hour)}
    assert isinstance(look_up(Service(old), ledger, second), Perhaps)
    answer = look_up(Service(lost.entry, old), ledger, second)
    assert isinstance(answer, Found) and answer.row.generation_id == "ours"


def test_a_seed_that_a_service_chose_in_place_of_none_is_doubt(lost: Any) -> None:
    record = lost.cut_off("zero", seed=0)
    row = {**lost.entry, "seed": 1234567}
    assert isinstance(look_up(Service(row), lost.ledger, record), Perhaps)
    assert isinstance(look_up(Service({**row, "prompt": "make it night"}), lost.ledger, record), Perhaps)
    assert isinstance(look_up(Service(lost.entry), lost.ledger, record), Nothing), "the seed of another lost request"
