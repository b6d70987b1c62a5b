"""The layers that ComfyUI builds its Flux from here: FP8 bytes stay the file's, LoRA stays beside them.

ComfyUI's memory managers keep doing what they do with `weight` and `bias`: load, offload, pin, stream, fault in. What
they may not do is change an FP8 weight: merging a LoRA into FP8 rounds most of it away. So a patch that reaches a
weight here changes nothing, and the same patch is computed beside the layer (patches.py says when).

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import comfy.cli_args  # type: ignore[import-not-found]
import comfy.lora  # type: ignore[import-not-found]
import comfy.model_management  # type: ignore[import-not-found]
import comfy.model_patcher  # type: ignore[import-not-found]
import comfy.ops  # type: ignore[import-not-found]
import torch
from torch import nn
from torch.nn import functional

from ..errors import BadRequest
from ..fp8.branches import Branch, Joined
from ..fp8.compute import Compute
from ..fp8.devices import SINCE_ADA, Ability, ability, multiply, name_of, require_fp8_there
from ..fp8.formats import FORMATS, dequantise
from ..fp8.products import fits_fp8, rows_of, widened
from .steps import Steps

logger = logging.getLogger(__name__)

_NAMES = ("weight", "weight_scale", "bias")

UNSAVEABLE = (
    "A LoRA or a merge cannot be saved into FP8 weights: rounding would take most of it away. Save the model without "
    "it, and put it on again after loading."
)


# A dictionary and no cached function: a compiler can look into it without leaving its graph.
_REFUSED: dict[torch.device, Ability | None] = {}


def fp8_on(device: torch.device) -> Ability:
    """What the device can, if ComfyUI too says that it multiplies FP8: so `--supports-fp8-compute` is heard."""
    if device not in _REFUSED:
        why = f"ComfyUI says that {name_of(device)} has none with torch {torch.__version__} ({SINCE_ADA})"
        _REFUSED[device] = None if _comfyui_allows(device) else Ability(None, why)
    return _REFUSED[device] or ability(device)


def _comfyui_allows(device: torch.device) -> bool:
    if device.type == "cuda" and torch.version.hip is None:
        return bool(comfy.model_management.supports_fp8_compute(device))
    # It knows NVIDIA's GPUs only, so AMD's are tried. What it has found out of those says nothing of a CPU beside them,
    # where FP8 is slower than widening: there it must have been told so.
    return device.type == "cuda" or bool(comfy.cli_args.args.supports_fp8_compute)


@dataclass(frozen=True)
class Plan:
    """What is settled for a layer when its model is loaded.

    compute: Compute.FP8 where it is demanded, AUTO where each device is to do what it can, or STORAGE. full_precision:
    whether the file asks for the latter. centred: whether the input comes from a layer norm. number: the scale of the
    whole weight as a number, for reading it from a GPU would make the computer wait. among_fp8: whether other layers of
    the model may multiply in FP8. compiled: whether the model's blocks are. always_read: where some rows' outputs are
    not all read, how many first outputs are read of every row; the others come out as zeros.
    """

    compute: Compute = Compute.STORAGE
    full_precision: bool = False
    centred: bool = False
    number: float | None = None
    among_fp8: bool = False
    compiled: bool = False
    always_read: int | None = None


@dataclass(frozen=True)
class Patches:
    """ComfyUI's patches of a layer's weight: all of them `beside` it, or else all of them `dense`.

    dense: at least one is no plain LoRA, and the weight is written out and patched at each use. made_for: what they
    were made for. settled: whether it has been tried to have `beside` lie where a GPU can fetch it by itself.
    """

    beside: Joined | None = None
    dense: tuple[Any, ...] = ()
    made_for: object = None
    settled: bool = False

    def __bool__(self) -> bool:
        return bool(self.beside or self.dense)

    def moved(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> Patches:
        """The same with the matrices moved or cast."""
        if self.beside is None:
            return self
        beside = self.beside.moved(fn)
        # A model that is cast for good computes in another type than they were made for.
        made_for = self.made_for if beside.down.dtype == self.beside.down.dtype else None
        return Patches(beside, self.dense, made_for)


def _fetchable(beside: Joined) -> Joined:
    """The LoRA in memory that a GPU can read by itself, where ComfyUI has such for the weights."""
    # torch gives it back when the last tensor is gone; what ComfyUI pins would have to be unpinned by hand.
    if comfy.model_management.MAX_PINNED_MEMORY <= 0:
        return beside
    try:
        return beside.moved(lambda tensor: tensor if tensor.is_pinned() else tensor.pin_memory())
    except RuntimeError as error:
        logger.info("A LoRA stays in ordinary memory, from where copies take longer: %s", error)
        return beside


class ComfyLinear(nn.Module, comfy.ops.CastWeightBiasOp):  # type: ignore[misc]
    """ComfyUI's linear layer: weight [N, K] FP8 or wide, weight_scale [] or [N] exactly with FP8, bias [N] or None.

    plan, steps: given once, when the model is loaded (`begin`). patches: given whenever it is patched (`patch`).
    """

    comfy_cast_weights = True
    weight: nn.Parameter
    weight_scale: nn.Parameter | None
    bias: nn.Parameter | None
    weight_function: list[Any]
    bias_function: list[Any]
    weight_lowvram_function: Any

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        # Nothing is allocated before the file's own tensors are taken over: they are memory-mapped.
        for name in _NAMES:
            self.register_parameter(name, None)
        self.begin(Plan())
        self.patch(Patches())

    def begin(self, plan: Plan, steps: Steps | None = None) -> None:
        """steps: where a modulation layer finds its outputs, and one with always_read the rows that are read whole."""
        self.plan = plan
        self.steps = steps

    def patch(self, patches: Patches) -> None:
        """Have these patches, and no others, change what the layer computes."""
        self.patches = patches
        if self.plan.compiled and patches.beside is not None:
            # Only here, for it takes seconds.
            from torch._dynamo import maybe_mark_dynamic

            # To a compiler the rank of a LoRA is one of many then, and another one no reason to compile again.
            maybe_mark_dynamic(patches.beside.down, 0)
            for up in patches.beside.ups:
                maybe_mark_dynamic(up, 1)

    @property
    def branches(self) -> tuple[Branch, ...]:
        return tuple(self.patches.beside or ())

    @property
    def dense(self) -> tuple[Any, ...]:
        return self.patches.dense

    def _load_from_state_dict(
        self,
        state_dict: dict[str, torch.Tensor],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        for name in _NAMES:
            tensor = state_dict.get(prefix + name)
            if tensor is not None:
                setattr(self, name, nn.Parameter(tensor, requires_grad=False))
        if self.weight is None:
            missing_keys.append(f"{prefix}weight")

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, {self.weight.dtype}, {self.plan.compute.value}"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> ComfyLinear:
        """Move or cast the layer; `.to(dtype)` must neither widen FP8 bytes nor round their scales."""

        def careful(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.dtype not in FORMATS and tensor is not self.weight_scale:
                return fn(tensor)
            device = fn(tensor.new_empty(0, dtype=torch.float32)).device
            if tensor.dtype in FORMATS:
                require_fp8_there(device)
            return tensor.to(device)

        super()._apply(careful, recurse)  # type: ignore[no-untyped-call]
        self.patch(self.patches.moved(fn))
        return self

    def state_dict(self, *others: Any, destination: Any = None, **named_others: Any) -> Any:
        """What the layer keeps. Asked by itself, as ComfyUI does to learn what it takes to move it, with its LoRA."""
        kept = super().state_dict(*others, destination=destination, **named_others)
        if self.patches.beside is not None and destination is None and not others:
            kept.update({f"beside.{i}": tensor for i, tensor in enumerate(self.patches.beside.tensors)})
        return kept

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output [..., N] for x [..., K], in x's type."""
        comfy.ops.run_every_op()
        if self.steps is None:
            return self._compute(x)
        if self.plan.always_read is None:
            return self.steps.look_up(self, x, self._compute)
        return self._compute(x, self.steps.rows_read_whole(x))

    def _compute(self, x: torch.Tensor, rows: slice | None = None) -> torch.Tensor:
        if self._is_settled(x):
            out = self._product(x, self.weight, None if self.bias is None else self.bias.to(x.dtype), rows)
        else:
            wrappers = [f for f in self.weight_function if not isinstance(f, comfy.model_patcher.LowVramPatch)]
            with self._resident(x) as (weight, bias):
                if wrappers or self.dense:
                    full = self._written_out(weight, x, wrappers)
                    return self._each_by_itself(x, lambda pictures: functional.linear(pictures, full, bias))
                out = self._product(x, weight, bias, rows)
        if self.patches.beside is not None:
            self._brought(self.patches.beside, x.device).add_to(out, x)
        return out

    def _brought(self, beside: Joined, device: torch.device) -> Joined:
        """The LoRA on the device, for one use where it lies beside a weight that had no room there."""
        if beside.down.device == device:
            return beside
        if not (self.patches.settled or torch.compiler.is_compiling()):
            beside = _fetchable(beside)
            self.patch(replace(self.patches, beside=beside, settled=True))
        # A copy that is waited for would have the GPU run dry at each of the layers.
        non_blocking = comfy.model_management.device_supports_non_blocking(device)
        return beside.moved(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _is_settled(self, x: torch.Tensor) -> bool:
        """Whether the weights lie ready beside x, with nobody about to change or move them."""
        return (
            not (self.weight_function or self.bias_function or self.dense)
            and not hasattr(self, "_v")
            and self.weight.device == x.device
            and (self.bias is None or self.bias.device == x.device)
        )

    def _product(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, rows: slice | None
    ) -> torch.Tensor:
        """The layer's output without LoRA. rows: of x, those of which all outputs are read; None for every row."""
        scale = None if self.weight_scale is None else self.weight_scale.to(x.device, non_blocking=True)
        always = self.plan.always_read
        if rows is None or always is None:
            return self._multiply(x, weight, scale, bias)
        out = x.new_empty(*x.shape[:-1], self.out_features)
        for unread in slice(0, rows.start), slice(rows.stop, None):
            out[:, unread, always:] = 0
        for at, outputs in (slice(None), slice(0, always)), (rows, slice(always, self.out_features)):
            if outputs.start < outputs.stop:
                out[:, at, outputs] = self._multiply(x[:, at], *rows_of(outputs, weight, scale, bias))
        return out

    def _multiply(
        self, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor | None, bias: torch.Tensor | None
    ) -> torch.Tensor:
        plan = self.plan
        demanded = plan.compute is Compute.FP8
        can = scale is not None and plan.compute is not Compute.STORAGE and fits_fp8(weight)
        found = fp8_on(x.device) if can else None
        if scale is not None and found is not None and (found.product is not None or demanded):
            inputs = (x, weight, scale, bias, found.required(plan.centred))
            return multiply(*inputs, centred=plan.centred, demanded=demanded, number=plan.number)
        if scale is None:
            return self._each_by_itself(x, lambda pictures: functional.linear(pictures, weight.to(x.dtype), bias))
        return self._each_by_itself(x, lambda pictures: widened(pictures, weight, scale, bias, number=plan.number))

    def _each_by_itself(self, x: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """What this layer makes of the pictures x [B, ..., K], one by one where other layers multiply in FP8."""
        # More rows at once may differ in the last digit, and FP8 products make much of it.
        if len(x) > 1 and self.plan.among_fp8 and fp8_on(x.device).product is not None:
            return torch.cat([compute(picture) for picture in x.chunk(len(x))])
        return compute(x)

    @contextmanager
    def _resident(self, x: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """The weight as it is stored and the bias in x's type, both where x is, for as long as the block lasts."""
        if self.weight.dtype in FORMATS:
            require_fp8_there(x.device)
        # ComfyUI would call these on FP8 numbers without their scale.
        functions, self.weight_function = self.weight_function, []
        try:
            weight, bias, stream = comfy.ops.cast_bias_weight(
                self, dtype=self.weight.dtype, device=x.device, bias_dtype=x.dtype, offloadable=True
            )
        finally:
            self.weight_function = functions
        try:
            yield weight, bias
        finally:
            comfy.ops.uncast_bias_weight(self, weight, bias, stream)

    def _written_out(self, weight: torch.Tensor, x: torch.Tensor, wrappers: list[Any]) -> torch.Tensor:
        full = self._patched(weight)
        if full.shape != weight.shape:
            raise BadRequest(
                f"A LoRA changes a layer from {list(weight.shape)} to {list(full.shape)}: it is for one of FLUX's "
                "structure controls (Canny, Depth) and cannot be used with Kontext. Take it out."
            )
        full = full.to(x.dtype)
        for function in wrappers:
            full = function(full)
        return full

    def _patched(self, weight: torch.Tensor) -> torch.Tensor:
        """The numbers that `weight` stands for, in float32, with all patches."""
        full = self.convert_weight(weight).to(torch.float32, copy=self.weight_scale is None)
        if self.dense:
            full = comfy.lora.calculate_weight(list(self.dense), full, "", intermediate_dtype=torch.float32)
        for branch in self.branches:
            branch.add_to_weight(full)
        return full

    def number(self) -> torch.Tensor:
        """The numbers that this layer multiplies by: its weight's, with its patches."""
        weight = self.weight.detach()
        return self._patched(weight) if self.patches else self.convert_weight(weight)

    def convert_weight(self, weight: torch.Tensor, inplace: bool = False, **_: Any) -> torch.Tensor:
        """What ComfyUI asks for to read a weight, when merging models for one: the numbers that `weight` stands for."""
        if self.weight_scale is None:
            return weight
        dtype = torch.float32 if weight.dtype in FORMATS else weight.dtype
        return dequantise(weight, self.weight_scale.to(weight.device), dtype)

    def set_weight(
        self, weight: torch.Tensor, inplace_update: bool = False, seed: Any = None, return_weight: bool | None = None
    ) -> None:
        """What ComfyUI calls with a weight that it has patched: left as it is, the patch is computed beside it.

        Raises BadRequest where ComfyUI needs the changed weight itself, to schedule a LoRA by hooks; and where it is
        asked for it past numbers.py.
        """
        if return_weight is None:
            raise BadRequest(
                "This model's weights are FP8, and a LoRA that is scheduled by hooks would be rounded away in them. "
                "Take Create Hook LoRA out, and use Kontext LoRA or Load LoRA before the sampler."
            )
        if return_weight:
            raise BadRequest(UNSAVEABLE)

    def set_weight_scale(
        self, scale: torch.Tensor, inplace_update: bool = False, seed: Any = None, return_weight: bool | None = None
    ) -> torch.Tensor | None:
        """What ComfyUI calls with a scale that it has moved or merged: the file's stays, moved to the same device.

        The merge of two models is that of the numbers their weights stand for, and is computed beside the layer.
        """
        assert self.weight_scale is not None
        kept = self.weight_scale.data.to(scale.device)
        if return_weight:
            return kept
        self.weight_scale = nn.Parameter(kept, requires_grad=False)
        return None


class RMSNorm(comfy.ops.manual_cast.RMSNorm):  # type: ignore[misc]
    """ComfyUI's RMS norm, its scale kept in the file's own number format."""

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *rest: Any) -> None:
        self.weight = nn.Parameter(state_dict[f"{prefix}weight"], requires_grad=False)


class Operations(comfy.ops.manual_cast):  # type: ignore[misc]
    """What to give to ComfyUI as `custom_operations`."""

    Linear = ComfyLinear
    RMSNorm = RMSNorm
