"""README and the pages: links that lead somewhere, and words that errors still have."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from kontext_bridge.oxen.settings import Settings, variable_of
from pack import DOCS, INFO, REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HOME = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
OF_ROOMS = ("benchmarks/RESULTS.md", "tests/quality/README.md", "training/README.md")
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), *map(REPOSITORY.joinpath, OF_ROOMS)])
HELP = sorted(DOCS.rglob("*.md"))
ROOMS = ("commands", "editing", "headless", "host", "imaging", "kontext", "nodes", "oxen", "routes")
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
PICTURE = re.compile(r"!\[[^\]]+\]\(([^)\s]+)\)")


def named(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them in addresses."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead(target: Path, link: str) -> bool:
    """Whether a link into this repository leads nowhere; `target` is the file or folder that it names."""
    anchor = link.partition("#")[2]
    return not target.exists() or (bool(anchor) and anchor not in anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_link_or_picture_of_a_page_that_leads_nowhere_is_noticed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in LINK.findall(text) + PICTURE.findall(text) if "://" not in link]
    assert [link for link in links if dead((page.parent / (link.partition("#")[0] or page.name)).resolve(), link)] == []


@pytest.mark.parametrize("page", HELP, ids=named)
def test_a_link_of_a_help_page_that_cannot_be_followed_in_comfyui_is_noticed(page: Path) -> None:
    """The front end opens a link as it stands, from its own address: one into this repository has to say all of it."""
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not link.startswith("https://")] == []
    begin = f"{HOME}/blob/main/"
    own = [link for link in links if link.startswith(HOME)]
    assert [link for link in own if not link.startswith(begin)] == []
    assert [link for link in own if dead(REPOSITORY / link[len(begin) :].partition("#")[0], link)] == []


def texts(path: Path) -> Iterator[str]:
    """Every text in a program; what is filled in is an ellipsis."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_a_row_of_the_error_table_whose_words_no_error_has_any_more_is_noticed() -> None:
    said = "\n".join(text for room in ROOMS for path in (REPOSITORY / room).rglob("*.py") for text in texts(path))
    rows = re.findall(r"^\| (?!the error|---)(.+?) \|", (REPOSITORY / "docs" / "errors.md").read_text("utf-8"), re.M)
    assert len(rows) > 30
    assert [words for row in rows for words in re.split(r" ?…,? ?|, ", row) if words not in said] == []


# A program, and what it is called with: to the end of its code span or, in a block of code, of its line.
CALL = re.compile(r"python3? (?:-m kontext_bridge\.([\w.]+)|((?:\w+/)+\w+\.py))((?: [^`\n]*)?(?:\n[^`\n]+`)?)")


def program(module: str, script: str) -> Path:
    if script:
        return REPOSITORY / script
    file = REPOSITORY.joinpath(*module.split("."))
    return file / "__main__.py" if file.is_dir() else file.with_suffix(".py")


@pytest.mark.parametrize("page", [*PAGES, *HELP], ids=named)
def test_a_command_of_a_page_that_no_program_takes_is_noticed(page: Path) -> None:
    """Its file has to be there, and each option has to stand in its source, or in that of a neighbour's parser."""
    wrong = []
    for module, script, words in CALL.findall(re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))):
        file = program(module, script)
        sources = [one for one in (file, file.with_name("arguments.py")) if one.is_file()]
        source = "".join(one.read_text(encoding="utf-8") for one in sources)
        options = re.findall(r"(?<![\w-])--[a-z][a-z-]+", words)
        wrong += [
            (module or script, one) for one in options or [""] if f'"{one}"' not in source and (one or not source)
        ]
    assert wrong == []


def test_a_target_of_make_that_a_page_names_and_that_is_gone_is_noticed() -> None:
    targets = set(re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert "test" in targets
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"`make (\w+)", text) + re.findall(r"^make (\w+)  ", text, re.MULTILINE)) <= targets, page


def test_what_the_tests_on_windows_leave_out_is_what_is_told_of_them() -> None:
    told = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("CI (`.github/")[2]
    run = (REPOSITORY / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8").partition(">-")[2]
    tests = REPOSITORY / "tests"
    all_of_them = {f"tests/{path.name}" for path in tests.iterdir() if list(path.glob("test_*.py"))}
    all_of_them |= {f"tests/{path.name}" for path in tests.glob("test_*.py")}
    left_out = all_of_them - set(re.findall(r"(?<![=\w])tests/[\w.]+", run)) | set(re.findall(r"--ignore=(\S+)", run))
    assert set(re.findall(r"`(tests/[\w./]+)`", told)) == left_out


def test_a_setting_or_variable_that_a_page_has_otherwise_is_noticed() -> None:
    text = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    told: dict[str, str] = {}
    for names, default in re.findall(r"^\| (`[a-z_`, ]+) \| (\S+) \|", text, re.MULTILINE):
        told |= dict.fromkeys(re.findall(r"`(\w+)`", names), default)
    assert told == {one.name: str(one.default).lower() for one in fields(Settings)}
    known = {variable_of(one.name) for one in fields(Settings)} | {"KONTEXT_BRIDGE_HOME"}
    for page in [*PAGES, *HELP]:
        found = set(re.findall(r"KONTEXT_BRIDGE_\w+", page.read_text(encoding="utf-8")))
        assert found <= known, f"{page}: what begins so and is no setting is refused"


def test_a_readme_that_grows_loses_a_node_or_does_not_say_how_to_test_is_noticed() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [id for id, info in INFO.items() if f"| {info['display_name']} |" not in text] == []
    assert len(re.findall(r"\S*\w\S*", text)) < 1000
    assert "make test" in text and "make test" in (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
