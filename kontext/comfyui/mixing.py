"""Methods of this pack in place of ComfyUI's own, for one ModelPatcher and all its clones.

A clone is of the class of what it was cloned from, so the class is what is changed. A function laid into the patcher
would hold it, and with it the model, until the next garbage collection; and one that holds it only weakly would find it
gone in `model.clone().model_size()`.

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from comfy.patcher_extension import CallbacksMP  # type: ignore[import-not-found]


def mix_in(patcher: Any, methods: type) -> None:
    """Have this ModelPatcher and its clones answer with `methods`, which reach ComfyUI's by `super()`."""
    _mix_in(methods, None, patcher)
    # Not every clone is of the same class: one without dynamic VRAM is of ComfyUI's.
    patcher.add_callback_with_key(CallbacksMP.ON_CLONE, methods.__qualname__, partial(_mix_in, methods))


def _mix_in(methods: type, _: Any, patcher: Any) -> None:
    if not isinstance(patcher, methods):
        kind: Any = type(patcher)
        patcher.__class__ = _mixed(methods, kind)


@cache
def _mixed(methods: Any, kind: Any) -> type:
    return type(kind.__name__, (methods, kind), {})
