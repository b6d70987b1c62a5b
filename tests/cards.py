"""Kinds of GPU that artists have, and what the FP8 products of CUDA take, which is less than a CPU's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from kontext_bridge.kontext.fp8.formats import FORMATS, Product


@dataclass(frozen=True)
class Card:
    """A kind of GPU.

    row_wise: whether its torch was built with row-wise FP8 products, which none for Windows is. faster: the product
    that is measured to be the faster one. triton: whether a compiler joins what quantises, as on Linux by default.
    """

    name: str
    capability: tuple[int, int] = (0, 0)
    kind: str = "cuda"
    row_wise: bool = True
    tensor_wise: bool = True
    holds_fp8: bool = True
    faster: Product = Product.ROWS
    triton: bool = False
    memory: int = 24 * 2**30


RTX_20 = Card("RTX 2080 Ti", (7, 5))
RTX_30 = Card("RTX 3090", (8, 6))
RTX_40 = Card("RTX 4090", (8, 9))
RTX_40_ON_WINDOWS = Card("RTX 4090 on Windows", (8, 9), row_wise=False)
RTX_40_WITH_TRITON = Card("RTX 4090 with Triton", (8, 9), triton=True)
RTX_40_ON_WINDOWS_WITH_TRITON = Card("RTX 4090 on Windows with Triton", (8, 9), row_wise=False, triton=True)
RTX_40_BY_TENSOR = Card("RTX 4090, tensor-wise the faster", (8, 9), faster=Product.TENSOR)
HOPPER = Card("H100", (9, 0))
RTX_50 = Card("RTX 5090", (12, 0))
RTX_50_ON_WINDOWS = Card("RTX 5090 on Windows", (12, 0), row_wise=False)
MAC = Card("Mac", kind="mps", row_wise=False, tensor_wise=False, holds_fp8=False)
CARDS = (RTX_20, RTX_30, RTX_40, RTX_40_ON_WINDOWS, RTX_40_BY_TENSOR, HOPPER, RTX_50, RTX_50_ON_WINDOWS)


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RuntimeError(otherwise)


def check_scaled_mm(
    card: Card,
    left: torch.Tensor,
    right: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale_result: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
) -> None:
    """Raises RuntimeError where CUDA would (aten/src/ATen/native/cuda/ScaledBlas.cpp), a CPU or not."""
    require(card.capability >= (8, 9), "torch._scaled_mm is only supported on compute capability >= 9.0 or 8.9")
    (m, k), (depth, n) = left.shape, right.shape
    require(k == depth, f"factors of {k} columns and {depth} rows")
    require(left.dtype in FORMATS and right.dtype in FORMATS, "a factor is not FP8")
    require(torch.float8_e4m3fn in (left.dtype, right.dtype), "e5m2 by e5m2 is not supported")
    require(left.stride(1) == 1 and left.stride(0) >= k, f"the left factor is not row-major: {left.stride()}")
    require(right.stride(0) == 1 and right.stride(1) >= k, f"the right factor is not column-major: {right.stride()}")
    require(k % 16 == 0 and n % 16 == 0, f"[{k}, {n}] is not in multiples of 16")
    for factor, name in (left, "left"), (right, "right"):
        require(factor.storage_offset() % 16 == 0, f"the {name} factor does not start on 16 bytes")
    wide = out_dtype or left.dtype
    by_row = scale_a.numel() > 1 or scale_b.numel() > 1
    for scale in scale_a, scale_b:
        require(scale.dtype == torch.float32, f"a scale of {scale.dtype}")
        require(scale.device == left.device, f"a scale on {scale.device}")
    if by_row:
        require(card.row_wise, "row-wise scaling is not compiled")
        fits = scale_a.shape == (m, 1) and scale_b.shape == (1, n)
        require(fits, f"row-wise scales of {tuple(scale_a.shape)} and {tuple(scale_b.shape)}")
        require(scale_a.is_contiguous() and scale_b.is_contiguous(), "row-wise scales are not contiguous")
        require(wide == torch.bfloat16, "only bf16 is written row-wise")
        require(left.dtype == right.dtype == torch.float8_e4m3fn, "only e4m3 is multiplied row-wise")
    else:
        require(card.tensor_wise, "tensor-wise scaling is not compiled")
    if bias is not None:
        require(bias.numel() == n and bias.is_contiguous(), f"a bias of {tuple(bias.shape)}")
        require(bias.device == left.device, f"a bias on {bias.device}")
        require(wide != torch.float32, "no bias is added to float32")
        require(bias.dtype in (torch.bfloat16, torch.float16), f"a bias of {bias.dtype}")
        require(wide != torch.bfloat16 or bias.dtype == torch.bfloat16, f"a bias of {bias.dtype} to bf16")
