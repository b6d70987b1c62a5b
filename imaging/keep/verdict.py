"""Whether there is a picture to keep: a change here and there, or another picture."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from .filters import blur, luma, pooled

_WHOLE_AREA = 0.75
_UNLIKE = 0.40
_TEXTURE = 0.0005  # fine detail weaker than this is noise
_FAR = 0.13  # a mean correction above that was asked for
_SLOPES = 0.55, 1.7  # so much flatter or steeper is no drift, but a grade


class Verdict(str, Enum):
    """none: nothing was edited; local: the rest is kept; whole: there is nothing to keep."""

    NONE = "none"
    LOCAL = "local"
    WHOLE = "whole"


@dataclass(frozen=True)
class Signs:
    """What speaks for another picture. area: the share of it that changed; likeness: how alike the textures are in the
    rest, -1..1; drift: the mean correction of colour there; contrast: the smallest and largest factor by which colours
    differ there, over all directions in colour."""

    area: float
    likeness: float
    drift: float
    contrast: tuple[float, float]

    @property
    def aligned(self) -> bool:
        """Whether where the edit was found can be trusted."""
        return self.likeness >= _UNLIKE

    def against(self, given: bool) -> str | None:
        """Why nothing can be kept, in words, or None. given: the artist drew a mask, so any share may change."""
        if not given and self.area > _WHOLE_AREA:
            return f"{self.area:.0%} of the picture changed"
        if self.likeness < _UNLIKE:
            return "it shows something else, or the same from elsewhere"
        if self.drift > _FAR:
            return "light and colour changed everywhere"
        if self.contrast[0] < _SLOPES[0]:
            return "colours or contrast were taken away everywhere"
        if self.contrast[1] > _SLOPES[1]:
            return "colours or contrast were raised everywhere"
        return None


def whole(changed: Tensor) -> bool:
    """Whether that [h,w] bool is too much of a picture to be a change in it."""
    return float(changed.float().mean()) > _WHOLE_AREA


def signs_of(
    source: Tensor, edited: Tensor, corrected: Tensor, likeness: Tensor, free: Tensor, covered: Tensor
) -> Signs:
    """source, edited (aligned), corrected [3,h,w]; likeness [1,y,x]; free, covered [h,w] bool: what was not edited, of
    what the edit reaches, and all of that. Half the pictures' size will do."""
    area = 1 - float(free.sum() / covered.sum().clamp(min=1))
    if not free.any() or area > _WHOLE_AREA:
        return Signs(area, _alike(source, likeness, torch.ones_like(free)), 0.0, (1.0, 1.0))
    drift = float((corrected - edited).square().sum(0).sqrt_()[free].mean())
    return Signs(area, _alike(source, likeness, free), drift, _contrast(source, edited, free))


def _alike(source: Tensor, likeness: Tensor, free: Tensor) -> float:
    """The likeness of the blocks, the textured ones counting most; where there is no texture, nothing is unlike."""
    height, width = likeness.shape[1:]
    bright = luma(source)
    weight = pooled((bright - blur(bright, 2)).abs() * free, height, width).clamp(max=0.05)
    doubt = _TEXTURE * weight.numel()
    return float(((likeness * weight).sum() + doubt) / (weight.sum() + doubt))


def _contrast(source: Tensor, edited: Tensor, free: Tensor) -> tuple[float, float]:
    """The least and the largest singular value of the linear map from the source's colours to the edit's.

    Directions in which the source hardly varies say nothing: there the map stays the identity.
    """
    height, width = (max(1, n // 4) for n in free.shape)
    share = pooled(free.float()[None], height, width)
    few = (share[0] > 0.9).reshape(-1)
    if int(few.sum()) < 50:
        few = (share[0] > 0).reshape(-1)
    one, two = (
        pooled(p * free, height, width).div(share.clamp(min=1e-3)).reshape(3, -1)[:, few] for p in (source, edited)
    )
    one, two = ((p - p.mean(1, keepdim=True)).double() for p in (one, two))
    spread = one @ one.T / one.shape[1]
    ridge = 2e-4 * torch.eye(3).double()
    linear = torch.linalg.solve(spread + ridge, one @ two.T / one.shape[1] + ridge)
    values = torch.linalg.svdvals(linear)
    return float(values[-1]), float(values[0])
