"""Runs an API-format workflow of this pack without ComfyUI: for CI, the demo and batch machines.

Importing this room makes `comfy_api.latest` importable. ComfyUI's own is used where there is one: already
on `sys.path`, or in the tree that COMFYUI_PATH names. Otherwise it is the narrow one in `shim/`.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path

log = logging.getLogger(__name__)

SHIM = Path(__file__).with_name("shim")


def ensure_comfy_api() -> None:
    """Makes `from comfy_api.latest import io` work from here on.

    A tree named by COMFYUI_PATH that this Python cannot import (its requirements are missing) is left
    alone with a warning, and the shim is used.
    """
    if "comfy_api.latest" in sys.modules or find_spec("comfy_api") is not None:
        return
    tree = os.environ.get("COMFYUI_PATH")
    if tree and not _import_from(Path(tree)):
        log.warning("ComfyUI in %s cannot be imported by %s; running without it.", tree, sys.executable)
    if "comfy_api.latest" not in sys.modules:
        sys.path.append(str(SHIM))


def _import_from(tree: Path) -> bool:
    before = set(sys.modules)
    sys.path.append(str(tree))
    try:
        _prefer_cpu_where_there_is_no_gpu()
        importlib.import_module("comfy_api.latest")
    except ImportError as error:
        log.warning("%s", error)
        sys.path.remove(str(tree))
        # What did load would keep the shim's modules of the same names from loading.
        for name in set(sys.modules) - before:
            if _lies_in(tree, getattr(sys.modules[name], "__file__", None)):
                del sys.modules[name]
        return False
    return True


def _prefer_cpu_where_there_is_no_gpu() -> None:
    # ComfyUI asks CUDA for a device at import unless it was started with --cpu.
    import torch

    cli_args = importlib.import_module("comfy.cli_args")
    accelerators = (torch.cuda, torch.backends.mps, getattr(torch, "xpu", None))
    if not any(one is not None and one.is_available() for one in accelerators):
        cli_args.args.cpu = True


def _lies_in(tree: Path, file: str | None) -> bool:
    return file is not None and Path(file).is_relative_to(tree)


ensure_comfy_api()
