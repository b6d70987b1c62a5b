"""What all tests share: tables of figures, printed when everything has run, by whichever process took them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

# for the modules that tests of several folders use
if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))

TABLES: pytest.StashKey[dict[str, list[str]]] = pytest.StashKey()


@pytest.fixture(scope="session")
def tables(request: pytest.FixtureRequest) -> dict[str, list[str]]:
    """Tables by their titles."""
    return request.config.stash.setdefault(TABLES, {})


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["tables"] = session.config.stash.get(TABLES, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash.setdefault(TABLES, {}).update(getattr(node, "workeroutput", {}).get("tables", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for title, lines in config.stash.get(TABLES, {}).items():
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)
