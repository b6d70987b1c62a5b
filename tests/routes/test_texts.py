"""The words of the pack's pages: none is missing, none is left over, and nothing goes to ComfyUI's own settings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in (REPOSITORY / "web" / "js").rglob("*.js")}
LOCALES = sorted((REPOSITORY / "locales").glob("*/main.json"))
EN = REPOSITORY / "locales" / "en"
ENGLISH = json.loads((EN / "main.json").read_text(encoding="utf-8"))["kontextBridge"]
PLACES = ("variable", "oxen", "file")
LIMITS = ("usd_per_run", "usd_per_day", "max_in_flight")


def test_every_text_that_a_page_asks_for_is_there_and_no_other() -> None:
    asked = {name for script in SCRIPTS.values() for name in re.findall(r'\btext\(\s*"(\w+)"', script)}
    for script in SCRIPTS.values():
        for choice in re.findall(r"\btext\(([^;]*?\?[^;]*?)\)", script):
            asked |= set(re.findall(r'[?:] "(\w+)"', choice))
    asked |= {f"where_{place}" for place in PLACES} | {f"label_{name}" for name in LIMITS}
    assert asked == set(ENGLISH)


@pytest.mark.parametrize("path", LOCALES, ids=lambda path: path.parent.name)
def test_a_translation_has_the_same_places_for_values(path: Path) -> None:
    words = json.loads(path.read_text(encoding="utf-8"))["kontextBridge"]
    for name, text in words.items():
        assert sorted(re.findall(r"{(\w+)}", text)) == sorted(re.findall(r"{(\w+)}", ENGLISH[name])), name


@pytest.mark.parametrize("path", LOCALES, ids=lambda path: path.parent.name)
def test_a_page_that_would_be_half_in_english_is_noticed(path: Path) -> None:
    words = json.loads(path.read_text(encoding="utf-8"))["kontextBridge"]
    assert list(words) == list(ENGLISH) and all(words.values())
    for file in ("settings.json", "commands.json"):
        here, english = (json.loads((folder / file).read_text(encoding="utf-8")) for folder in (path.parent, EN))
        assert here.keys() == english.keys()


def test_every_language_of_the_nodes_has_the_words_of_the_pages() -> None:
    assert {path.parent for path in LOCALES} == {path.parent for path in EN.parent.glob("*/nodeDefs.json")}


def test_nothing_is_given_to_comfyuis_own_settings() -> None:
    page = SCRIPTS["settings_page.js"]
    assert re.findall(r"type: (.*),", page) == ["() => pageWith(keyPanel)", "() => pageWith(limitsPanel)"]
    edits = {name.removesuffix(".js") for name in SCRIPTS if "edit" in name}
    assert len(edits) > 5
    own = {"settings_page", "key_panel", "limits_panel", "asking", "elements", "texts"}
    for name in own | edits | {"job_list", "virtual_grid", "compare_slider", "on_canvas"}:
        script = SCRIPTS[f"{name}.js"]
        assert not re.search(r"setting\.set\(|setSettingValue|storeSetting|localStorage|sessionStorage", script), name
        assert "innerHTML" not in script and "console." not in script, name
