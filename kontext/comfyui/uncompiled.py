"""ComfyUI's own compiler kept away from a model whose steps differ from one another.

ComfyUI after 0.33 has a compiler, on with dynamic VRAM: it plans a step's memory by an earlier step's, and records the
blocks of some models to play them again. Neither fits a step that looks its modulation up in a table made by the first
one, or one that is left out: the run ends in "aimdo memory compile error", or a block is played again with the numbers
of the step that it was recorded in. Whether to compile is decided as a model's forward begins, from one setting of the
whole program. A wrapper at DIFFUSION_MODEL is called only after that; one at OUTER_SAMPLE, around the whole run, is in
time for every step. An earlier ComfyUI has no such setting, and nothing is changed.

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.cli_args  # type: ignore[import-not-found]
from comfy.patcher_extension import WrappersMP  # type: ignore[import-not-found]

_SETTING = "disable_comfy_compiler"
_KEY = "kontext_bridge"


class _Runs:
    """How many runs want it off at this moment, and how it was before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.before = False


_runs = _Runs()


def sample_uncompiled(patcher: Any) -> None:
    """Have every run of this ModelPatcher and its clones sampled without ComfyUI's compiler."""
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _KEY, _around)


def _around(executor: Any, *arguments: Any, **named: Any) -> Any:
    with without_compiler():
        return executor(*arguments, **named)


@contextmanager
def without_compiler() -> Iterator[None]:
    """Within the block ComfyUI compiles nothing; afterwards the setting is as it was before the first such block."""
    settings = comfy.cli_args.args
    if not hasattr(settings, _SETTING):
        yield
        return
    with _runs.lock:
        if not _runs.count:
            _runs.before = settings.disable_comfy_compiler
        _runs.count += 1
        settings.disable_comfy_compiler = True
    try:
        yield
    finally:
        with _runs.lock:
            _runs.count -= 1
            if not _runs.count:
                settings.disable_comfy_compiler = _runs.before
