"""What a real ComfyUI makes of the tiny models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from comfy_server import comfy_service, comfyui  # noqa: F401
from questions import Answering, Ask
from tiny_models import write_models

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    comfyui()  # before the time that they take
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="session")
def ask(models: Path) -> Iterator[Ask]:
    """Puts a question to ComfyUI: ask(question, its options ...)."""
    tree, python = comfyui()
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    with ExitStack() as stack:
        yield Answering([python, str(HERE / "answering.py"), str(tree)], models, quiet, stack).ask
