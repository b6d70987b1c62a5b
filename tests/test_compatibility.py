"""The page of tested versions: counts that are pytest's own, and rows that do not hide each other."""

import subprocess
import sys
from pathlib import Path

import compatibility
from compatibility import PAGE, Counts, Row, Versions, counts_in, main, page_with, versions_at

EMPTY = f"# Page\n\n{compatibility._BEGIN}\n| a |\n|---|\n{compatibility._END}\n\nafter\n"
OLD = Versions("0.25.0", "1.45.0", "3.11.2", "2.13.0", "Linux x86_64")
NEW = Versions("0.33.0", "1.49.6", "3.11.2", "2.13.0", "Linux x86_64")


def row(versions: Versions, tests: str = "all", date: str = "2026-01-02", failed: int = 0) -> Row:
    return Row(versions, "abc1234", date, tests, Counts(5, failed, 1))


def rows_of(page: str) -> list[Row]:
    table = page.split(compatibility._BEGIN)[1].split(compatibility._END)[0].strip()
    return [Row.read(line) for line in table.splitlines()[2:]]


def test_a_count_that_is_not_what_pytest_saw_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "test_ends.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "@pytest.mark.parametrize('n', [1, 2])\ndef test_bad(n): assert n == 3\n"
        "def test_left_out(): pytest.skip('no')\n"
        "@pytest.fixture\ndef broken(): raise OSError\n"
        "def test_not_begun(broken): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=report.xml"]
    subprocess.run([*command, "--rootdir=."], cwd=tmp_path, capture_output=True, check=False)
    assert counts_in((tmp_path / "report.xml").read_text()) == Counts(passed=1, failed=3, skipped=1)


def test_a_row_that_changes_when_it_is_read_again_is_noticed() -> None:
    page = page_with(page_with(EMPTY, row(OLD)), row(NEW))
    assert rows_of(page) == [row(NEW), row(OLD)]
    assert page.startswith("# Page\n\n<!--") and page.endswith("-->\n\nafter\n")


def test_a_new_run_takes_the_place_of_the_old_one_of_the_same_versions() -> None:
    page = page_with(page_with(EMPTY, row(NEW, failed=2)), row(OLD))
    assert rows_of(page_with(page, row(NEW, date="2026-02-03"))) == [row(NEW, date="2026-02-03"), row(OLD)]


def test_a_run_of_a_few_tests_hides_no_run_of_all_and_all_takes_the_place_of_a_few() -> None:
    few = row(NEW, "`tests/keep`")
    assert set(map(str, rows_of(page_with(page_with(EMPTY, row(NEW)), few)))) == {str(row(NEW)), str(few)}
    assert rows_of(page_with(page_with(EMPTY, few), row(NEW))) == [row(NEW)]


def test_nothing_is_run_or_written_without_a_comfyui(capfd) -> None:
    before = PAGE.read_bytes()
    assert main([], {}) == 2
    assert "COMFYUI_PATH" in capfd.readouterr().err and PAGE.read_bytes() == before


def test_a_run_in_which_no_test_ran_writes_no_row(tmp_path: Path, monkeypatch, capfd) -> None:
    (tmp_path / "comfyui_version.py").write_text('__version__ = "9.9.9"\n')
    monkeypatch.setattr(compatibility, "run", lambda *_: (0, Counts(0, 0, 7)))
    before = PAGE.read_bytes()
    assert main([], {"COMFYUI_PATH": str(tmp_path)}) == 1
    assert "No row was written" in capfd.readouterr().err and PAGE.read_bytes() == before


def test_the_versions_are_those_of_comfyuis_folder_and_python(tmp_path: Path) -> None:
    (tmp_path / "comfyui_version.py").write_text('# generated\n__version__ = "9.9.9"\n')
    found = versions_at(tmp_path, sys.executable)
    assert found.comfyui == "9.9.9" and found.python == ".".join(map(str, sys.version_info[:3]))


def test_the_page_itself_can_be_read() -> None:
    assert all(each.tests for each in rows_of(PAGE.read_text(encoding="utf-8")))
