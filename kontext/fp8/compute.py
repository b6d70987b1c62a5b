"""The linear layer of the local side: FP8 or wider weights, three ways to multiply, LoRA beside them.

The FP8 bytes are the file's, in every mode and on every device:

* `Compute.FP8`: the input is quantised as it comes and multiplied in FP8 (`torch._scaled_mm`).
* `Compute.STORAGE`: FP8 is only how the weight is kept; it is widened for the product and the scale is applied
  to the output, which is exact and cheaper than scaling the weight.
* `Compute.REFERENCE`: the weight is written out in full first. What the other two are checked against.
* `Compute.AUTO`: FP8 where the device can, else STORAGE.

There is neither diffusers nor ComfyUI in here, so either can mount it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import torch
from torch import nn
from torch.nn import functional

from ..errors import NonFinite
from .branches import Branch, Shift
from .devices import ability, multiply, require_fp8_there
from .formats import FORMATS, Product, Rows, is_finite, quantise_input, widen
from .products import fits_fp8, widened

# `exact` widens at most this many numbers of a weight at a time.
_EXACT_CHUNK = 16_000_000


class Compute(Enum):
    """How an FP8 weight is multiplied."""

    AUTO = "auto"
    FP8 = "fp8"
    STORAGE = "storage"
    REFERENCE = "reference"


class Linear(nn.Module):
    """`nn.Linear` whose weight may be FP8 with a scale, and which can carry LoRA branches.

    weight: [N, K], FP8 or 16/32-bit float. scale: float32 of shape [] or [N], given exactly when weight is FP8.
    bias: [N] or None. centred: whether x comes from a layer norm (see `quantise_input`). Moving the module moves
    everything; casting it casts all but FP8 weights and scales.
    """

    weight: torch.Tensor
    scale: torch.Tensor | None
    bias: torch.Tensor | None

    def __init__(
        self,
        weight: torch.Tensor,
        scale: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        compute: Compute = Compute.AUTO,
        *,
        centred: bool = False,
    ) -> None:
        super().__init__()
        if (weight.dtype in FORMATS) != (scale is not None):
            raise ValueError(f"a weight of {weight.dtype} and a scale of {scale} do not belong together")
        if scale is not None and scale.shape not in ((), weight.shape[:1]):
            raise ValueError(f"a scale of shape {tuple(scale.shape)} fits no weight of shape {tuple(weight.shape)}")
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.compute = compute
        self.centred = centred
        # Read here once: read at every step it would make the computer wait for the GPU.
        is_number = scale is not None and scale.ndim == 0 and not scale.is_meta
        self.number = scale.item() if scale is not None and is_number else None
        self.branches: dict[str, list[Branch | Shift]] = {}

    @property
    def in_features(self) -> int:
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    def extra_repr(self) -> str:
        kind = FORMATS.get(self.weight.dtype, str(self.weight.dtype).removeprefix("torch."))
        return f"{self.in_features} -> {self.out_features}, {kind}, {self.compute.value}"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Linear:
        """Move or cast the module; `.to(dtype)` must neither widen FP8 bytes nor round their scales."""
        kept = {}
        if self.scale is not None:
            device = fn(self.scale.new_empty(0)).device
            require_fp8_there(device)
            kept = {name: self._buffers.pop(name) for name in ("weight", "scale")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, tensor in kept.items():
            self._buffers[name] = None if tensor is None else tensor.to(device)
        self.branches = {name: [branch.moved(fn) for branch in branches] for name, branches in self.branches.items()}
        return self

    def forward(self, x: torch.Tensor, rows: tuple[Rows, ...] | None = None) -> torch.Tensor:
        """The layer's output [..., N] for x [..., K], in x's type.

        rows: x already quantised (see `project`). Raises UnsupportedDevice if Compute.FP8 was demanded of a
        device that has none.
        """
        if self.scale is None:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            out = functional.linear(x, self.weight.to(x.dtype), bias)
        elif product := self.product(x):
            demanded = self.compute is Compute.FP8
            out = multiply(
                *(x, self.weight, self.scale, self.bias, product),
                centred=self.centred,
                demanded=demanded,
                rows=rows,
                number=self.number,
            )
        else:
            reference = self.compute is Compute.REFERENCE
            out = widened(x, self.weight, self.scale, self.bias, reference=reference, number=self.number)
        for branches in self.branches.values():
            for branch in branches:
                branch.add_to(out, x)
        return out

    def product(self, x: torch.Tensor) -> Product | None:
        """The FP8 product that this layer multiplies x with, if any."""
        if self.scale is None or self.compute in (Compute.STORAGE, Compute.REFERENCE) or not fits_fp8(self.weight):
            return None
        if self.compute is Compute.FP8:
            return ability(x.device).required(self.centred)
        # On a CPU FP8 products are several times slower than widening the weight.
        return ability(x.device).of(self.centred) if x.is_cuda else None

    def multiplies_fp8(self, x: torch.Tensor) -> bool:
        """Whether this layer multiplies x in FP8."""
        return self.product(x) is not None

    def exact(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output in float32, a few rows of the weight at a time, whatever `compute` says.

        x: [M, K] float32, on any device; the weight follows it there piece by piece and stays where it is.
        """
        out = x.new_empty(x.shape[0], self.out_features)
        step = max(1, _EXACT_CHUNK // self.in_features)
        for start in range(0, self.out_features, step):
            rows = slice(start, start + step)
            torch.mm(x, widen(self.weight[rows].to(x.device), x.dtype).t(), out=out[:, rows])
        if self.scale is not None:
            out.mul_(self.scale.to(x.device))
        if self.bias is not None:
            out.add_(self.bias.to(x.device, x.dtype))
        for branches in self.branches.values():
            for branch in branches:
                branch.add_to(out, x)
        return out


def project(x: torch.Tensor, *linears: Linear) -> list[torch.Tensor]:
    """What each layer makes of the same x, which is quantised at most once for all of them."""
    rows: tuple[Rows, ...] | None = None
    outputs = []
    for linear in linears:
        product = linear.product(x) if rows is None else None
        if product is not None:
            rows = quantise_input(x, product, centred=linear.centred)
        outputs.append(linear(x, rows))
    return outputs


def require_finite(tensor: torch.Tensor, what: str) -> torch.Tensor:
    """The tensor itself. Raises NonFinite, naming `what`, if it holds NaN or infinity."""
    if not is_finite(tensor):
        raise NonFinite(f"{what} holds NaN or infinity: the file is damaged. Download it again.")
    return tensor


def multiplies_fp8_rows(device: torch.device) -> bool:
    """Whether the device multiplies rows of FP8, with whichever product; found out by doing it once."""
    return ability(device).product is not None
