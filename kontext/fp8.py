"""The two 8-bit float formats: telling them from others, finding NaN in them, and quantising rows into them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

E4M3 = torch.float8_e4m3fn
E5M2 = torch.float8_e5m2
FORMATS = {E4M3: "float8_e4m3fn", E5M2: "float8_e5m2"}
MAX_E4M3 = 448.0
# The smallest scale given to a row: an all-zero row must not divide by zero.
_TINY = 1e-12
# What kernels for FP8 products like to have at least.
_FEWEST_ROWS = 16
# Widening a signed byte copies its sign bit into bit 14 after the shift.
_WITHOUT_SIGN_COPY = ~(1 << 14)
# The smallest bit pattern, sign apart, that is no finite number.
_FIRST_NONFINITE = {E4M3: 0x7F, E5M2: 0x7C}


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
    scale = _sizes(rows).div_(MAX_E4M3).clamp_(min=_TINY)
    # The largest number of a row may be one rounding above MAX_E4M3, which the cast takes down again.
    return (rows / scale).to(E4M3), scale


def _sizes(rows: torch.Tensor) -> torch.Tensor:
    """The largest absolute number of each row [M, K], float32 [M, 1], in one reading."""
    sizes: torch.Tensor = torch.linalg.vector_norm(rows, ord=torch.inf, dim=-1, keepdim=True, dtype=torch.float32)
    return sizes


@dataclass(frozen=True)
class Centred:
    """Rows in FP8 around their mean: row i is `quantised[i] * scale[i]` plus the sum of `mean * mean_scale`.

    quantised: [M, K]. scale: [M, 1]. mean: [16, K], of which all but the first rows are zero. mean_scale: [16, 1].
    """

    quantised: torch.Tensor
    scale: torch.Tensor
    mean: torch.Tensor
    mean_scale: torch.Tensor


def quantise_centred(rows: torch.Tensor) -> Centred:
    """Rows [M, K] in FP8, what they have in common taken out first and kept to twice the digits.

    FP8 rounds a number by up to a sixteenth of itself. What a layer of FLUX sees is in good part the same for all
    tokens: a block's shift, the mean of a GELU, what attention averages. That part is multiplied apart, once.
    """
    mean = _typical(rows)
    quantised, scale = quantise_rows(rows - mean)
    first, first_scale = quantise_rows(mean.float())
    second, second_scale = quantise_rows(mean.float() - first.float() * first_scale)
    none = first.new_zeros(_FEWEST_ROWS - 2, first.shape[1])
    return Centred(
        quantised,
        scale,
        torch.cat([first, second, none]),
        torch.cat([first_scale, second_scale, first_scale.new_ones(_FEWEST_ROWS - 2, 1)]),
    )


def _typical(rows: torch.Tensor) -> torch.Tensor:
    """The mean of rows [M, K] as [1, K], in which those that are larger than most count for little.

    A few of FLUX's tokens are a thousand times as large as the others, which their plain mean would blur.
    """
    size = _sizes(rows).clamp_(min=_TINY)
    usual = size.median()
    weight = (usual / size.maximum(usual)).square()
    return (weight / weight.sum()).to(rows.dtype).t() @ rows


def widen_apart(weight: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, int]:
    """FP8 numbers in a wider type and the factor still to be applied to them; exact in 16 and 32 bits."""
    if weight.dtype != E4M3 or not weight.is_cpu or torch.compiler.is_compiling():
        return weight.to(dtype), 1
    # torch converts FP8 one number at a time on a CPU; this is several times faster. Sign, exponent and mantissa
    # moved to their places in a half float give the same number, with an exponent bias of 15 instead of 7.
    bits = weight.view(torch.int8).to(torch.int16).bitwise_left_shift_(7).bitwise_and_(_WITHOUT_SIGN_COPY)
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
