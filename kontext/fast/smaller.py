"""A reference picture of fewer tokens, which lie where the tokens that they stand for lay.

FLUX knows where a token is by its row and column alone, and Kontext was taught that the reference's token at a place
shows what the picture has there. So positions are averaged as the picture is: half as many rows are two apart, each
in the middle of the two that it stands for, and the last ends where the last ended.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def shrunk(latent: torch.Tensor, factor: float) -> torch.Tensor:
    """A latent [B, C, h, w], h and w even, with its sides divided by the factor, and even again."""
    down, across = (_fewer(side // 2, factor) for side in latent.shape[2:])
    return functional.adaptive_avg_pool2d(latent.float(), (2 * down, 2 * across)).to(latent.dtype)


def shrunk_places(places: torch.Tensor, height: int, width: int, factor: float) -> torch.Tensor:
    """Where the tokens of such a latent lie, from where those of the whole one, of height x width, do: [tokens, 3]."""
    grid = places.view(height // 2, width // 2, 3).movedim(-1, 0)
    fewer = functional.adaptive_avg_pool2d(grid, (_fewer(height // 2, factor), _fewer(width // 2, factor)))
    return fewer.movedim(0, -1).reshape(-1, 3)


def _fewer(tokens: int, factor: float) -> int:
    return math.ceil(tokens / factor)
