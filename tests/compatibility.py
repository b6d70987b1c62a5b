"""Runs the tests that need the real ComfyUI and writes docs/compatibility.md's row: `make compatibility` does it.

COMFYUI_PATH names ComfyUI's folder, COMFYUI_PYTHON its Python. Arguments are pytest's, such as one file of tests; the
row then says which. A run of all tests takes the place of every row of the same versions, a run of some that of the
same tests alone.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "compatibility.md"
HEADS = ("ComfyUI", "front end", "Python", "torch", "system", "pack", "date", "tests", "passed", "failed", "skipped")
_BEGIN, _END = "<!-- rows: written by `make compatibility` -->", "<!-- end of rows -->"
_ASK = """
import importlib.metadata, json, platform
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"
print(json.dumps([version("comfyui_frontend_package"), platform.python_version(), version("torch")]))
"""


@dataclass(frozen=True)
class Versions:
    comfyui: str
    front_end: str
    python: str
    torch: str
    system: str


@dataclass(frozen=True)
class Counts:
    """How many tests ended how; an error beside a test counts as failed."""

    passed: int
    failed: int
    skipped: int


@dataclass(frozen=True)
class Row:
    versions: Versions
    pack: str
    date: str
    tests: str
    counts: Counts

    def __str__(self) -> str:
        cells = [*astuple(self.versions), self.pack, self.date, self.tests, *astuple(self.counts)]
        return f"| {' | '.join(map(str, cells))} |"

    @classmethod
    def read(cls, line: str) -> Row:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        return cls(Versions(*cells[:5]), cells[5], cells[6], cells[7], Counts(*map(int, cells[8:])))

    def replaces(self, other: Row) -> bool:
        return self.versions == other.versions and self.tests in ("all", other.tests)


def versions_at(tree: Path, python: str) -> Versions:
    """What stands in ComfyUI's folder and in its Python."""
    found = re.search(r'__version__ = "(.+)"', (tree / "comfyui_version.py").read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit(f"{tree / 'comfyui_version.py'} does not say its version")
    answer = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, check=True).stdout
    return Versions(found[1], *json.loads(answer), system=f"{platform.system()} {platform.machine()}")


def counts_in(report: str) -> Counts:
    """From the text of pytest's JUnit file."""
    ends = {"passed": 0, "failed": 0, "skipped": 0}
    for case in ElementTree.fromstring(report).iter("testcase"):
        tags = {child.tag for child in case}
        ends["failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"] += 1
    return Counts(**ends)


def page_with(page: str, row: Row) -> str:
    """The page with this row, the newest ComfyUI first."""
    before, rest = page.split(_BEGIN)
    old, after = rest.split(_END)
    rows = [row, *(other for other in map(Row.read, old.strip().splitlines()[2:]) if not row.replaces(other))]
    rows.sort(key=lambda one: (_numbers(one.versions.comfyui), _numbers(one.versions.front_end), one.date))
    table = [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|", *map(str, reversed(rows))]
    return "\n".join([before + _BEGIN, *table, _END + after])


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, Counts]:
    """Pytest's exit status on the tests that need ComfyUI, and how they ended."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "comfyui", f"--junitxml={report}", *arguments]
        status = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode
        return status, counts_in(report.read_text(encoding="utf-8")) if report.exists() else Counts(0, 0, 0)


def pack() -> str:
    """The commit that is tested, with a plus where the checkout differs from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    tree = environment.get("COMFYUI_PATH")
    if not tree:
        sys.stderr.write("Set COMFYUI_PATH to ComfyUI's folder, and COMFYUI_PYTHON to its Python.\n")
        return 2
    versions, tested = versions_at(Path(tree), environment.get("COMFYUI_PYTHON", sys.executable)), pack()
    status, counts = run(arguments, environment)
    # 0 and 1 are pytest's for a run that came to its end.
    if status not in (0, 1) or not counts.passed + counts.failed:
        sys.stderr.write(f"No row was written: pytest ended with {status}, {counts}.\n")
        return status or 1
    tests = f"`{' '.join(arguments)}`" if arguments else "all"
    row = Row(versions, tested, datetime.date.today().isoformat(), tests, counts)
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), row), encoding="utf-8", newline="\n")
    sys.stdout.write(f"{PAGE.relative_to(REPOSITORY)}: {row}\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
