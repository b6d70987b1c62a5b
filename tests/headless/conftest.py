from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from comfy_server import comfy_server  # noqa: F401
from kontext_bridge.headless.folders import RunFolders
from kontext_bridge.headless.outputs import RunResult
from kontext_bridge.headless.run import run_workflow

HERE = Path(__file__).parent


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
