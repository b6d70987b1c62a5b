"""What all tests share: the checkout as the package, and tables of figures, printed when everything has run."""

from __future__ import annotations

import atexit
import gc
import importlib.util
import os
import random
import sys
import tempfile
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
PACKAGE = "kontext_bridge"

# For the modules that tests share: those of all folders, and those of one.
for folder in (HERE, *(path for path in HERE.iterdir() if path.is_dir() and path.name[0] not in "._")):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def import_the_checkout() -> None:
    """Have kontext_bridge mean this checkout, here and in the programs that tests start, whether installed or not."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is not None and spec.origin is not None and Path(spec.origin).resolve().parent == HERE.parent:
        return
    holder = tempfile.TemporaryDirectory(prefix="checkout")
    atexit.register(holder.cleanup)
    Path(holder.name, PACKAGE).symlink_to(HERE.parent, target_is_directory=True)
    sys.path.insert(0, holder.name)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [holder.name, os.environ.get("PYTHONPATH")]))


import_the_checkout()

TABLES: pytest.StashKey[dict[str, list[str]]] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays until the end: to look through it for garbage takes seconds, then and at every turn."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


# Files that take longest begin first, so that nothing waits for them alone in the end.
LONGEST = (
    "test_fault_matrix.py",
    "test_pretended_model.py",
    "test_echoed_key.py",
    "test_ways.py",
    "test_mutations.py",
    "test_console.py",
    "test_random_kills.py",
    "test_remote_edit.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    turns = {name: turn for turn, name in enumerate(LONGEST)}
    items.sort(key=lambda item: turns.get(item.path.name, len(LONGEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are cores: many tests wait for seconds that are a promise, and each may take gigabytes."""
    return (os.cpu_count() or 1) + 2


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Every test draws the same numbers in every run, whichever ran before it, and others than its neighbours.

    With one seed for all, a test's input would be the very numbers that its weight was drawn as from the same seed.
    numpy and torch only where something imported them: most tests need neither.
    """
    seed = zlib.crc32(item.nodeid.encode())
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)
    if item.get_closest_marker("comfyui"):
        # Before its fixtures, and before what it does off ComfyUI to compare with.
        from comfy_server import comfyui

        comfyui()


class PlainFolder:
    """The checkout is a package, whose own `__init__.py` is no part of the tests and is not imported with them."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path.resolve() == HERE.parent else None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(PlainFolder())


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
