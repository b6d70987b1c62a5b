"""Latents as the transformer sees them: noise from a seed, 2x2 patches as tokens, and where each token lies.

A latent is [B, 16, h, w] float32 in the transformer's own scale, h and w an eighth of the picture's. A token is
one 2x2 patch, so h and w must be even: pictures in multiples of 16 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import torch

from .checkpoint.layers import LATENT_CHANNELS


class ReferenceMethod(Enum):
    """How several reference pictures are told apart.

    OFFSET lays them out on one plane, each to the right of or below those before it, as Kontext was trained with
    one. INDEX stacks them, each on its own plane.
    """

    OFFSET = "offset"
    INDEX = "index"


def noise(seed: int, batch: int, height: int, width: int) -> torch.Tensor:
    """Gaussian noise [batch, 16, height, width], float32 on the CPU, the same on every machine.

    Picture k of a batch gets the noise of seed + k, so that it can be made again alone.
    """
    shape = (1, LATENT_CHANNELS, height, width)
    return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed + k)) for k in range(batch)])


def pack(latent: torch.Tensor) -> torch.Tensor:
    """[B, C, h, w] as tokens [B, h/2 * w/2, 4 C], row by row."""
    batch, channels, height, width = latent.shape
    patches = latent.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, height * width // 4, channels * 4)


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Tokens back as [B, C, height, width], the inverse of `pack`."""
    batch, _, values = tokens.shape
    patches = tokens.reshape(batch, height // 2, width // 2, values // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(batch, values // 4, height, width)


def positions(
    height: int,
    width: int,
    references: Sequence[tuple[int, int]] = (),
    method: ReferenceMethod = ReferenceMethod.OFFSET,
) -> torch.Tensor:
    """Where the tokens of a latent and of its references lie: [tokens, 3] of plane, row, column, float32.

    height, width and references are in latent pixels. The edited picture is plane 0; text tokens are all zeros.
    """
    planes = [_plane(0, 0, 0, height, width)]
    taken_h = taken_w = 0
    for number, (h, w) in enumerate(references, start=1):
        row = column = 0
        if method is ReferenceMethod.OFFSET:
            # Grow the plane in the direction that keeps it closest to a square.
            if h + taken_h > w + taken_w:
                column = taken_w
            else:
                row = taken_h
            taken_h, taken_w = max(taken_h, row + h), max(taken_w, column + w)
        planes.append(_plane(number if method is ReferenceMethod.INDEX else 1, row, column, h, w))
    return torch.cat(planes)


def _plane(index: int, row: int, column: int, height: int, width: int) -> torch.Tensor:
    rows = torch.arange(row // 2, (row + height) // 2, dtype=torch.float32)
    columns = torch.arange(column // 2, (column + width) // 2, dtype=torch.float32)
    grid = torch.cartesian_prod(torch.tensor([float(index)]), rows, columns)
    return grid.reshape(-1, 3)
