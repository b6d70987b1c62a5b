"""Gives the real numbers, not FP8 bytes, to any node that reads this MODEL's weights.

Nodes such as Extract and Save LoRA read weights out of a loaded model, and would take FP8 bytes without their scale,
and without the patches that are computed beside them, for the weights. So the patcher with all its clones, the model
and the Flux inside it answer with the numbers: dequantised, with the patches, one weight at a time, and without the
scales, which are in the numbers already.

What holds a single layer still sees what is kept, FP8 bytes and a scale: a layer's own `state_dict` is what ComfyUI
measures its memory by, and its parameters are what ComfyUI moves.

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.lora  # type: ignore[import-not-found]
import comfy.utils  # type: ignore[import-not-found]
import torch
from torch import nn

from .mixing import mix_in
from .ops import ComfyLinear

_WEIGHT = ".weight"


def answer_with_numbers(patcher: Any) -> None:
    """Have this ModelPatcher, its clones and its model give out numbers where weights are asked for to be read."""
    # ComfyUI measures a model by its table, once; the clones are told.
    patcher.model_size()
    for module in (patcher.model, patcher.model.diffusion_model):
        _answer(module)
    mix_in(patcher, _Reading)


class _Reading:
    """A ModelPatcher that answers with the numbers."""

    def patch_weight_to_device(
        self: Any,
        key: str,
        device_to: Any = None,
        inplace_update: bool = False,
        return_weight: bool = False,
        **others: Any,
    ) -> Any:
        if key.endswith(_WEIGHT):
            layer = comfy.utils.get_attr(self.model, key.removesuffix(_WEIGHT))
            if isinstance(layer, ComfyLinear):
                # Asked to change the weight, there is nothing to work out: the patches are computed beside it.
                return _patched(self, key, layer) if return_weight else None
        comfyuis: Any = super()
        return comfyuis.patch_weight_to_device(key, device_to, inplace_update, return_weight, **others)

    def model_state_dict(self: Any, filter_prefix: str | None = None) -> _Numbers:
        with self.use_ejected():
            kept = type(self.model).state_dict(self.model)
        table = _table(self.model, kept, lambda key, layer: lambda: _patched(self, key, layer))
        return _Numbers(item for item in table.kept() if item[0].startswith(filter_prefix or ""))

    def state_dict_for_saving(self: Any, *others: Any, **named_others: Any) -> Any:
        with _as_kept(self.model.diffusion_model):
            comfyuis: Any = super()
            return comfyuis.state_dict_for_saving(*others, **named_others)


def _patched(patcher: Any, key: str, layer: ComfyLinear) -> torch.Tensor:
    """What a layer's weight stands for, with the patches that this ModelPatcher has for it."""
    patches = patcher.patches.get(key, [])
    number = layer.convert_weight(layer.weight.detach().to(patcher.load_device))
    if patches:
        number = comfy.lora.calculate_weight(patches, number.to(torch.float32, copy=True), key)
    return number


def _answer(module: nn.Module) -> None:
    """Have `state_dict` of this module give numbers, with the patches that the model was loaded with."""
    known, kind = weakref.ref(module), type(module)

    def state_dict(*others: Any, destination: Any = None, **named_others: Any) -> Any:
        asked: Any = known()
        kept = kind.state_dict(asked, *others, destination=destination, **named_others)
        # A module around this one collects what is kept, and answers itself.
        if others or destination is not None:
            return kept
        return _table(asked, kept, lambda _, layer: layer.number, named_others.get("prefix", ""))

    module.state_dict = state_dict  # type: ignore[method-assign]


@contextmanager
def _as_kept(module: nn.Module) -> Iterator[None]:
    """Within this block the module's table gives what is kept, FP8 bytes and scales."""
    del module.state_dict
    try:
        yield
    finally:
        _answer(module)


@dataclass(frozen=True)
class _Later:
    """A weight that has not been worked out."""

    number: Callable[[], torch.Tensor]


def _table(
    module: nn.Module,
    kept: Mapping[str, Any],
    number: Callable[[str, ComfyLinear], Callable[[], torch.Tensor]],
    prefix: str = "",
) -> _Numbers:
    """The table of what is kept, with numbers in place of this pack's weights and scales."""
    table = dict(kept)
    for name, layer in module.named_modules(prefix=prefix.removesuffix(".")):
        key = f"{name}{_WEIGHT}"
        if isinstance(layer, ComfyLinear) and key in table:
            table[key] = _Later(number(key, layer))
            table.pop(f"{name}.weight_scale", None)
    return _Numbers(table)


class _Numbers(dict[str, Any]):
    """Tensors by name, each weight worked out when it is read, since together they would fill the memory.

    Copies and unions are such tables, too; what copies the values (`dict(table)`, pickling) works all of them out.
    """

    def __getitem__(self, key: str) -> Any:
        return _read(super().__getitem__(key))

    # Being there, it has `dict(table)` and `{**table}` ask for every value instead of copying what is kept.
    def __iter__(self) -> Iterator[str]:
        return super().__iter__()

    def kept(self) -> Iterator[tuple[str, Any]]:
        """What there is, not worked out."""
        return iter(super().items())

    def get(self, key: str, default: Any = None) -> Any:
        return _read(super().get(key, default))

    def setdefault(self, key: str, default: Any = None) -> Any:
        return _read(super().setdefault(key, default))

    def pop(self, key: str, *default: Any) -> Any:
        return _read(super().pop(key, *default))

    def popitem(self) -> tuple[str, Any]:
        key, value = super().popitem()
        return key, _read(value)

    def items(self) -> Any:
        return ItemsView(self)

    def values(self) -> Any:
        return ValuesView(self)

    def copy(self) -> _Numbers:
        return _Numbers(self.kept())

    __copy__ = copy

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    def update(self, *others: Any, **named: Any) -> None:
        for other in others:
            super().update(other.kept() if isinstance(other, _Numbers) else other)
        super().update(named)

    def __ior__(self, other: Any) -> _Numbers:  # type: ignore[override]
        self.update(other)
        return self

    def __or__(self, other: Any) -> Any:
        return _union(self, other) if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return _union(other, self) if isinstance(other, dict) else NotImplemented


def _union(*tables: dict[str, Any]) -> _Numbers:
    union = _Numbers()
    union.update(*tables)
    return union


def _read(value: Any) -> Any:
    return value.number() if isinstance(value, _Later) else value
