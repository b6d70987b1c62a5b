"""Products with an FP8 weight, as plain functions of tensors: what every mount's linear layer computes.

weight: [N, K] FP8. scale: float32 of shape [] or [N]. bias: [N] or None. x: [..., K]; results are [..., N] in x's
type.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from .formats import E4M3, Rows, dequantise, widen_apart


def fits_fp8(weight: torch.Tensor) -> bool:
    """Whether a weight can be multiplied in FP8, on a device that can do it at all."""
    # What CUDA demands of row-wise scaling and a CPU does not: e4m3 weights, a second factor that is
    # column-major, sizes in multiples of 16 (so that slices of rows start on 16 bytes, too).
    n, k = weight.shape
    return weight.dtype == E4M3 and n % 16 == 0 and k % 16 == 0 and weight.is_contiguous()


def rows_of(
    rows: slice, weight: torch.Tensor, scale: torch.Tensor | None, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Those rows of a layer's weight, with their scale and bias; views of what is given."""
    by_row = scale is not None and scale.ndim > 0
    return weight[rows], scale[rows] if scale is not None and by_row else scale, None if bias is None else bias[rows]


def scaled_mm(
    x: torch.Tensor, rows: tuple[Rows, ...], weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """The product in FP8. rows: x from `quantise_input`; the weight must fit (`fits_fp8`)."""
    outs = [_row_wise(some, weight, scale, bias) for some in rows]
    out = outs[0] if len(outs) == 1 else torch.cat(outs)
    return out.to(x.dtype).view(*x.shape[:-1], weight.shape[0])


def _row_wise(rows: Rows, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    # CUDA takes no scalar beside a row scale and no strided expansion of one: it must be written out.
    weight_scale = scale.expand(weight.shape[0]).contiguous()[None, :]

    def product(left: torch.Tensor, left_scale: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        # CUDA's row-wise kernels write bfloat16 only, and take a bias only of that type.
        return torch._scaled_mm(
            left, weight.t(), scale_a=left_scale, scale_b=weight_scale, bias=bias, out_dtype=torch.bfloat16
        )

    if rows.mean is not None and rows.mean_scale is not None:
        # The mean's share is the same for all rows, and a bias costs nothing.
        shared = product(rows.mean, rows.mean_scale).float().sum(dim=0)
        bias = shared if bias is None else shared + bias
    fused = None if bias is None else bias.to(torch.bfloat16)
    return product(rows.quantised, rows.scale, fused)


def widened(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, *, reference: bool = False
) -> torch.Tensor:
    """The product in x's type. reference: the weight is written out in full, else the scale goes onto the output."""
    bias = None if bias is None else bias.to(x.dtype)
    # Half floats end at 65504, which unscaled FP8 products pass easily: there the weight is scaled first.
    if reference or x.dtype == torch.float16:
        return functional.linear(x, dequantise(weight, scale, x.dtype), bias)
    wide, factor = widen_apart(weight, x.dtype)
    if bias is not None and scale.is_cpu and scale.ndim == 0 and not torch.compiler.is_compiling():
        # On a CPU reading the scale waits for nothing, and the product can apply it and the bias on its way out.
        flat = torch.addmm(bias, x.reshape(-1, x.shape[-1]), wide.t(), alpha=scale.item() * factor)
        return flat.view(*x.shape[:-1], weight.shape[0])
    out = functional.linear(x, wide).mul_(scale if factor == 1 else scale * factor)
    return out if bias is None else out.add_(bias)
