"""The numbers that this MODEL's weights stand for, given to whoever asks ComfyUI's ModelPatcher for them.

Nodes such as Extract and Save LoRA read weights out of a loaded model, and would take FP8 bytes without their scale,
and without the patches that are computed beside them, for the weights. So the patcher and all its clones answer with
the numbers: dequantised, with the patches, one weight at a time.

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

import weakref
from collections.abc import ItemsView, Iterator, ValuesView
from typing import Any

import comfy.lora  # type: ignore[import-not-found]
import comfy.utils  # type: ignore[import-not-found]
import torch
from comfy.patcher_extension import CallbacksMP  # type: ignore[import-not-found]

from .ops import Linear

_KEY = "kontext_bridge_numbers"
_WEIGHT = ".weight"


def answer_with_numbers(patcher: Any) -> None:
    """Have this ModelPatcher and its clones give out numbers where a weight is asked for to be read."""
    _install(patcher)
    patcher.add_callback_with_key(CallbacksMP.ON_CLONE, _KEY, _cloned)


def _cloned(_: Any, clone: Any) -> None:
    _install(clone)


def _install(patcher: Any) -> None:
    # The patcher holds these functions: a plain reference back would keep it alive until the next garbage collection.
    known, kind = weakref.ref(patcher), type(patcher)

    def patch_weight_to_device(
        key: str, device_to: Any = None, inplace_update: bool = False, return_weight: bool = False, **others: Any
    ) -> Any:
        asked: Any = known()
        if return_weight:
            number = _number(asked, key)
            if number is not None:
                return number
        return kind.patch_weight_to_device(asked, key, device_to, inplace_update, return_weight, **others)

    def model_state_dict(filter_prefix: str | None = None) -> _Numbers:
        asked: Any = known()
        return _Numbers(asked, kind.model_state_dict(asked, filter_prefix))

    patcher.patch_weight_to_device = patch_weight_to_device
    patcher.model_state_dict = model_state_dict


def _number(patcher: Any, key: str) -> torch.Tensor | None:
    """What a weight of this pack's layers stands for, with its patches; None for any other tensor of the model."""
    if not key.endswith(_WEIGHT):
        return None
    layer = comfy.utils.get_attr(patcher.model, key.removesuffix(_WEIGHT))
    if not isinstance(layer, Linear):
        return None
    patches = patcher.patches.get(key, [])
    number = layer.convert_weight(layer.weight.detach().to(patcher.load_device))
    if patches:
        number = comfy.lora.calculate_weight(patches, number.to(torch.float32, copy=True), key)
    return number


class _Numbers(dict[str, Any]):
    """A model's tensors by name, each weight worked out when it is read, since together they would fill the memory."""

    def __init__(self, patcher: Any, tensors: dict[str, Any]) -> None:
        super().__init__(tensors)
        self._patcher = patcher

    def __getitem__(self, key: str) -> Any:
        kept = super().__getitem__(key)
        number = _number(self._patcher, key)
        return kept if number is None else number

    def get(self, key: str, default: Any = None) -> Any:
        if key not in self:
            return default
        return self[key]

    # Being there, it has `dict(numbers)` and `{**numbers}` ask for every value instead of copying what is kept.
    def __iter__(self) -> Iterator[str]:
        return super().__iter__()

    def copy(self) -> _Numbers:
        return _Numbers(self._patcher, super().copy())

    def pop(self, key: str, *default: Any) -> Any:
        found = self.get(key)
        kept = super().pop(key, *default)
        return kept if found is None else found

    def items(self) -> Any:
        return ItemsView(self)

    def values(self) -> Any:
        return ValuesView(self)
