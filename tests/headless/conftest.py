from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
for folder in (HERE, HERE.parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from comfy_server import comfy_server  # noqa: E402, F401
from kontext_bridge.headless.folders import RunFolders  # noqa: E402
from kontext_bridge.headless.outputs import RunResult  # noqa: E402
from kontext_bridge.headless.run import run_workflow  # noqa: E402


@pytest.fixture(scope="session")
def sample_pack() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_pack", HERE / "sample_pack" / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folders(tmp_path: Path) -> RunFolders:
    return RunFolders(source=tmp_path, output=tmp_path / "output")


@pytest.fixture
def run(sample_pack: ModuleType, folders: RunFolders) -> Callable[..., RunResult]:
    def run_sample(workflow: Mapping[str, Any], **options: Any) -> RunResult:
        return run_workflow(workflow, sample_pack.NODES, folders, **options)

    return run_sample
