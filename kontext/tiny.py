"""A FLUX.1 Kontext model small enough for a test: random weights in the real layout, and noise for pictures."""

from __future__ import annotations

import torch

from .layers import HEAD, Size, layers, norms

TINY = Size(hidden=128, doubles=2, singles=2, context=64, pooled=32)


def random_weights(size: Size = TINY, seed: int = 0) -> dict[str, torch.Tensor]:
    """Float32 tensors by BFL names, scaled so that activations neither vanish nor grow."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in layers(size):
        weights[f"{layer.bfl}.weight"] = torch.randn(layer.rows, layer.inputs, generator=generator) / layer.inputs**0.5
        weights[f"{layer.bfl}.bias"] = torch.randn(layer.rows, generator=generator) * 0.02
    for norm in norms(size):
        weights[f"{norm.bfl}.scale"] = 1 + 0.1 * torch.randn(HEAD, generator=generator)
    return weights
