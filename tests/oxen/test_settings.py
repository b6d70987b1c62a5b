from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from kontext_bridge.oxen.errors import Misconfigured
from kontext_bridge.oxen.settings import Settings, load_settings


def test_without_a_file_or_variables_the_settings_are_the_documented_ones(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {}) == Settings()


def test_a_variable_goes_before_the_file_and_an_empty_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("max_in_flight = 2\nusd_per_run = 0.10\nallow_private_urls = true\n")
    settings = load_settings(
        tmp_path, {"KONTEXT_BRIDGE_MAX_IN_FLIGHT": "3", "KONTEXT_BRIDGE_USD_PER_RUN": " ", "OTHER": "x"}
    )
    assert settings == Settings(max_in_flight=3, usd_per_run=Decimal("0.1"), allow_private_urls=True)


def test_amounts_are_read_exactly(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('usd_per_day = "0.30"\n')
    settings = load_settings(tmp_path, {"KONTEXT_BRIDGE_USD_PER_RUN": "0.1"})
    assert (settings.usd_per_run, settings.usd_per_day) == (Decimal("0.1"), Decimal("0.30"))


@pytest.mark.parametrize(
    ("line", "takes"),
    [
        ("max_in_flight = 0", "a whole number from 1 to 8"),
        ("max_in_flight = 9", "a whole number from 1 to 8"),
        ("max_in_flight = 2.5", "a whole number from 1 to 8"),
        ("max_in_flight = true", "a whole number from 1 to 8"),
        ('max_in_flight = "many"', "a whole number from 1 to 8"),
        ("max_in_flight = [2]", "a whole number from 1 to 8"),
        ("keep_days = inf", "a whole number above 0"),
        ("keep_days = -1", "a whole number above 0"),
        ("store_megabytes = nan", "a whole number above 0"),
        (f"keep_days = {'9' * 400}", "a whole number above 0, at most"),
        (f'keep_days = "{"9" * 5000}"', "a whole number above 0, at most"),
        ('usd_per_day = "1e9999999"', "an amount in US dollars"),
        ("usd_per_day = -1", "an amount in US dollars"),
        ("usd_per_day = nan", "an amount in US dollars"),
        ('usd_per_run = "a lot"', "an amount in US dollars"),
        ("usd_per_run = true", "an amount in US dollars"),
        ('allow_private_urls = "perhaps"', "true or false"),
        ('upload_repository = "alone"', "a repository as NAMESPACE/NAME"),
        ('upload_repository = "a/b/c"', "a repository as NAMESPACE/NAME"),
        ('upload_repository = "me/.."', "a repository as NAMESPACE/NAME"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_what_it_takes(tmp_path: Path, line: str, takes: str) -> None:
    (tmp_path / "settings.toml").write_text(line + "\n")
    name = line.partition(" ")[0]
    with pytest.raises(Misconfigured, match=rf"settings\.toml: {name} is .*; it takes {takes}"):
        load_settings(tmp_path, {})


def test_a_variable_with_a_wrong_value_is_named_itself(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="KONTEXT_BRIDGE_MAX_IN_FLIGHT is 'x'; it takes a whole number"):
        load_settings(tmp_path, {"KONTEXT_BRIDGE_MAX_IN_FLIGHT": "x"})


def test_a_misspelt_setting_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("usd_per_dya = 1\n")
    with pytest.raises(Misconfigured, match=r"usd_per_dya is not a setting.*usd_per_day"):
        load_settings(tmp_path, {})


@pytest.mark.parametrize("name", ["KONTEXT_BRIDGE_USD_PER_RUM", "KONTEXT_BRIDGE_usd_per_run"])
def test_a_misspelt_variable_is_refused_as_a_limit_that_would_not_hold(tmp_path: Path, name: str) -> None:
    known = {"KONTEXT_BRIDGE_HOME": str(tmp_path), "KONTEXT_BRIDGE_USD_PER_RUN": "1", "KONTEXT_BRIDGE_OLD": ""}
    assert load_settings(tmp_path, known).usd_per_run == 1
    with pytest.raises(Misconfigured, match=rf"{name} is not a setting\. Known settings: .*usd_per_run"):
        load_settings(tmp_path, {**known, name: "0.10"})


def test_an_error_in_the_file_says_where_the_file_is(tmp_path: Path) -> None:
    for text in ("max_in_flight = 0\n", "max_in_flight = \n", "unknown = 1\n"):
        (tmp_path / "settings.toml").write_text(text)
        with pytest.raises(Misconfigured) as raised:
            load_settings(tmp_path, {})
        assert str(tmp_path / "settings.toml") in str(raised.value)


@pytest.mark.parametrize("text", [b"max_in_flight = \n", b"\xff\xfe"])
def test_a_settings_file_that_cannot_be_read_stops_the_run_rather_than_lift_its_limits(
    tmp_path: Path, text: bytes
) -> None:
    (tmp_path / "settings.toml").write_bytes(text)
    with pytest.raises(Misconfigured, match=r"settings\.toml cannot be read"):
        load_settings(tmp_path, {})


def test_a_settings_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_bytes(b"\xef\xbb\xbfmax_in_flight = 2\r\n")
    assert load_settings(tmp_path, {}) == Settings(max_in_flight=2)
