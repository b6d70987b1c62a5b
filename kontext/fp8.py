"""The two 8-bit float formats: telling them from others, finding NaN in them, and quantising rows into them."""

from __future__ import annotations

import torch

E4M3 = torch.float8_e4m3fn
E5M2 = torch.float8_e5m2
FORMATS = {E4M3: "float8_e4m3fn", E5M2: "float8_e5m2"}
MAX_E4M3 = 448.0
# The smallest scale given to a row: an all-zero row must not divide by zero.
_TINY = 1e-12
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
    scale = rows.abs().amax(dim=-1, keepdim=True).float().div_(MAX_E4M3).clamp_(min=_TINY)
    # The cast itself turns what lies above the largest number into NaN, so rounding past it must be clamped.
    return (rows.float() / scale).clamp_(-MAX_E4M3, MAX_E4M3).to(E4M3), scale


def dequantise(weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The numbers an FP8 weight stands for.

    weight: [N, K]. scale: float32, of shape [] (the whole weight) or [N] (each row). Multiplied in float32.
    """
    return (weight.to(torch.float32) * (scale if scale.ndim == 0 else scale[:, None])).to(dtype)
