"""Tokens outside a mask: which they are, and what is known of them without computing them.

A noisy latent is a mix of picture and noise, x = (1 - sigma) picture + sigma noise, and what the model predicts is
noise - picture. Where the picture is to be the source's, that is (x - source) / sigma, whatever the noise: a sampler
that is given it arrives at the source.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn import functional

from .first_block import change

# Tokens around the mask that go on being computed, so that what is edited sees what it borders on.
_MARGIN = 1


def inside(mask: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Which tokens of a latent of height x width are to be computed: a row of booleans, the same for all pictures.

    mask: [B, H, W], of any size. A token counts if the mask of any picture touches it or a neighbour.
    """
    touched = (mask > 0.5).float().amax(0)[None, None]
    grid = (height // 2, width // 2)
    # A mask smaller than the grid is first spread over it: pooling alone could pass between two of its pixels.
    spread = [max(side, wanted) for side, wanted in zip(touched.shape[2:], grid, strict=True)]
    tokens = functional.adaptive_max_pool2d(functional.interpolate(touched, spread), grid)
    return functional.max_pool2d(tokens, 2 * _MARGIN + 1, 1, _MARGIN)[0, 0].flatten() > 0


def towards(source: torch.Tensor, tokens: torch.Tensor, sigma: float) -> torch.Tensor:
    """The velocity that takes noisy tokens to the source's."""
    return (tokens - source.to(tokens)) / sigma


@dataclass
class Settling:
    """Whether the foreseen picture outside the mask has stopped changing, for all conditions of a run together.

    It is settled once, for good, and between two noise levels only: the conditions of one step must agree.
    """

    threshold: float
    is_over: bool = False
    _before: dict[object, torch.Tensor] = field(default_factory=dict)
    _still: dict[object, bool] = field(default_factory=dict)
    _level: float | None = None

    def begin(self, sigma: float) -> None:
        """A call at this noise level begins."""
        if self._level is not None and sigma != self._level and self._still and all(self._still.values()):
            self.is_over = True
            self._before.clear()
        self._level = sigma

    def see(self, condition: object, foreseen: torch.Tensor) -> None:
        """What a call of all tokens foresees outside the mask: [B, tokens, values]."""
        before = self._before.get(condition)
        same = before is not None and before.shape == foreseen.shape
        self._still[condition] = same and change(foreseen, before) < self.threshold  # type: ignore[arg-type]
        self._before[condition] = foreseen
