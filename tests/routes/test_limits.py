"""Spend limits by their page: written whole or not at all, and read by the next run."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.oxen.errors import Misconfigured
from kontext_bridge.oxen.settings import Settings, load_settings
from kontext_bridge.oxen.settings_file import change_settings
from served import KEY, Page

LIMITS = "/kontext-bridge/limits"


def test_limits_hold_for_the_next_run_and_can_be_taken_off(page: Page) -> None:
    status, state = page.ask("POST", LIMITS, {"usd_per_run": "0.50", "usd_per_day": 5, "max_in_flight": "3"})
    assert status == 200 and state["usd_per_run"] == {"value": "0.5", "default": None, "variable": None}
    assert load_settings(page.home, {}) == Settings(3, Decimal("0.5"), Decimal(5))
    assert page.ask("GET", LIMITS) == (200, state)
    status, state = page.ask("POST", LIMITS, {"usd_per_run": None, "usd_per_day": None, "max_in_flight": None})
    assert status == 200 and load_settings(page.home, {}) == Settings()


@pytest.mark.parametrize(
    "changes",
    [
        {"usd_per_run": "a lot"},
        {"usd_per_run": -1},
        {"usd_per_run": "1e-30"},
        {"usd_per_run": "1e-999999999"},
        {"usd_per_run": "nan"},
        {"usd_per_run": "inf"},
        {"usd_per_run": True},
        {"usd_per_run": [1]},
        {"usd_per_run": KEY},
        {"usd_per_run": "1\nkeep_days = 1"},
        {"max_in_flight": 0},
        {"max_in_flight": 9},
        {"max_in_flight": 2.5},
        {"max_in_flight": KEY},
        {"usd_per_run": "0.5", "max_in_flight": 0},
        {"allow_key_page": True},
        {"keep_days": 1},
        {"upload_repository": "a/b"},
        {"usd_per_run": "0.5", "../x": 1},
    ],
    ids=str,
)
def test_what_a_limit_does_not_take_is_refused_whole_and_not_repeated(page: Page, changes: dict[str, Any]) -> None:
    page.home.mkdir(mode=0o700)
    (page.home / "settings.toml").write_text("usd_per_run = 1 # mine\n")
    status, answer = page.ask("POST", LIMITS, changes)
    assert status == 400 and set(answer) == {"error"}
    assert page.files() == {"settings.toml": b"usd_per_run = 1 # mine\n"}


def test_a_limit_that_a_variable_decides_is_shown_so_and_not_changed(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KONTEXT_BRIDGE_USD_PER_DAY", "7")
    status, state = page.ask("GET", LIMITS)
    assert state["usd_per_day"] == {"value": "7", "default": None, "variable": "KONTEXT_BRIDGE_USD_PER_DAY"}
    status, answer = page.ask("POST", LIMITS, {"usd_per_run": 1, "usd_per_day": 100})
    assert status == 409 and "KONTEXT_BRIDGE_USD_PER_DAY" in answer["error"]
    assert page.files() == {}


def test_a_file_that_cannot_be_read_is_said_and_left_as_it_is(page: Page) -> None:
    page.home.mkdir(mode=0o700)
    for text in ("usd_per_run = \n", "unknown = 1\n", "max_in_flight = 0\n"):
        (page.home / "settings.toml").write_text(text)
        for method, changes in (("GET", None), ("POST", {"usd_per_day": 1})):
            status, answer = page.ask(method, LIMITS, changes)
            assert status == 400 and "settings.toml" in answer["error"]
        assert page.files() == {"settings.toml": text.encode()}


def test_a_disk_that_fails_leaves_the_old_limits(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.ask("POST", LIMITS, {"usd_per_run": 1})
    before = page.files()

    def fail(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fail)
        status, answer = page.ask("POST", LIMITS, {"usd_per_run": 2})
    assert status == 500 and "No space left" in answer["error"]
    assert page.files() == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# mine",
        "keep_days = 3  # for me\r\nusd_per_run = 1.5 # limit\r\n",
        "\ufeffkeep_days = 3\n",
        "'usd_per_run' = 1\n\"usd_per_day\"='2'#x\n",
        "  usd_per_run\t=\t1_000.5\n",
        'upload_repository = "a/usd_per_run = 1"\nusd_per_run = "1"\n',
        "# usd_per_run = 9\nkeep_days = 3",
    ],
    ids=ascii,
)
def test_everything_else_in_the_file_stays_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(text.encode())
    before = load_settings(tmp_path, {})
    change_settings(tmp_path, {"usd_per_run": "0.10000000000000000001", "usd_per_day": "12.5", "max_in_flight": 2})
    now = load_settings(tmp_path, {})
    assert (now.usd_per_run, now.usd_per_day, now.max_in_flight) == (
        Decimal("0.10000000000000000001"),
        Decimal("12.5"),
        2,
    )
    assert (now.keep_days, now.upload_repository) == (before.keep_days, before.upload_repository)
    for comment in ("# mine", "# for me", "# limit", "#x", "# usd_per_run = 9"):
        assert (comment in text) == (comment in path.read_text())
    change_settings(tmp_path, {"usd_per_run": None, "usd_per_day": None, "max_in_flight": None})
    assert load_settings(tmp_path, {}) == Settings(
        keep_days=before.keep_days, upload_repository=before.upload_repository
    )


@pytest.mark.parametrize(
    "text",
    [
        '"usd_per\\u005frun" = 1\n',
        "[table]\nkeep_days = 1\n",
        'upload_repository = """\nusd_per_run = 1\n"""\n',
    ],
    ids=ascii,
)
def test_a_file_that_cannot_be_changed_line_by_line_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(Misconfigured, match="only a text editor"):
        change_settings(tmp_path, {"usd_per_run": "2"})
    assert path.read_text() == text
