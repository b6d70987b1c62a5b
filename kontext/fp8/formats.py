"""The two 8-bit float formats: telling them from others, finding NaN in them, and what an input becomes in them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch

from .quantising import MAX_E4M3, quantised

E4M3 = torch.float8_e4m3fn
E5M2 = torch.float8_e5m2
FORMATS = {E4M3: "float8_e4m3fn", E5M2: "float8_e5m2"}
# Widening a signed byte copies its sign bit into bit 14 after the shift.
_WITHOUT_SIGN_COPY = ~(1 << 14)
# Of a picture of so many rows every eighth tells their mean closely enough.
_MANY, _EVERY = 4096, 8
# The smallest bit pattern, sign apart, that is no finite number.
_FIRST_NONFINITE = {E4M3: 0x7F, E5M2: 0x7C}


class Product(Enum):
    """Which scales a product of two FP8 matrices takes: one for each of their rows, or one for each of them."""

    ROWS = "row-wise"
    TENSOR = "tensor-wise"


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a float tensor, FP8 included, holds neither NaN nor infinity."""
    if tensor.numel() == 0:
        return True
    limit = _FIRST_NONFINITE.get(tensor.dtype)
    if limit is None:
        return bool(torch.isfinite(tensor).all())
    # torch has no FP8 comparisons, and the bit patterns are ordered: a maximum over the bytes read as signed
    # finds the positive ones, over the bytes read as unsigned the negative ones, without a copy of the weight.
    positive = int(tensor.view(torch.int8).max())
    negative = int(tensor.view(torch.uint8).max()) - 0x80
    return max(positive, negative) < limit


def quantise_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in FP8 (e4m3), each with its own scale, so that `quantised * scale` is `rows`.

    rows: [M, K] in any float type. Gives [M, K] e4m3 and [M, 1] float32.
    """
    return quantised(rows)


@dataclass(frozen=True)
class Rows:
    """A layer's input in FP8: row i is `quantised[i] * scale[i]`, plus `common[0]` where given.

    quantised: [M, K]. scale: [M, 1], or [] where one serves all rows. common: [16, K], all rows alike.
    """

    quantised: torch.Tensor
    scale: torch.Tensor
    common: torch.Tensor | None = None


def quantise_input(x: torch.Tensor, product: Product, *, centred: bool) -> tuple[Rows, ...]:
    """x [K], [M, K] or [B, ..., K] in FP8, each of the B pictures by itself.

    A picture must not depend on which others are in its batch. Rounding to FP8 makes much of little: from inputs that
    differ in the last digit, as products of more rows do on some devices, a few layers make different ones.
    """
    pictures = [picture.reshape(-1, x.shape[-1]) for picture in (x.unbind() if x.ndim > 2 else (x,))]
    return tuple(_centred(rows, product) if centred else Rows(*quantise_rows(rows)) for rows in pictures)


def _centred(rows: torch.Tensor, product: Product) -> Rows:
    """The rows [M, K] of one picture, of which the mean, as FP8 has it, is taken out first.

    FP8 rounds a number by up to a sixteenth of itself. What follows a layer norm and its shift is in part the same in
    all rows, and that part can be multiplied apart, once. It is only for such rows, which are all of one size: small
    ones among large would be rounded by the size of the mean. One scale serves them all where a product takes no more.
    """
    # Whatever is taken out is put back exactly, so it need not be quite the mean: reading all rows for it would be a
    # pass more over them, and a scale of its own for it several kernels. So large numbers end where FP8 does, and
    # below 0.002 none are taken out. A compiler would make a graph for few rows and one for many.
    some = rows[::_EVERY] if len(rows) >= _MANY and not torch.compiler.is_compiling() else rows
    mean = some.mean(dim=0, keepdim=True, dtype=torch.float32).clamp_(-MAX_E4M3, MAX_E4M3)
    # Kernels like 16 rows at least.
    common = torch.empty(16, rows.shape[1], dtype=E4M3, device=rows.device).copy_(mean)
    quantised_rows, scale = quantised(rows, common[:1].to(rows.dtype), together=product is Product.TENSOR)
    return Rows(quantised_rows, scale.view(()) if product is Product.TENSOR else scale, common)


def widen_apart(weight: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, int]:
    """FP8 numbers in a wider type and the factor still to be applied to them; exact in 16 and 32 bits."""
    if weight.dtype != E4M3 or not weight.is_cpu or torch.compiler.is_compiling():
        return weight.to(dtype), 1
    # torch converts FP8 one number at a time on a CPU; this is several times faster. Sign, exponent and mantissa
    # moved to their places in a half float give the same number, with an exponent bias of 15 instead of 7.
    # Times 128 is the shift by 7 that torch does with vectors: it is twice as fast.
    bits = weight.view(torch.int8).to(torch.int16).mul_(1 << 7).bitwise_and_(_WITHOUT_SIGN_COPY)
    return bits.view(torch.float16).to(dtype), 2**8


def widen(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """FP8 numbers in a wider type, unscaled."""
    wide, factor = widen_apart(weight, dtype)
    return wide if factor == 1 else wide.mul_(factor)


def dequantise(weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The numbers an FP8 weight stands for.

    weight: [N, K]. scale: float32, of shape [] (the whole weight) or [N] (each row). Multiplied in float32.
    """
    return (widen(weight, torch.float32) * (scale if scale.ndim == 0 else scale[:, None])).to(dtype)
