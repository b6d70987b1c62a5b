"""What the front end shows of the nodes: help pages and translations, complete and up to date."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from pack import DOCS, INFO, LOCALES, REPOSITORY, TABLE, inputs_of, outputs_of, read

LANGUAGES = ("en", "zh", "ja", "ko", "fr", "de", "es")


def from_schemas() -> dict[str, Any]:
    """nodeDefs.json as the schemas say it, in the words of the nodes themselves."""
    return {id: _words(id) for id in INFO}


def _words(id: str) -> dict[str, Any]:
    inputs = inputs_of(id).items()
    return {
        "display_name": INFO[id]["display_name"],
        "description": INFO[id]["description"],
        "inputs": {name: {"name": name, "tooltip": options["tooltip"]} for name, options in inputs},
        "outputs": {
            str(place): {"name": name, "tooltip": tooltip} for place, (name, tooltip) in enumerate(outputs_of(id))
        },
    }


def paths(words: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """Every text in a nested dict by where it stands."""
    if isinstance(words, str):
        return {path: words}
    return {place: text for key, value in words.items() for place, text in paths(value, (*path, key)).items()}


def test_an_english_text_that_is_no_longer_the_nodes_own_is_noticed() -> None:
    assert read(LOCALES / "en" / "nodeDefs.json") == from_schemas()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_node_input_or_output_without_its_text_is_noticed(language: str) -> None:
    texts = paths(read(LOCALES / language / "nodeDefs.json"))
    assert texts.keys() == paths(from_schemas()).keys()
    assert [place for place, text in texts.items() if not text.strip()] == []


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_a_tooltip_or_description_left_in_english_is_noticed(language: str) -> None:
    texts, english = paths(read(LOCALES / language / "nodeDefs.json")), paths(from_schemas())
    sentences = [place for place in english if place[-1] in {"tooltip", "description"}]
    assert [place for place in sentences if texts[place] == english[place]] == []


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_a_number_or_a_setting_lost_in_translation_is_noticed(language: str) -> None:
    texts, english = paths(read(LOCALES / language / "nodeDefs.json")), paths(from_schemas())
    for place, text in english.items():
        if place[-1] == "tooltip":
            numbers = re.findall(r"\d[\d.]*\d|\d", text)
            found = re.findall(r"\d[\d.]*\d|\d", re.sub(r"(?<=\d),(?=\d)", ".", texts[place]))
            assert set(numbers) <= set(found), place


def test_a_language_without_a_test_is_noticed() -> None:
    assert {folder.name for folder in LOCALES.iterdir()} == set(LANGUAGES)


def test_a_node_without_help_or_help_without_a_node_is_noticed() -> None:
    assert {page.stem for page in DOCS.glob("*.md")} == set(INFO)


@pytest.mark.parametrize("id", INFO)
def test_a_help_page_that_leaves_out_an_input_or_an_output_is_noticed(id: str) -> None:
    page = (DOCS / f"{id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {INFO[id]['display_name']}\n")
    names = [*inputs_of(id), *(name for name, _ in outputs_of(id))]
    assert [name for name in names if f"`{name}`" not in page] == []


@pytest.mark.parametrize("id", INFO)
def test_a_help_page_that_names_something_the_node_does_not_have_is_noticed(id: str) -> None:
    page = (DOCS / f"{id}.md").read_text(encoding="utf-8")
    names = {*inputs_of(id), *(name for name, _ in outputs_of(id))}
    assert set(re.findall(r"^- `(\w+)` \(", page, re.MULTILINE)) == names


def test_a_node_whose_text_the_front_end_does_not_show_is_noticed() -> None:
    script = (REPOSITORY / "web" / "js" / "show_text.js").read_text(encoding="utf-8")
    shown = re.search(r"NODES = new Set\(\[(.*?)\]\)", script, re.DOTALL)
    assert shown is not None
    says = {id for id, node in TABLE.items() if "ui.PreviewText(" in inspect.getsource(node)}
    assert set(re.findall(r'"(\w+)"', shown[1])) == says
