"""The two pictures as they are compared: at one scale, small enough to be quick."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .filters import luma, scaled

# Beyond twice a megapixel nothing is found more exactly, only later; a small source enlarged more shows nothing new.
_MOST_PIXELS = 2.2e6
_MOST_ENLARGED = 3.0
# So little smaller or larger, a picture is taken as it is: that is nearer to it than anything made of it.
_LESS, _MORE = 0.9, 1.3


@dataclass(frozen=True, eq=False)
class Bench:
    """source [3,h,w] and edited [3,y,x], fp32 0..1, a pixel of one about a pixel of the other.

    size, edit: the (height, width) that source and edit came in.
    """

    source: Tensor
    edited: Tensor
    size: tuple[int, int]
    edit: tuple[int, int]

    @property
    def aspect(self) -> float:
        """The source's width over its height."""
        return self.size[1] / self.size[0]

    @property
    def luminance(self) -> tuple[Tensor, Tensor]:
        """[1,h,w] of each."""
        return luma(self.source), luma(self.edited)

    def on_edit(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Points in the edit's own pixels, in those of `edited`."""
        return u * (self.edited.shape[2] / self.edit[1]), v * (self.edited.shape[1] / self.edit[0])


def bench_of(source: Tensor, edited: Tensor) -> Bench:
    """source [3,H,W], edited [3,h,w]: both brought to the edit's scale, or as near to it as is of use."""
    size, edit = (source.shape[1], source.shape[2]), (edited.shape[1], edited.shape[2])
    pixels = min(math.prod(edit), _MOST_PIXELS, math.prod(size) * _MOST_ENLARGED**2)
    small = [_scaled_to(p, pixels / math.prod(p.shape[1:])) for p in (source, edited)]
    return Bench(small[0], small[1], size, edit)


def _scaled_to(planes: Tensor, share: float) -> Tensor:
    """The planes with that share of their pixels; as they are where that is not far from all of them."""
    if _LESS < share < _MORE:
        return planes
    height, width = (max(8, round(n * math.sqrt(share))) for n in planes.shape[1:])
    return scaled(planes, height, width)
