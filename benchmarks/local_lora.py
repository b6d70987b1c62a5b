"""How much of a LoRA's effect is left beside FP8 weights, and how much when it is merged into them.

python benchmarks/local_lora.py [--rank 16] [--width 3072]

One layer with random Gaussian weights W in FP8 (a scale a row) and LoRAs of several sizes relative to W. The effect is
what the LoRA adds to the layer's output for random inputs, all products in float32; the error is relative to that
effect with nothing rounded. Merged: W is widened, the LoRA added, and the sum rounded into FP8 again, to the nearest
number or stochastically, as loaders that merge do.
"""

from __future__ import annotations

import argparse

import torch
from kontext_bridge.kontext.fp8.compute import Branch, Compute, Linear
from kontext_bridge.kontext.fp8.formats import E4M3, dequantise, quantise_rows


def stochastic(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in FP8 with a scale each, rounded up or down by chance in proportion to the distance."""
    scale = rows.abs().amax(dim=1, keepdim=True) / 448
    scaled = rows / scale
    # e4m3 has three bits of mantissa, and below 2^-6 the spacing stays that of 2^-6.
    exponent = torch.floor(torch.log2(scaled.abs().clamp_min(2.0**-6)))
    spacing = torch.exp2(exponent - 3)
    rounded = torch.floor(scaled / spacing + torch.rand_like(scaled)) * spacing
    return rounded.clamp_(-448, 448).to(E4M3), scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--width", type=int, default=3072)
    options = parser.parse_args()
    g = torch.Generator().manual_seed(0)
    n = options.width
    weight = torch.randn(n, n, generator=g) / n**0.5
    x = torch.randn(128, n, generator=g)
    quantised, scale = quantise_rows(weight)
    scale = scale[:, 0]
    plain = Linear(quantised, scale, compute=Compute.STORAGE)
    base = plain(x)
    print(f"layer {n} x {n}, rank {options.rank}; error of the LoRA's effect")
    print("| relative size | beside, bf16 | merged, nearest | merged, stochastic |")
    print("|---|---|---|---|")
    for relative in (0.005, 0.02, 0.05):
        down = torch.randn(options.rank, n, generator=g)
        up = torch.randn(n, options.rank, generator=g)
        up *= relative * weight.norm() / (up @ down).norm()
        effect = x @ (up @ down).T
        beside = Linear(quantised, scale, compute=Compute.STORAGE)
        beside.branches["lora"] = [Branch(down.bfloat16(), up.bfloat16(), 0, 1.0)]
        errors = [(beside(x) - base - effect).norm() / effect.norm()]
        for rounding in (quantise_rows, stochastic):
            q, s = rounding(dequantise(quantised, scale, torch.float32) + up @ down)
            merged = Linear(q, s[:, 0].contiguous(), compute=Compute.STORAGE)
            errors.append((merged(x) - base - effect).norm() / effect.norm())
        print(f"| {relative:.1%} | " + " | ".join(f"{error:.2%}" for error in errors) + " |")


if __name__ == "__main__":
    main()
