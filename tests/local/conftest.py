"""What a real ComfyUI makes of the tiny models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
for folder in (HERE, HERE.parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from comfy_server import comfyui  # noqa: E402
from tiny_models import write_models  # noqa: E402


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="session")
def probe(models: Path, tables: dict[str, list[str]]) -> Callable[..., Any]:
    """What ComfyUI answers to probe.py's questions, asked once for each set of its options."""
    known: dict[tuple[str, ...], Any] = {}

    def answers(*options: str) -> Any:
        tree, python = comfyui()
        if options not in known:
            command = [python, str(HERE / "probe.py"), str(tree), str(models), *options]
            quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
            done = subprocess.run(command, capture_output=True, text=True, cwd=models, env=quiet)
            assert done.returncode == 0, done.stderr[-4000:]
            known[options] = json.loads(done.stdout.splitlines()[-1])
            title = " ".join(["4 steps against the same numbers in float32", *options])
            tables[title] = [
                f"{layout.ljust(30)} {figures['ours']:.1e}   stock loader {figures['stock']:.1e}"
                for layout, figures in known[options]["layouts"].items()
            ]
        return known[options]

    return answers
