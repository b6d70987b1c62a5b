"""Runs an API-format workflow of this pack without ComfyUI: for CI, the demo and batch machines.

Importing this room makes `comfy_api.latest` importable. ComfyUI's own is used where there is one: already
on `sys.path`, or in the tree that COMFYUI_PATH names. Otherwise it is the narrow one in `shim/`.

given.py      the inputs of a node, as a workflow file names them
graph.py      a workflow read, and what is wrong with it
changes.py    `--set NODE.INPUT=VALUE`
folders.py    where pictures are read from and written to
calls.py      one class method of a node called as ComfyUI does
validate.py   every node checked against its schema
builtin.py    the few of ComfyUI's own nodes that it knows, such as LoadImage and SaveImage
saved.py      pictures saved as ComfyUI does
outputs.py    what a run gives back
told.py       what a run shows while it goes on
run.py        the run itself
__main__.py   the command
demo.py       `make demo`
shim/         the narrow comfy_api
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

log = logging.getLogger(__name__)

SHIM = Path(__file__).with_name("shim")


def ensure_comfy_api() -> None:
    """Makes `from comfy_api.latest import io` work from here on.

    A tree named by COMFYUI_PATH that this Python cannot import (its requirements are missing) is left
    alone with a warning, and the shim is used.
    """
    tree = os.environ.get("COMFYUI_PATH")
    if _is_importable() or (tree and _import_from(Path(tree))):
        return
    sys.path.append(str(SHIM))


def _is_importable() -> bool:
    try:
        return find_spec("comfy_api.latest") is not None
    except ModuleNotFoundError:
        return False


def _import_from(tree: Path) -> bool:
    before = set(sys.modules)
    sys.path.append(str(tree))
    try:
        _prefer_cpu_where_there_is_no_gpu()
        importlib.import_module("comfy_api.latest")
    except ImportError as error:
        log.warning("ComfyUI in %s is left out, this Python cannot import it: %s.", tree, error)
        sys.path.remove(str(tree))
        # What did load would keep the shim's modules of the same names from loading.
        for name in set(sys.modules) - before:
            if _lies_in(tree, sys.modules[name]):
                del sys.modules[name]
        return False
    return True


def _prefer_cpu_where_there_is_no_gpu() -> None:
    # ComfyUI asks CUDA for a device at import unless it was started with --cpu.
    cli_args = importlib.import_module("comfy.cli_args")
    import torch

    accelerators = (torch.cuda, torch.backends.mps, getattr(torch, "xpu", None))
    if not any(one is not None and one.is_available() for one in accelerators):
        cli_args.args.cpu = True


def _lies_in(tree: Path, module: ModuleType) -> bool:
    # ComfyUI's packages have no file where they are namespace packages.
    places = [vars(module).get("__file__"), *vars(module).get("__path__", ())]
    return any(place is not None and Path(place).is_relative_to(tree) for place in places)


ensure_comfy_api()
