"""ComfyUI's weight patches as branches beside the layers, whichever loader they come from.

A LoRA loader hands its patches to the ModelPatcher, which applies them to the weights when it loads the model. The
layers here refuse that (ops.py); instead, each time a patcher has loaded the model, its patches are handed
to the layers. The patcher calls back for it, its clones inherit the callback, and it holds under every kind of
memory management, since all of them end in the same call.

What is beside the layers takes memory, and ComfyUI makes room before it loads. So where it divides the memory itself,
the layers have their patches first, and count them with their weights.

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

import logging
from typing import Any

import comfy.weight_adapter  # type: ignore[import-not-found]
import torch
from comfy.patcher_extension import CallbacksMP  # type: ignore[import-not-found]

from ..errors import LoraError
from ..fp8.branches import Branch, join
from .mixing import mix_in
from .ops import ComfyLinear, Patches

logger = logging.getLogger(__name__)

_KEY = "kontext_bridge"


def follow_patches(patcher: Any) -> None:
    """Keep the layers' branches those of this ModelPatcher, or of the clone of it that was loaded last."""
    patcher.add_callback_with_key(CallbacksMP.ON_LOAD, _KEY, _loaded)
    patcher.add_callback_with_key(CallbacksMP.ON_DETACH, _KEY, _detached)
    patcher.add_callback_with_key(CallbacksMP.ON_CLONE, _KEY, _cloned)
    mix_in(patcher, _Counted)


class _Counted:
    """A ModelPatcher that counts the LoRA when ComfyUI makes room for the model and shares out what there is."""

    def model_size(self: Any) -> int:
        # Asked for the first time, it measures what the layers keep by themselves, which is without LoRA.
        comfyuis: Any = super()
        size: int = comfyuis.model_size()
        return size if self.is_dynamic() else size + _size_beside(self)

    def add_patches(self: Any, patches: Any, *others: Any, **named_others: Any) -> Any:
        if isinstance(patches, dict):
            _refuse_misfits(self, patches)
        comfyuis: Any = super()
        return comfyuis.add_patches(patches, *others, **named_others)

    def load(self: Any, device_to: Any = None, *others: Any, **named_others: Any) -> None:
        if not self.is_dynamic():
            _hand_over(self, device_to)
        comfyuis: Any = super()
        comfyuis.load(device_to, *others, **named_others)


def _cloned(original: Any, clone: Any) -> None:
    # It has been told the size with the original's LoRA, and adds its own.
    clone.size = original.size


def layers_of(patcher: Any) -> list[tuple[str, ComfyLinear]]:
    """The model's layers by the names that ComfyUI's patches use, without `.weight`."""
    return [(name, module) for name, module in patcher.model.named_modules() if isinstance(module, ComfyLinear)]


def _loaded(patcher: Any, device: torch.device, *_: Any) -> None:
    _hand_over(patcher, device)
    slow = 0
    for _name, layer in layers_of(patcher):
        # Dynamic VRAM patches while it faults weights in, unless it finds nothing to do.
        layer.weight_lowvram_function = None
        slow += bool(layer.dense)
    if slow:
        logger.warning(
            "%d layers have patches that are no plain LoRA (LoKr, LoHa, DoRA, merged models or whole weights). They "
            "are exact but slow: those layers leave FP8 arithmetic.",
            slow,
        )


def _hand_over(patcher: Any, device: torch.device) -> None:
    """Give the layers this ModelPatcher's patches, each beside its weight."""
    made_for = (patcher.patches_uuid, patcher.model.get_dtype_inference())
    # Dynamic VRAM brings every weight to the device for its use, and gives way to whatever else is there.
    dynamic = patcher.is_dynamic()
    for name, layer in layers_of(patcher):
        place = device if dynamic else layer.weight.device
        if layer.patches.made_for != made_for:
            layer.patch(_patches(patcher.patches.get(f"{name}.weight", []), place, made_for))
        elif layer.patches.beside is not None and layer.patches.beside.down.device != place:
            layer.patch(layer.patches.moved(lambda tensor, place=place: tensor.to(place)))  # type: ignore[misc]


def _size_beside(patcher: Any) -> int:
    """How many bytes this ModelPatcher's patches take beside the layers."""
    numbers = 0
    for name, _ in layers_of(patcher) if patcher.patches else []:
        for branch in _plain(patcher.patches.get(f"{name}.weight", [])) or []:
            numbers += branch.down.numel() + branch.up.numel()
    return numbers * int(patcher.model.get_dtype_inference().itemsize)


def _refuse_misfits(patcher: Any, patches: dict[Any, Any]) -> None:
    """Raises LoraError for a plain LoRA of another model's matrices, whichever node brings it.

    ComfyUI would leave such a layer out and say so in its log alone; beside a layer it cannot be multiplied.
    """
    named = dict(layers_of(patcher))
    for key, adapter in patches.items():
        name, place = (key, None) if isinstance(key, str) else (key[0], key[1])
        layer = named.get(name.removesuffix(".weight"))
        found = None if layer is None else _branch((1.0, adapter, 1.0, place, None))
        if layer is None or found is None:
            continue
        rows = layer.out_features if place is None else place[2]
        if (found.down.shape[1], found.up.shape[0]) != (layer.in_features, rows):
            called = name.removeprefix("diffusion_model.").removesuffix(".weight")
            raise LoraError(
                f"This LoRA was made for another model: for {called!r} it has matrices of shape "
                f"{list(found.down.shape)} and {list(found.up.shape)}, and this model's layer has "
                f"{layer.in_features} inputs and {rows} outputs. Choose one for this model."
            )


def _detached(patcher: Any, unpatch_all: bool) -> None:
    # A clone that is thrown away detaches too, without meaning the model; the others may be at work.
    if unpatch_all:
        for _, layer in layers_of(patcher):
            layer.patch(Patches())


def _patches(patches: list[Any], place: torch.device, made_for: tuple[Any, torch.dtype]) -> Patches:
    plain = _plain(patches)
    if plain is None:
        return Patches(dense=tuple(patches), made_for=made_for)
    return Patches(join(plain, place, made_for[1]), made_for=made_for)


def _plain(patches: list[Any]) -> list[Branch] | None:
    """A layer's patches as branches, less those without effect; None if one of them is no plain LoRA."""
    branches = [_branch(patch) for patch in patches]
    plain = [branch for branch in branches if branch is not None]
    return [branch for branch in plain if branch.strength] if len(plain) == len(patches) else None


def _branch(patch: Any) -> Branch | None:
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
    return Branch(down, up, start, float(strength * scale))
