"""The panel's questions: what runs, what is owed, what was made; nothing outside the folders; nobody else's page."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from edits_made import done, local, name_of, opened, png, sent, source
from kontext_bridge.album import behind
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.jobs.ledger import FILE_NAME, Ledger
from PIL import Image
from served import Page

EDITS = "/kontext-bridge/edits"
GRAPH = {"nodes": [{"id": 7, "type": "KontextEdit"}], "links": []}


@pytest.fixture
def ledger(page: Page) -> Iterator[Ledger]:
    page.home.mkdir(mode=0o700, exist_ok=True)
    made = Ledger(page.home)
    yield made
    made.close()


def get(page: Page, path: str, status: int = 200) -> Any:
    found, answer = page.ask("GET", EDITS + path)
    assert found == status, answer
    return answer


def blob(page: Page, path: str) -> tuple[str, bytes]:
    """Head and body of an answer with 200."""
    status, _ = page.ask("GET", EDITS + path)
    head, _, body = page.answers[-1].partition(b"\r\n\r\n")
    assert status == 200, body
    return head.decode().lower(), body


def test_where_nothing_was_made_nothing_is_listed_and_nothing_is_written(page: Page) -> None:
    assert get(page, "") == {"ids": [], "more": False}
    now = get(page, "/now")
    assert (now["spent"], now["limit"], now["running"], now["owed"]) == ("0", None, [], [])
    assert page.files() == {}


def test_the_newest_edit_comes_first_remote_and_local_together(page: Page, ledger: Ledger) -> None:
    first = done(ledger, 1)
    local(page.home, 2)
    third = done(ledger, 3)
    ids = get(page, "")["ids"]
    assert (ids[0], ids[2]) == (name_of(third), name_of(first)) and ids[1].startswith("l1-")


def test_what_is_searched_stands_in_the_prompt_and_signs_of_a_pattern_are_signs(page: Page, ledger: Ledger) -> None:
    one, _ = done(ledger, 1), done(ledger, 2)
    local(page.home, 1)
    assert get(page, "?search=edit%201:")["ids"] == [name_of(one)]
    assert len(get(page, "?search=local%20edit")["ids"]) == 1
    assert get(page, "?search=%25")["ids"] == get(page, "?search=edit_1")["ids"] == []
    assert len(get(page, "?search=%20")["ids"]) == 3, "an empty search finds all"
    assert "error" in get(page, "?search=" + "x" * 300, 400)


def test_an_edit_that_did_not_come_is_in_no_grid(page: Page, ledger: Ledger) -> None:
    from kontext_bridge.oxen.jobs.record import State

    ledger.ended(sent(ledger, 1), State.FAILED, "It failed.")
    ledger.ended(sent(ledger, 2), State.CANCELLED, "Cancelled.")
    opened(ledger, 3)
    assert get(page, "")["ids"] == []


def test_an_edit_tells_all_that_is_known_of_it(page: Page, ledger: Ledger) -> None:
    record = done(ledger, 1)
    told = get(page, "/" + name_of(record))
    assert told["prompt"] == "edit 1: the hat becomes red" and told["seed"] == "1"
    assert (told["place"], told["model"], told["price"], told["cost"]) == ("remote", "flux-kontext-dev", "0.04", None)
    assert told["generation_id"] == record.generation_id and 0 <= told["seconds"] < 60
    assert told["parameters"]["num_inference_steps"] == 28 and "prompt" not in told["parameters"]
    assert (told["picture"], told["before"], told["graph"]) == (True, False, False)


def test_a_local_edit_tells_as_much_and_its_seed_is_exact(page: Page) -> None:
    local(page.home, 5, GRAPH)
    (id,) = get(page, "")["ids"]
    told = get(page, "/" + id)
    assert told["place"] == "local" and told["seed"] == str(2**64 - 1) and told["seconds"] == 1.5
    assert (told["picture"], told["before"], told["graph"]) == (True, True, True)
    assert get(page, f"/{id}/graph") == {"graph": GRAPH, "node": "7"}
    with Image.open(io.BytesIO(blob(page, f"/{id}/picture")[1])) as picture:
        assert picture.size == (300, 200) and picture.getpixel((0, 0)) == (5, 5, 5)


def test_where_an_edit_came_from_is_found_by_its_request(page: Page, ledger: Ledger) -> None:
    record = done(ledger, 1)
    behind.note_asked(page.home / "album", source(9), [record.key], behind.Where(GRAPH, "7"))
    behind.settle()
    told = get(page, "/" + name_of(record))
    assert told["before"] and told["graph"]
    head, body = blob(page, f"/{name_of(record)}/before")
    assert "image/jpeg" in head and body[:2] == b"\xff\xd8"
    assert get(page, f"/{name_of(record)}/graph") == {"graph": GRAPH, "node": "7"}


def test_a_picture_is_the_file_itself_and_its_thumbnail_is_made_once(page: Page, ledger: Ledger) -> None:
    record = done(ledger, 7)
    head, body = blob(page, f"/{name_of(record)}/picture")
    assert body == png(7) and "image/png" in head and "nosniff" in head and "default-src 'none'" in head
    head, body = blob(page, f"/{name_of(record)}/thumb")
    assert "image/webp" in head and "private, max-age=" in head
    with Image.open(io.BytesIO(body)) as small:
        assert max(small.size) == 256
    (made,) = (page.home / "album" / "thumbnails").iterdir()
    written = made.stat().st_mtime_ns
    assert blob(page, f"/{name_of(record)}/thumb")[1] == body and made.stat().st_mtime_ns == written


def test_a_pruned_picture_is_still_in_the_grid_with_its_thumbnail(page: Page, ledger: Ledger) -> None:
    record = done(ledger, 1)
    body = blob(page, f"/{name_of(record)}/thumb")[1]
    assert ledger.prune(max_bytes=0, keep_seconds=0) == 1
    assert get(page, "")["ids"] == [name_of(record)] and get(page, "/" + name_of(record))["picture"] is False
    assert blob(page, f"/{name_of(record)}/thumb")[1] == body
    assert "error" in get(page, f"/{name_of(record)}/picture", 404)


def test_what_runs_is_told_with_its_seconds_and_what_nobody_waits_for_is_owed(
    page: Page, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, left, cut, came = sent(ledger, 1), sent(ledger, 2), opened(ledger, 3), done(ledger, 4, handed_over=False)
    done(ledger, 5)
    with ledger.hold(runs.key, Control()):
        now = get(page, "/now")
        assert [one["id"] for one in now["running"]] == [name_of(runs)]
        assert now["running"][0]["prompt"].startswith("edit 1") and 0 <= now["running"][0]["seconds"] < 60
        assert now["running"][0]["cancel"] is True
        owed = [one["id"] for one in now["owed"]]
        assert owed == [name_of(cut), name_of(left)], "the rest of a run that goes on is not owed yet"
    assert name_of(came) not in [one["id"] for one in get(page, "/now")["owed"]], "it may be being handed over"
    monkeypatch.setattr("kontext_bridge.routes.shown_edits._HANDING_SECONDS", 0.0)
    now = get(page, "/now")
    assert now["running"] == []
    assert [one["id"] for one in now["owed"]] == [name_of(one) for one in (came, cut, left, runs)]
    assert {one["id"]: one["cancel"] for one in now["owed"]}[name_of(cut)] is False, "no id is known"


def test_a_request_that_never_left_is_owed_nothing(page: Page, ledger: Ledger) -> None:
    from kontext_bridge.oxen.api.request import EditParameters

    assert ledger.open("k" * 64, EditParameters(prompt="x"), "data:,", None)
    assert get(page, "/now")["owed"] == []


def test_what_was_spent_in_a_day_stands_against_the_limit(page: Page, ledger: Ledger) -> None:
    for number in range(3):
        done(ledger, number)
    page.ask("POST", "/kontext-bridge/limits", {"usd_per_day": "5"})
    now = get(page, "/now")
    assert (now["spent"], now["limit"]) == ("0.12", "5")


def test_the_stamp_changes_with_the_list_and_not_without(page: Page, ledger: Ledger) -> None:
    stamps = [get(page, "/now")["stamp"]]
    sent(ledger, 1)
    assert get(page, "/now")["stamp"] == stamps[0]
    for make in (lambda: done(ledger, 2), lambda: local(page.home, 3), lambda: done(ledger, 4)):
        make()
        stamps.append(get(page, "/now")["stamp"])
    assert len(set(stamps)) == 4


WRONG_IDS = [
    "r1",
    "r1-",
    "r1-000000",
    "r0-abcdef",
    "r-1-abcdef",
    "r01-{tag}",
    "R1-{tag}",
    "r1-{TAG}",
    "l1-{tag}",
    "r2-{tag}",
    "r1-{tag}x",
    "r1-{tag}%00",
    "r1-{tag}%0a",
    "r9999999999999999999999-{tag}",
    "r" + "9" * 5000 + "-{tag}",
    "r1%20-{tag}",
    "%72%ff-{tag}",
    "r١-{tag}",  # an Arabic digit
    "..",
    "%2e%2e%2foxen_api_key",
    "..%2f..%2fledger.sqlite3",
    "%5c..%5cledger.sqlite3",
    "r1-{tag}%2f..%2f..%2fledger.sqlite3",
    "C:%5cWindows",
    "1-aaaaaaaaaaaa.png",
]


@pytest.mark.parametrize("what", ["", "/thumb", "/picture", "/before", "/graph"])
def test_what_is_no_edits_id_finds_nothing(page: Page, ledger: Ledger, what: str) -> None:
    tag = done(ledger, 1).key[:6]
    for wrong in WRONG_IDS:
        finds_nothing(page, wrong, tag, what)


def finds_nothing(page: Page, wrong: str, tag: str, what: str) -> None:
    path = wrong.replace("{tag}", tag).replace("{TAG}", tag.upper())
    if path in {f"R1-{tag}", f"r1-{tag.upper()}"} and path == f"r1-{tag}":
        return
    path = path.encode("utf-8").decode("latin-1") if not path.isascii() else path
    status, answer = page.ask("GET", f"{EDITS}/{path}{what}")
    assert status in {400, 404}, (wrong, answer)
    assert b"SQLite" not in page.answers[-1] and b"PNG" not in page.answers[-1]


def replace_in_ledger(home: Path, name: str) -> None:
    with sqlite3.connect(home / FILE_NAME) as database:
        database.execute("UPDATE jobs SET file = ?", (name,))
    database.close()


@pytest.mark.parametrize("what", ["thumb", "picture"])
def test_a_name_or_a_link_that_leads_out_of_the_folder_is_not_followed(
    page: Page, ledger: Ledger, tmp_path: Path, what: str
) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(png(200))
    record = done(ledger, 1)
    results = page.home / "results"
    (results / "link.png").symlink_to(outside)
    (results / "inside.png").symlink_to(results / str(record.file))
    (results / "folder.png").mkdir()
    (results / "wing").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(results / "pipe.png")
    names = ["link.png", "inside.png", "folder.png", "wing/outside.png", "pipe.png", "../ledger.sqlite3", str(outside)]
    names += ["", ".", "..", "x\0y", "../results/" + str(record.file), ".hidden", "gone.png"]
    for name in names:
        replace_in_ledger(page.home, name)
        told = get(page, "/" + name_of(record))
        assert told["picture"] is False, name
        assert "error" in get(page, f"/{name_of(record)}/{what}", 404), name


def test_what_is_no_picture_or_too_large_is_not_given(page: Page, ledger: Ledger) -> None:
    page_like = done(ledger, 1, b"<html><script>alert(1)</script>")
    drawing = done(ledger, 2, b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>')
    torn = done(ledger, 3, png()[:200])
    large = done(ledger, 4)
    with (page.home / "results" / str(large.file)).open("r+b") as file:
        file.truncate(65 << 20)
    for record in (page_like, drawing, large):
        assert "error" in get(page, f"/{name_of(record)}/picture", 404)
    for record in (page_like, drawing, torn, large):
        assert "error" in get(page, f"/{name_of(record)}/thumb", 404)


READS = ["", "/now", "/{id}", "/{id}/thumb", "/{id}/picture", "/{id}/before", "/{id}/graph"]
WRITES = ["/{id}/cancel", "/{id}/collect"]


@pytest.mark.parametrize("path", READS)
def test_another_page_reads_nothing(page: Page, ledger: Ledger, path: str) -> None:
    path = EDITS + path.replace("{id}", name_of(done(ledger, 1)))
    for headers in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
    ):
        status, answer = page.ask("GET", path, **headers)
        assert status == 403 and set(answer) == {"error"}, headers
    # a stranger's name that points here: a browser says nothing of the site there, as it is plain http
    status, answer = page.ask("GET", path, without=("Sec-Fetch-Site",), Host=f"stranger.example:{page.port}")
    assert status == 403 and "public name" in answer["error"]
    for own in (
        f"localhost:{page.port}",
        f"192.168.1.5:{page.port}",
        f"studio:{page.port}",
        f"studio.local:{page.port}",
    ):
        assert page.ask("GET", path, without=("Sec-Fetch-Site",), Host=own)[0] in {200, 404}


@pytest.mark.parametrize("path", WRITES)
def test_another_page_changes_nothing(page: Page, ledger: Ledger, path: str) -> None:
    record = sent(ledger, 1)
    path = EDITS + path.replace("{id}", name_of(record))
    assert page.ask("POST", path, {}, without=("Origin",))[0] == 403
    assert page.ask("POST", path, {}, Origin="http://elsewhere.example")[0] == 403
    assert page.ask("POST", path, {}, Sec_Fetch_Site="cross-site")[0] == 403
    assert page.ask("POST", path, {"id": 1})[0] == 400
    assert page.ask("POST", path, b"x" * 5000)[0] == 413
    assert page.ask("POST", path, b"{}", Content_Type="text/plain")[0] == 415
    assert ledger.by_id(record.id) == record


def test_no_other_method_is_taken(page: Page, ledger: Ledger) -> None:
    id = name_of(done(ledger, 1))
    for path in (*READS, *WRITES):
        for method in {"PUT", "DELETE", "PATCH", "POST", "GET"} - {"POST" if path in WRITES else "GET"}:
            assert page.ask(method, EDITS + path.replace("{id}", id))[0] in {404, 405}, (method, path)


@pytest.mark.parametrize("path", [*READS, *WRITES])
def test_several_users_are_shown_nothing_of_each_other_unless_it_is_allowed(
    page: Page, ledger: Ledger, users: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    users.multi_user = True
    record = done(ledger, 1)
    method, body = ("POST", {}) if path in WRITES else ("GET", None)
    path = EDITS + path.replace("{id}", name_of(record))
    status, answer = page.ask(method, path, body)
    assert status == 403 and "several users" in answer["error"] and "edits" in answer["error"]
    monkeypatch.setenv("KONTEXT_BRIDGE_ALLOW_KEY_PAGE", "true")
    if path.endswith(("now", "picture", "thumb")):
        assert page.ask(method, path, body)[0] == 200


def test_an_answer_says_neither_where_files_lie_nor_what_the_service_gave_as_address(
    page: Page, ledger: Ledger
) -> None:
    record = ledger.sent(sent(ledger, 1), result_url="https://files.example/x?X-Amz-Signature=secret")
    told = json.dumps([get(page, "/" + name_of(record)), get(page, "/now")])
    assert "Signature" not in told and str(page.home) not in told


def test_a_damaged_ledger_or_album_is_said_in_words(page: Page, ledger: Ledger) -> None:
    record = done(ledger, 1)
    local(page.home, 1)
    (page.home / "album" / "album.sqlite3").write_bytes(b"no database, and long enough to be taken for one" * 100)
    assert get(page, "")["ids"] == [name_of(record)], "a broken album hides no edit of the ledger"
    ledger.close()
    for part in page.home.glob(FILE_NAME + "*"):
        part.unlink()
    (page.home / FILE_NAME).write_bytes(b"no database" * 1000)
    for path in ("", "/now", "/" + name_of(record)):
        assert "ledger" in get(page, path, 400)["error"]


def test_a_ledger_of_an_earlier_version_is_shown(page: Page, ledger: Ledger) -> None:
    record = done(ledger, 1)
    ledger.close()
    with sqlite3.connect(page.home / FILE_NAME) as database:
        database.execute("DROP INDEX jobs_in_doubt")
        database.execute("ALTER TABLE jobs DROP COLUMN told")
    database.close()
    assert get(page, "/" + name_of(record))["picture"] is True


def test_ten_thousand_edits_are_listed_at_once(page: Page, ledger: Ledger) -> None:
    fields = "key, state, prompt, seed, parameters, input_digest, created_at, finished_at, collected_at, departed"
    with sqlite3.connect(page.home / FILE_NAME) as database:
        database.executemany(
            f"INSERT INTO jobs ({fields}) VALUES (?, 'done', ?, ?, '{{}}', 'x', ?, ?, ?, 1)",
            [(f"{n:064x}", f"edit {n} of a sentence of some length", n, n, n, n) for n in range(10_000)],
        )
    database.close()
    since = time.monotonic()
    answer = get(page, "")
    assert len(answer["ids"]) == 10_000 and not answer["more"]
    assert time.monotonic() - since < 2.0
