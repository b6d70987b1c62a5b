"""The key by its page: saved whole or not at all, used at once, told from others', and never shown."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from alone import succeeds_alone
from kontext_bridge.oxen.credentials import find_account
from kontext_bridge.oxen.key_file import write_key_file
from kontext_bridge.standin import StandIn
from served import KEY, Page

POSIX = pytest.mark.skipif(os.name != "posix", reason="file modes")
OTHER = "SFMyNTY.quite-another-key-of-the-usual-length"


def test_without_a_key_the_page_is_told_the_places_in_their_order(page: Page) -> None:
    state = page.state()
    assert (state["set"], state["from"], state["last_four"]) == (False, None, None)
    assert [place["name"] for place in state["places"]] == ["variable", "oxen", "file"]


def test_a_saved_key_is_used_at_once_and_told_by_its_last_four_characters(page: Page) -> None:
    assert find_account(page.home).key is None
    state = page.save()
    assert (state["set"], state["from"], state["last_four"]) == (True, "file", KEY[-4:])
    assert find_account(page.home).key == KEY
    assert page.state() == state
    page.save(OTHER)
    assert find_account(page.home).key == OTHER


@POSIX
def test_the_file_is_for_its_owner_alone_from_its_first_byte(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    sync = os.fsync

    def watching(handle: int) -> None:
        modes.append(os.fstat(handle).st_mode & 0o7777)
        sync(handle)

    monkeypatch.setattr(os, "fsync", watching)
    previous = os.umask(0)
    try:
        page.save()
    finally:
        os.umask(previous)
    assert modes == [0o600, 0o700]
    assert page.key_file.stat().st_mode & 0o7777 == 0o600
    assert page.key_file.read_text() == KEY + "\n"


def test_a_key_of_a_variable_or_of_oxen_goes_before_the_saved_one_and_the_page_says_so(
    page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "oxen" / "auth_config.toml"
    config.parent.mkdir()
    config.write_text('[[host_configs]]\nhost = "127.0.0.1:9"\nauth_token = "key-of-oxens-own-file"\n')
    state = page.save()
    assert (state["from"], state["last_four"]) == ("oxen", "file")
    monkeypatch.setenv("OXEN_API_KEY", "key-of-the-variable")
    state = page.state()
    assert (state["from"], state["source"], state["last_four"]) == ("variable", "OXEN_API_KEY", "able")
    assert [place["set"] for place in state["places"]] == [True, True, True]


def test_of_a_short_key_no_character_is_told(page: Page) -> None:
    assert page.save("abcdefg")["last_four"] is None
    assert page.save("abcdefgh")["last_four"] == "efgh"


def test_a_removed_key_is_gone_at_once_and_can_be_removed_twice(page: Page) -> None:
    page.save()
    for _ in range(2):
        status, state = page.ask("DELETE", "/kontext-bridge/key")
        assert (status, state["set"]) == (200, False)
    assert find_account(page.home).key is None
    assert page.files() == {}


@pytest.mark.parametrize(
    "key",
    [
        "",
        " ",
        f" {KEY}",
        f"{KEY} ",
        f"{KEY}\n",
        f"{KEY}\r\n",
        f"{KEY[:20]}\n{KEY[20:]}",
        f"{KEY}\r\nX-Other: 1",
        f"{KEY[:9]} {KEY[9:]}",
        f"{KEY}\x00",
        f"{KEY}\x7f",
        f"{KEY}\x85",
        f"{KEY}\u2028",
        f"{KEY}é",
        f"\ufeff{KEY}",
        KEY * 60,
        None,
        5,
        True,
        [KEY],
        {"key": KEY},
    ],
    ids=lambda key: ascii(key)[:16],
)
def test_what_cannot_be_a_key_is_refused_and_leaves_the_key_that_was_there(page: Page, key: Any) -> None:
    page.save(OTHER)
    before = page.files()
    status, answer = page.ask("POST", "/kontext-bridge/key", {"key": key})
    assert status == 400 and set(answer) == {"error"}
    assert page.files() == before


@pytest.mark.parametrize("method", ["fsync", "replace", "open"])
def test_a_disk_that_fails_leaves_the_old_key_whole_and_nothing_beside_it(
    page: Page, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.save(OTHER)
    before = page.files()

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        if method == "replace":
            patched.setattr(Path, "replace", fail)
            patched.setattr(os, "replace", fail)
        else:
            patched.setattr(os, method, fail)
        status, answer = page.ask("POST", "/kontext-bridge/key", {"key": KEY})
    assert status == 500 and "No space left" in answer["error"]
    assert page.files() == before
    assert find_account(page.home).key == OTHER


def test_a_folder_that_cannot_be_synced_does_not_make_a_saved_key_unsaved(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def of_files_alone(handle: int) -> None:
        if os.fstat(handle).st_mode & 0o40000:
            raise OSError(22, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(os, "fsync", of_files_alone)
    assert page.save()["from"] == "file"


@pytest.mark.parametrize("way", ["saved again", "removed"])
def test_a_writer_that_was_killed_leaves_the_old_key_and_its_rest_goes_with_the_next_change(
    page: Page, way: str
) -> None:
    page.save(OTHER)
    code = (
        "import os; os.fsync = lambda _: os._exit(9)\n"
        "import sys, pathlib; from kontext_bridge.oxen.key_file import write_key_file\n"
        "write_key_file(pathlib.Path(sys.argv[1]), sys.argv[2])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(page.key_file), OTHER[::-1]], check=False)
    assert done.returncode == 9
    assert find_account(page.home).key == OTHER and len(page.files()) == 2
    if way == "removed":
        page.ask("DELETE", "/kontext-bridge/key")
        assert page.files() == {}
    else:
        page.save()
        assert list(page.files()) == ["oxen_api_key"]


def test_keys_that_are_saved_side_by_side_leave_one_of_them_whole(page: Page) -> None:
    keys = [f"{OTHER}-{number}" for number in range(8)]
    threads = [threading.Thread(target=write_key_file, args=(page.key_file, key)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert find_account(page.home).key in keys
    assert list(page.files()) == ["oxen_api_key"]


@POSIX
def test_a_key_file_that_others_can_read_is_put_right_and_said_in_the_log(
    page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    page.save()
    page.key_file.chmod(0o644)
    assert page.state()["from"] == "file"
    assert page.key_file.stat().st_mode & 0o777 == 0o600
    assert "could be read by other users" in caplog.text


@POSIX
def test_a_key_that_cannot_be_used_is_said_and_nothing_is_set(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.save()
    monkeypatch.setenv("OXEN_API_KEY", "two words")
    state = page.state()
    assert (state["set"], state["from"]) == (False, "variable")
    assert "spaces or unprintable" in state["trouble"]


def test_a_folder_that_cannot_be_made_is_said_in_words(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = page.home.parent / "a file"
    blocked.write_text("")
    monkeypatch.setenv("KONTEXT_BRIDGE_HOME", str(blocked / "home"))
    status, answer = page.ask("POST", "/kontext-bridge/key", {"key": KEY})
    assert status == 500 and "cannot be made" in answer["error"]


def test_an_unusable_address_of_the_service_is_said_and_nothing_is_written(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OXEN_BASE_URL", "ftp://x")
    status, answer = page.ask("POST", "/kontext-bridge/key", {"key": KEY})
    assert status == 400 and "OXEN_BASE_URL" in answer["error"]
    assert page.files() == {}


def test_importing_the_routes_pulls_in_no_client() -> None:
    succeeds_alone(
        "import sys, kontext_bridge.routes.key_routes, kontext_bridge.routes.limit_routes\n"
        "sys.exit(repr({'torch', 'requests', 'PIL', 'urllib3'} & set(sys.modules)) if "
        "{'torch', 'requests', 'PIL', 'urllib3'} & set(sys.modules) else 0)"
    )


# What the service says of a key.


def ask_test(page: Page) -> Any:
    status, answer = page.ask("POST", "/kontext-bridge/key/test", {})
    assert status == 200, answer
    return answer


def test_a_good_key_is_told_with_its_user_by_one_question_that_costs_nothing(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StandIn(key=KEY) as service:
        monkeypatch.setenv("OXEN_BASE_URL", service.url)
        page.save()
        answer = ask_test(page)
        assert [(one.method, one.path) for one in service.requests] == [("GET", "/api/users/me")]
        assert service.billed == []
    assert answer["result"] == "good"
    assert answer["text"].startswith("Oxen.ai accepts the key: it is ") and "credits was not asked" in answer["text"]


def test_a_wrong_key_is_told_as_the_services_own_refusal(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    with StandIn(key=OTHER) as service:
        monkeypatch.setenv("OXEN_BASE_URL", service.url)
        page.save()
        answer = ask_test(page)
        assert len(service.requests) == 1
    assert answer["result"] == "refused" and "does not accept the API key" in answer["text"]


def test_without_a_key_nothing_is_asked(page: Page) -> None:
    assert ask_test(page) == {"result": "none", "text": "There is no key to test."}


@contextmanager
def answering_with(status: int, body: bytes, asked: list[str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(401, b"<html>log in</html>", id="a proxy's 401"),
        pytest.param(403, b"<html>forbidden</html>", id="a proxy's 403"),
        pytest.param(404, b'{"error":{"type":"resource_not_found"}}', id="no such route"),
        pytest.param(429, b'{"error":{"title":"slow down"}}', id="too many"),
        pytest.param(500, b"oops", id="an error"),
        pytest.param(200, b"<html>welcome</html>", id="a login page"),
        pytest.param(200, b"{}", id="nobody"),
        pytest.param(200, b'{"user":{"username":""}}', id="a user without a name"),
        pytest.param(200, b'{"user":{"username":5}}', id="a number for a name"),
    ],
)
def test_an_answer_that_says_nothing_of_the_key_is_told_as_not_known_after_one_question(
    page: Page, status: int, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    with answering_with(status, body, asked) as url:
        monkeypatch.setenv("OXEN_BASE_URL", url)
        page.save()
        answer = ask_test(page)
    assert answer["result"] == "unknown"
    assert asked == ["/api/users/me"]


def test_a_service_that_cannot_be_reached_says_nothing_of_the_key(page: Page) -> None:
    page.save()
    answer = ask_test(page)
    assert answer["result"] == "unknown" and "No connection" in answer["text"]


@pytest.mark.parametrize("status", [200, 400, 401])
def test_a_service_that_repeats_the_key_does_not_bring_it_into_an_answer(
    page: Page, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f'{{"user":{{"username":"{KEY}"}},"error":{{"title":"{KEY} x {KEY[:20]}"}}}}'.encode()
    with answering_with(status, body, []) as url:
        monkeypatch.setenv("OXEN_BASE_URL", url)
        page.save()
        ask_test(page)


def test_an_endless_name_is_cut(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering_with(200, b'{"user":{"username":"' + b"a" * 100_000 + b'"}}', []) as url:
        monkeypatch.setenv("OXEN_BASE_URL", url)
        page.save()
        assert len(ask_test(page)["text"]) < 400
