"""A folder of small pictures, a stand-in, and the command in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kontext_bridge.batch.__main__ import main
from kontext_bridge.standin import StandIn, Timing
from small_pictures import write_picture

QUICK = Timing(queued_s=0.005, processing_s=0.02)
# jpg is what the stand-in draws fastest
REMOTE = ["--set", "output_format=jpg", "--prompt", "make it night"]


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """Make pictures of these names in a folder, each other than the others; gives the folder."""

    def make(*names: str) -> Path:
        folder = tmp_path / "pictures"
        folder.mkdir(exist_ok=True)
        for number, name in enumerate(names):
            write_picture(folder / name, number)
        return folder

    return make


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with StandIn(timing=QUICK, shrink=16) as server:
        monkeypatch.setenv("OXEN_BASE_URL", server.url)
        monkeypatch.setenv("OXEN_API_KEY", server.key)
        monkeypatch.setenv("KONTEXT_BRIDGE_HOME", str(tmp_path / "home"))
        yield server


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command into the folder `out`; gives its exit status."""
    monkeypatch.setenv("KONTEXT_BRIDGE_HOME", str(tmp_path / "home"))

    def run(source: Path, *options: str) -> int:
        return main([str(source), "--output", str(tmp_path / "out"), *options])

    return run


@pytest.fixture
def report(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """The report of the folder `out`, of which the page tells all."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "batch.md").read_text("utf-8")
    table = page.partition("## The report")[2].partition("##")[0]
    told = set(re.findall(r"`(\w+)`", table))

    def read() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in (tmp_path / "out" / "report.jsonl").read_text().splitlines()]
        assert [name for entry in found for name in entry if name not in told] == [], (
            "docs/batch.md does not tell of it"
        )
        return found

    return read
