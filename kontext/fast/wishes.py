"""Which approximations are asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import BadRequest

MOST_SMALLER = 4.0


@dataclass(frozen=True)
class Wishes:
    """What may be approximated; without arguments, nothing.

    cache: how much the first block may change, as a part of what it does, for the other blocks to be taken as in the
    last call that ran them. settled: how much the foreseen picture outside the mask may still change from one call to
    the next, as a part of itself, for its tokens to be left out from then on. mask: [B, H, W] of 0..1, above a half is
    to be edited; of any size, it covers the picture. smaller: by what the sides of references are divided. Numbers at
    0, and 1 for smaller, are off. Raises BadRequest.
    """

    cache: float = 0.0
    settled: float = 0.0
    mask: torch.Tensor | None = None
    smaller: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("cache", self.cache), ("settled", self.settled)):
            if not math.isfinite(value) or not 0 <= value < 1:
                raise BadRequest(f"{name} is {value}; it must be from 0, which is off, to below 1.")
        if not math.isfinite(self.smaller) or not 1 <= self.smaller <= MOST_SMALLER:
            raise BadRequest(f"reference is {self.smaller}; it must be from 1, which is off, to {MOST_SMALLER:g}.")
        if self.settled and self.mask is None:
            raise BadRequest("Tokens outside a mask can be left out only where there is one: give a mask.")
        if self.mask is not None:
            if self.mask.ndim != 3 or not self.mask.numel():
                raise BadRequest(
                    f"The mask has the shape {list(self.mask.shape)}; it must be [pictures, height, width]."
                )
            if not bool((self.mask > 0.5).any()):
                raise BadRequest("The mask is empty: mark what is to be edited, or take the mask away.")

    @property
    def leaves_out(self) -> bool:
        return self.mask is not None and self.settled > 0

    def __bool__(self) -> bool:
        return self.cache > 0 or self.leaves_out or self.smaller > 1
