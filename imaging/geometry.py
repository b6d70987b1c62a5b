"""What cutting a picture out and laying an edit in have in common: boxes, and masks that fade out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# A mask's 1 in whole numbers: finer than float32, and a picture's worth of it fits into 64 bits.
_ONE = 2**30


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: left and top edge, width and height."""

    left: int
    top: int
    width: int
    height: int

    @property
    def rows(self) -> slice:
        """Its rows, to index a tensor with."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """Its columns, to index a tensor with."""
        return slice(self.left, self.left + self.width)


def box_around(mask: Tensor, margin: int) -> Box:
    """The box around every masked pixel of the batch, grown by the margin within the picture."""
    masked = (mask > 0).any(dim=0)
    height, width = masked.shape
    rows, columns = masked.any(dim=1).nonzero(), masked.any(dim=0).nonzero()
    top, bottom = max(0, int(rows[0]) - margin), min(height, int(rows[-1]) + 1 + margin)
    left, right = max(0, int(columns[0]) - margin), min(width, int(columns[-1]) + 1 + margin)
    return Box(left, top, right - left, bottom - top)


def feathered(mask: Tensor, feather: int) -> Tensor:
    """The mask [B,H,W] falling off to exactly 0 over `feather` pixels outside it; inside not less than it was."""
    if feather == 0:
        return mask
    blur = feather // 2
    grown = mask
    for _ in range(2):
        grown = _largest(grown, feather - blur).transpose(1, 2)
    # Whole numbers: their sums are exact in any order, so a window of zeros gives zero and one of ones gives one.
    sums = (grown * _ONE).round().to(torch.int64)
    counts = [_sum(torch.ones(length, dtype=torch.int64, device=mask.device), blur) for length in mask.shape[1:]]
    for _ in range(2):
        sums = _sum(sums, blur).transpose(1, 2)
    means = sums.to(torch.float32) / (counts[0][:, None] * counts[1] * _ONE).to(torch.float32)
    return torch.maximum(means, mask)


def _largest(values: Tensor, radius: int) -> Tensor:
    """The largest of the values, none below 0, within the radius along the last dimension."""
    length, window = values.shape[-1], 2 * radius + 1
    largest, reach = F.pad(values, (radius, radius)), 1
    while reach < window:
        # Two windows that touch or overlap make one of up to twice the width.
        step = min(reach, window - reach)
        largest = torch.maximum(largest[..., :-step], largest[..., step:])
        reach += step
    return largest[..., :length]


def _sum(values: Tensor, radius: int) -> Tensor:
    """The sum of the values within the radius along the last dimension; beyond the edge there are none."""
    sums = F.pad(values, (radius + 1, radius)).cumsum(-1)
    return sums[..., 2 * radius + 1 :] - sums[..., : values.shape[-1]]
