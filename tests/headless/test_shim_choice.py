from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import kontext_bridge.headless
from importlib.util import find_spec
print(find_spec("comfy_api.latest").origin)
"""


def api_file(tree: Path | None) -> tuple[Path, str]:
    """The file of `comfy_api.latest` that a run gets where COMFYUI_PATH names `tree`, and the log."""
    environment = {key: value for key, value in os.environ.items() if key != "COMFYUI_PATH"}
    if tree is not None:
        environment["COMFYUI_PATH"] = str(tree)
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip()), done.stderr


def comfyui(folder: Path, latest: str) -> Path:
    """A tree laid out as ComfyUI's, whose comfy_api.latest holds `latest`."""
    (folder / "comfy").mkdir()
    (folder / "comfy" / "cli_args.py").write_text("class args:\n    cpu = False\n")
    (folder / "comfy_api" / "latest").mkdir(parents=True)
    (folder / "comfy_api" / "latest" / "__init__.py").write_text(latest)
    return folder


def test_without_comfyui_the_shim_is_used() -> None:
    used, log = api_file(None)
    assert "shim" in used.parts and log == ""


def test_comfyuis_own_api_wins_and_is_told_of_a_machine_without_gpu(tmp_path: Path) -> None:
    source = "import torch, comfy.cli_args as c\nassert c.args.cpu or torch.cuda.is_available()\n"
    used, log = api_file(comfyui(tmp_path, source))
    assert used.is_relative_to(tmp_path) and log == ""


def test_a_comfyui_that_this_python_cannot_import_is_left_out_with_the_reason(tmp_path: Path) -> None:
    used, log = api_file(comfyui(tmp_path, "import comfy.cli_args, no_such_requirement\n"))
    assert "shim" in used.parts
    assert "No module named 'no_such_requirement'" in log


def test_a_path_without_a_comfyui_is_left_out(tmp_path: Path) -> None:
    used, log = api_file(tmp_path / "nowhere")
    assert "shim" in used.parts and "nowhere" in log
