"""What to make, in an artist's words, whichever way it is sampled."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import BadRequest
from .latents import ReferenceMethod

MULTIPLE = 16
_MAX_SIDE = 4096
# Sides so far apart are no choice of anybody's: a strip was scaled until its short side had a multiple.
_NARROW = 8


@dataclass(frozen=True)
class LatentEdit:
    """What to make, in an artist's words.

    width, height: pixels, multiples of 16. seed: picture k of the batch uses seed + k. guidance: Kontext's own,
    embedded, at no cost. true_cfg: classifier-free guidance against a negative prompt, at twice the cost; 1 is off.
    """

    width: int
    height: int
    steps: int = 28
    guidance: float = 2.5
    seed: int = 0
    batch: int = 1
    true_cfg: float = 1.0
    method: ReferenceMethod = ReferenceMethod.OFFSET

    def __post_init__(self) -> None:
        for name, side in (("width", self.width), ("height", self.height)):
            if side < MULTIPLE or side > _MAX_SIDE or side % MULTIPLE:
                narrow = max(self.width, self.height) > _NARROW * min(self.width, self.height)
                advice = " Crop the picture, which is too narrow to be edited whole." if narrow else ""
                raise BadRequest(
                    f"The {name} is {side} pixels; it must be a multiple of {MULTIPLE}, at most {_MAX_SIDE}.{advice}"
                )
        if self.steps < 1:
            raise BadRequest(f"An edit needs at least one step, and {self.steps} were asked for.")
        if self.batch < 1:
            raise BadRequest(f"An edit makes at least one picture, and {self.batch} were asked for.")
        if not 0 <= self.seed <= 2**63 - self.batch:
            raise BadRequest(f"The seed is {self.seed}; it must be from 0 to 2^63 - 1.")
        for name, value in (("guidance", self.guidance), ("true CFG", self.true_cfg)):
            if not math.isfinite(value) or value < 0:
                raise BadRequest(f"The {name} is {value}; it must be a number from 0 on.")
