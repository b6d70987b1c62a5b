"""What a real ComfyUI makes of the demo model that comes with the pack."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from comfy_server import comfyui
from questions import Answering

ANSWERING = Path(__file__).parent.parent / "local" / "answering.py"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Answering, Path]]:
    """ComfyUI, to be asked questions, and the folder that it works in."""
    tree, python = comfyui()
    folder = tmp_path_factory.mktemp("host")
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    with ExitStack() as stack:
        yield Answering([python, str(ANSWERING), str(tree)], folder, quiet, stack), folder
