"""ComfyUI's weight patches as branches beside the layers, whichever loader they come from.

A LoRA loader hands its patches to the ModelPatcher, which applies them to the weights when it loads the model. The
layers here refuse that (ops.py); instead, each time a patcher has loaded the model, its patches are handed
to the layers. The patcher calls back for it, its clones inherit the callback, and it holds under every kind of
memory management, since all of them end in the same call.

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

import logging
from typing import Any

import comfy.weight_adapter  # type: ignore[import-not-found]
import torch
from comfy.patcher_extension import CallbacksMP  # type: ignore[import-not-found]

from ..fp8.compute import Branch
from .ops import ComfyLinear, Patches

logger = logging.getLogger(__name__)

_KEY = "kontext_bridge"


def follow_patches(patcher: Any) -> None:
    """Keep the layers' branches those of this ModelPatcher, or of the clone of it that was loaded last."""
    patcher.add_callback_with_key(CallbacksMP.ON_LOAD, _KEY, _loaded)
    patcher.add_callback_with_key(CallbacksMP.ON_DETACH, _KEY, _detached)


def layers_of(patcher: Any) -> list[tuple[str, ComfyLinear]]:
    """The model's layers by the names that ComfyUI's patches use, without `.weight`."""
    return [(name, module) for name, module in patcher.model.named_modules() if isinstance(module, ComfyLinear)]


def _loaded(patcher: Any, device: torch.device, *_: Any) -> None:
    dtype = patcher.model.get_dtype_inference()
    # Dynamic VRAM brings every weight to the device for its use. Otherwise room was made for the weights that are
    # there and no others, and a branch is brought along like its weight.
    dynamic = patcher.is_dynamic()
    slow = 0
    for name, layer in layers_of(patcher):
        place = device if dynamic else layer.weight.device
        made_for = (patcher.patches_uuid, place, dtype)
        # Dynamic VRAM patches while it faults weights in, unless it finds nothing to do.
        layer.weight_lowvram_function = None
        if layer.patches.made_for != made_for:
            layer.patch(_patches(patcher.patches.get(f"{name}.weight", []), made_for))
        slow += bool(layer.dense)
    if slow:
        logger.warning(
            "%d layers have patches that are no plain LoRA (LoKr, LoHa, DoRA, merged models or whole weights). They "
            "are exact but slow: those layers leave FP8 arithmetic.",
            slow,
        )


def _detached(patcher: Any, unpatch_all: bool) -> None:
    # A clone that is thrown away detaches too, without meaning the model; the others may be at work.
    if unpatch_all:
        for _, layer in layers_of(patcher):
            layer.patch(Patches())


def _patches(patches: list[Any], made_for: tuple[Any, torch.device, torch.dtype]) -> Patches:
    branches = [_branch(patch, *made_for[1:]) for patch in patches]
    plain = [branch for branch in branches if branch is not None]
    if len(plain) < len(patches):
        return Patches(dense=tuple(patches), made_for=made_for)
    return Patches(tuple(branch for branch in plain if branch.strength), made_for=made_for)


def _branch(patch: Any, device: torch.device, dtype: torch.dtype) -> Branch | None:
    """A patch of ComfyUI's as a branch; None for what is no plain LoRA of whole rows."""
    strength, adapter, model_strength, place, function = patch
    if not isinstance(adapter, comfy.weight_adapter.LoRAAdapter) or function is not None or model_strength != 1:
        return None
    up, down, alpha, middle, magnitude, reshaped = adapter.weights
    if middle is not None or magnitude is not None or reshaped is not None or up.ndim != 2 or down.ndim != 2:
        return None
    dimension, start = (0, 0) if place is None else place[:2]
    if dimension != 0:
        return None
    scale = 1.0 if alpha is None else alpha / down.shape[0]
    return Branch(down.to(device, dtype), up.to(device, dtype), start, float(strength * scale))
