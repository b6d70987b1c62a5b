"""What the front end shows of the nodes: help pages and translations, complete and up to date."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from generated import files, locale
from pack import DOCS, INFO, LOCALES, REPOSITORY, inputs_of, outputs_of, read
from PIL import Image

LANGUAGES = ("en", "zh", "zh-TW", "ja", "ko", "fr", "de", "es", "ru", "pt-BR")


def paths(words: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """Every text in a nested dict by where it stands."""
    if isinstance(words, str):
        return {path: words}
    return {place: text for key, value in words.items() for place, text in paths(value, (*path, key)).items()}


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_what_is_written_from_the_nodes_is_not_forgotten(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == files()[path], "run `make generated`, and review what it changes"


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d[\d.]*\d|\d", re.sub(r"(?<=\d),(?=\d)", ".", text)))


def lagging(english: dict[tuple[str, ...], str], texts: dict[tuple[str, ...], str]) -> list[str]:
    """Where a translation is behind the English words, a line each."""
    found = []
    for place, text in english.items():
        here = texts.get(place, "")
        if not here.strip():
            why = "missing"
        elif place[-1] in {"tooltip", "description"} and here == text:
            why = "still English"
        elif place[-1] == "tooltip" and not numbers(text) <= numbers(here):
            why = f"without {', '.join(sorted(numbers(text) - numbers(here)))}"
        else:
            continue
        found.append(f"{'.'.join(place)}: {why}")
    return found + [f"{'.'.join(place)}: no longer there" for place in texts if place not in english]


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_where_a_translation_lags_behind_is_reported(language: str, tables: dict[str, list[str]]) -> None:
    texts = paths(read(LOCALES / language / "nodeDefs.json"))
    late = lagging(paths(locale()), texts)
    if late:
        tables[f"locales/{language}/nodeDefs.json lags behind"] = late
    assert texts


def test_each_way_of_lagging_behind_is_told_apart() -> None:
    english = {("A", "tooltip"): "1 to 2.5", ("B", "tooltip"): "More.", ("C", "description"): "It.", ("D", "name"): "d"}
    assert lagging(english, english | {("A", "tooltip"): "1 bis 2,5", ("B", "tooltip"): "Mehr."}) == [
        "C.description: still English"
    ]
    assert lagging(english, {("A", "tooltip"): "1 bis 2", ("C", "description"): " ", ("E", "name"): "e"}) == [
        "A.tooltip: without 2.5",
        "B.tooltip: missing",
        "C.description: missing",
        "D.name: missing",
        "E.name: no longer there",
    ]


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


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.relative_to(DOCS).as_posix())
def test_bounds_in_a_help_page_that_are_not_the_inputs_are_noticed(path: Path) -> None:
    inputs = inputs_of(path.stem if path.parent == DOCS else path.parent.name)
    for name, said in re.findall(r"^- `(\w+)` ?[(（](.+?)[)）] ?[:：]", path.read_text(encoding="utf-8"), re.MULTILINE):
        bounds = [float(number.replace(",", ".")) for number in re.findall(r"-?\d+(?:[.,]\d+)?", said)]
        if len(bounds) == 2 and "max" in inputs.get(name, {}):
            assert bounds == [inputs[name]["min"], inputs[name]["max"]], f"{name}: {said}"


def behind(english: str, page: str) -> list[str]:
    """Where a translated help page is behind the English one, a line each."""
    kinds = {
        "inputs and outputs": r"^- `(\w+)` \(",
        "headings": r"^(##?) ",
        "points": r"^(-) ",
        "links": r"\]\((.*?)\)",
        "words in code": r"`([^`]+)`",
    }
    found = []
    for what, pattern in kinds.items():
        wanted, here = (Counter(re.findall(pattern, text, re.MULTILINE)) for text in (english, page))
        if wanted != here:
            found.append(f"{what}: lacks {sorted(wanted - here)}, has beside them {sorted(here - wanted)}")
    if not numbers(english) <= numbers(page):
        found.append(f"without {', '.join(sorted(numbers(english) - numbers(page)))}")
    return found


TRANSLATED = sorted(DOCS.glob("*/*.md"))


@pytest.mark.parametrize("path", TRANSLATED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_where_a_translated_help_page_lags_behind_is_reported(path: Path, tables: dict[str, list[str]]) -> None:
    """ComfyUI asks for NODE/LANGUAGE.md first. Nobody is asked to write one; what is there has the node's own name."""
    id, language = path.parent.name, path.stem
    assert id in INFO and language in LANGUAGES[1:]
    page = path.read_text(encoding="utf-8")
    assert page.startswith(f"# {read(LOCALES / language / 'nodeDefs.json')[id]['display_name']}\n")
    late = behind((DOCS / f"{id}.md").read_text(encoding="utf-8"), page)
    if late:
        tables[f"web/docs/{id}/{language}.md lags behind"] = late


def is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def stray_stars(line: str) -> list[str]:
    """The pairs of `**` in a line that Markdown leaves as they are: a mark inside and a letter outside, touching."""
    found = []
    for pair in re.finditer(r"\*\*(.+?)\*\*", line):
        before, after = line[: pair.start()][-1:] or " ", line[pair.end() :][:1] or " "
        inside = pair[1]
        if any(is_mark(end) and out.isalnum() for end, out in ((inside[0], before), (inside[-1], after))):
            found.append(pair[0])
    return found


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.relative_to(DOCS).as_posix())
def test_bold_that_is_shown_as_stars_is_noticed(path: Path) -> None:
    assert [pair for line in path.read_text(encoding="utf-8").splitlines() for pair in stray_stars(line)] == []
    assert stray_stars("- **多试几次：**把") == ["**多试几次：**"] and stray_stars("- **多试几次**：把") == []


def test_each_way_in_which_a_help_page_lags_behind_is_told_apart() -> None:
    english = "# A\n\n## In\n\n- `a` (INT): 1 to 4.\n- See [it](https://x/y).\n"
    assert behind(english, "# B\n\n## Ein\n\n- `a` (INT): 1 bis 4.\n- Siehe [das](https://x/y).\n") == []
    assert behind(english, "# B\n\n- `b` (INT): 1.\n") == [
        "inputs and outputs: lacks ['a'], has beside them ['b']",
        "headings: lacks ['##'], has beside them []",
        "points: lacks ['-'], has beside them []",
        "links: lacks ['https://x/y'], has beside them []",
        "words in code: lacks ['a'], has beside them ['b']",
        "without 4",
    ]


def test_a_help_page_whose_picture_is_missing_or_heavy_is_noticed() -> None:
    shown = {
        DOCS / name
        for page in DOCS.rglob("*.md")
        for name in re.findall(r"!\[[^\]]+\]\((.*?)\)", page.read_text("utf-8"))
    }
    assert shown == set((DOCS / "pictures").iterdir())
    for path in shown:
        assert path.stat().st_size < 150_000
        with Image.open(path) as picture:
            assert picture.format == "JPEG" and max(picture.size) <= 1200


def test_a_node_whose_text_the_front_end_does_not_show_is_noticed() -> None:
    script = (REPOSITORY / "web" / "js" / "show_text.js").read_text(encoding="utf-8")
    category = re.search(r'CATEGORY = "(.*)"', script)
    assert category is not None and "nodeData.category" in script
    assert {info["category"].split("/")[0] for info in INFO.values()} == {category[1]}
