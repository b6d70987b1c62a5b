"""Products with an FP8 weight, as plain functions of tensors: what every mount's linear layer computes.

weight: [N, K] FP8. scale: float32 of shape [] or [N]. bias: [N] or None. x: [..., K]; results are [..., N] in x's
type.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from .formats import E4M3, Product, Rows, dequantise, widen_apart


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
    x: torch.Tensor,
    rows: tuple[Rows, ...],
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    product: Product,
) -> torch.Tensor:
    """The product in FP8. rows: x from `quantise_input` for the same product; the weight must fit (`fits_fp8`)."""
    if product is Product.ROWS:
        outs = [_row_wise(some, weight, scale, bias) for some in rows]
    else:
        wide = torch.float32 if x.dtype == torch.float32 else torch.bfloat16
        outs = [_tensor_wise(some, weight, scale, bias, wide) for some in rows]
    out = outs[0] if len(outs) == 1 else torch.cat(outs)
    return out.to(x.dtype).view(*x.shape[:-1], weight.shape[0])


def _row_wise(rows: Rows, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    # CUDA takes no scalar beside a row scale and no strided expansion of one: it must be written out.
    weight_scale = scale.expand(weight.shape[0]).contiguous()[None, :]
    if rows.common is not None:
        # What all rows share makes the same of the layer for each, and a bias costs nothing.
        ones = weight_scale.new_ones(len(rows.common), 1)
        bias = _product(rows.common, weight, ones, weight_scale, bias)[0]
    return _product(rows.quantised, weight, rows.scale, weight_scale, bias)


def _tensor_wise(
    rows: Rows, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """With one scale for each factor; those of single rows, of the input or the weight, go onto the output."""
    needs_one = scale.ndim or rows.scale.ndim or rows.common is not None
    one = scale.new_ones(()) if needs_one else scale
    fixed = one if scale.ndim else scale
    if rows.common is not None:
        # By itself, with what this function does for rows of one scale.
        bias = _tensor_wise(Rows(rows.common, one), weight, scale, bias, dtype)[0]
    # No kernel adds a bias to float32.
    if not (scale.ndim or rows.scale.ndim or dtype == torch.float32):
        return _product(rows.quantised, weight, rows.scale, fixed, bias)
    # bfloat16 reaches as far as float32, so that what is not scaled yet cannot overflow.
    out = _product(rows.quantised, weight, one if rows.scale.ndim else rows.scale, fixed, dtype=dtype)
    return _scaled(out, [by_row for by_row in (rows.scale, scale) if by_row.ndim], bias)


def _scaled(out: torch.Tensor, scales: list[torch.Tensor], bias: torch.Tensor | None) -> torch.Tensor:
    """`out` times all the scales, which must have dimensions, plus the bias; in place, the last two in one pass."""
    # A CPU would make 32-bit copies of it all, and a compiler joins passes by itself.
    if bias is None or not scales or out.is_cpu or torch.compiler.is_compiling():
        for scale in scales:
            out.mul_(scale)
        return out if bias is None else out.add_(bias)
    for scale in scales[:-1]:
        out.mul_(scale)
    return torch.addcmul(bias, out, scales[-1], out=out)


def _product(
    left: torch.Tensor,
    weight: torch.Tensor,
    left_scale: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> torch.Tensor:
    # CUDA's row-wise kernels write bfloat16 only, and take a bias only of that type.
    fused = None if bias is None else bias.to(torch.bfloat16)
    return torch._scaled_mm(left, weight.t(), scale_a=left_scale, scale_b=weight_scale, bias=fused, out_dtype=dtype)


def widened(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    reference: bool = False,
    number: float | None = None,
) -> torch.Tensor:
    """The product in x's type. reference: the weight is written out in full, else the scale goes onto the output.

    number: the scale of a whole weight as a number, where known without asking a device.
    """
    bias = None if bias is None else bias.to(x.dtype)
    if reference:
        return functional.linear(x, dequantise(weight, scale, x.dtype), bias)
    wide, factor = widen_apart(weight, x.dtype)
    # Without dimensions a scale would be rounded to the other factor's type first.
    by_row = (scale if factor == 1 else scale * factor).reshape(-1)
    if x.dtype == torch.float16:
        # Half floats end at 65504, which unscaled products pass easily: the weight is scaled first, where it lies.
        return functional.linear(x, wide.mul_(by_row[:, None]), bias)
    # A compiler would make a new graph for every layer's number.
    if bias is not None and scale.ndim == 0 and not torch.compiler.is_compiling():
        # On a CPU reading the scale waits for nothing.
        number = scale.item() if scale.is_cpu else number
        if number is not None:
            # The product applies scale and bias on its way out: two passes over the output less, and rounded once.
            flat = torch.addmm(bias, x.reshape(-1, x.shape[-1]), wide.t(), alpha=number * factor)
            return flat.view(*x.shape[:-1], weight.shape[0])
    return _scaled(functional.linear(x, wide), [by_row], bias)
