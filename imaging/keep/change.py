"""Which pixels were edited, told from those that a model merely drew anew.

Two looks at what is left between the source and the aligned, corrected edit. The fine one asks how far each picture
lies outside the other's range within two pixels: an edge drawn a little to the side is no difference. The coarse one
asks for the mean difference nearby, which finds faint light and shadow over texture. Both are measured against what
texture alone lets one expect, scaled to this edit's own loss. Grown from what is certain into what is likely.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .components import Mask, parts_of, with_filled_holes
from .filters import blur, enlarged, highest, in_bands, lowest, pooled, slopes

_NEAR = 2  # pixels that an edge may wander
_FINE = 0.010, 0.10  # the differences expected: flat, and for each unit of slope
_COARSE = 0.012, 0.20
_LOUD = 2.5  # how far above the quietest nine tenths a difference must lie
_WEAK, _STRONG = 1.0, 2.2
_APART = 3  # pixels around an obvious change that say nothing of faint ones
_SEED = 12  # this many strong pixels make a part certain
_TAIL, _TAIL_REACH = 0.2, 6  # less than that share of the largest nearby is a blur's tail
_FINE_REACH = 20  # rows: three deviations of each blur, one of slopes, and the tail's
_GOES_ON = 40  # a faint part beside an obvious one is certain if so many of its pixels lie further off
_HOLE = 120  # pixels: smaller holes in a changed part are changed
_CUT = 0.012  # a channel this near to black or white was cut off


@dataclass(frozen=True, eq=False)
class EditedPixels:
    """mask [H,W] bool; noise: the edit's own loss, over what is expected of a good one."""

    mask: Mask
    noise: float


def find_change(source: Tensor, corrected: Tensor, edited: Tensor, covered: Tensor, slack: float) -> EditedPixels:
    """Where `corrected` is not `source` for a reason. All [3,H,W]; covered [H,W] bool: where the edit reaches.

    edited: the edit before its drift was taken back, which shows where it was cut off at black and white; slack: how
    far beyond these it may have been.
    """
    reach = covered.float()[None]
    found = in_bands(partial(_fine, slack), _FINE_REACH, source, corrected, edited, reach)
    difference, fine, texture = found[:3], found[3:4], found[4:5]
    noise = max(1.0, _quiet(fine[0], covered) * _LOUD)
    plain = _grown(fine[0] / noise)
    free = covered * (1 - highest(torch.from_numpy(plain).float()[None], _APART))
    coarse = _coarse(difference, free) / (_COARSE[0] + _COARSE[1] * texture)
    noise = max(noise, _quiet(coarse[0], covered) * _LOUD)
    return EditedPixels(with_filled_holes(_with_faint(plain, coarse[0] / noise), _HOLE), noise)


def _fine(slack: float, source: Tensor, corrected: Tensor, edited: Tensor, covered: Tensor) -> Tensor:
    """[5,H,W]: the difference, by how much it is more than texture, and the texture. covered [1,H,W]."""
    cut = (edited < _CUT) | (edited > 1 - _CUT)
    difference = (source - corrected).mul_(covered)
    difference = difference.sign() * (difference.abs() - cut * slack).clamp_(min=0)
    smooth = blur(source, 1.5)
    other = smooth - blur(difference, 1.5)
    texture = _texture(smooth)
    beyond = torch.maximum(_outside(smooth, other), _outside(other, smooth)).square_().sum(0, keepdim=True).sqrt_()
    fine = blur(beyond, 1.0) / (_FINE[0] + _FINE[1] * texture) * covered
    fine *= fine > _TAIL * highest(fine, _TAIL_REACH)
    return torch.cat([difference, fine, texture])


def _texture(smooth: Tensor) -> Tensor:
    """[1,H,W]: the slopes' root mean square nearby."""
    across, down = slopes(smooth)
    return blur((across * across + down * down).sum(0, keepdim=True), 2.5).clamp_(min=0).sqrt_()


def _outside(one: Tensor, other: Tensor) -> Tensor:
    """How far `one` lies outside the range that the other takes nearby."""
    return torch.maximum(one - highest(other, _NEAR), lowest(other, _NEAR) - one).clamp_(min=0)


def _coarse(difference: Tensor, free: Tensor) -> Tensor:
    """[1,H,W]: the length of the free pixels' mean difference within some four; half the size will do for that."""
    height, width = difference.shape[1:]
    small = pooled(torch.cat([difference * free, free]), max(1, height // 2), max(1, width // 2))
    *colour, share = blur(small, 2.0)
    mean = torch.stack(colour).square_().sum(0).sqrt_() / share.clamp(min=0.15)
    return enlarged(mean[None], height, width) * free


def _quiet(ratio: Tensor, covered: Tensor) -> float:
    """What nine tenths of the pixels that are certainly not edited stay below."""
    quiet = ratio[::3, ::3][(covered & (ratio < _WEAK))[::3, ::3]]
    return float(quiet[:: max(1, len(quiet) // 50_000)].quantile(0.9)) if len(quiet) > 100 else 0.0


def _grown(ratio: Tensor) -> Mask:
    """The likely parts that have something certain in them, and a pixel around for what the threshold cut off."""
    parts = parts_of((ratio > _WEAK).numpy())
    certain = parts.sums((ratio > _STRONG).numpy()) >= _SEED
    mask = torch.from_numpy(parts.painted(certain)).float()[None]
    return _closed(highest(mask, 1))


def _with_faint(plain: Mask, ratio: Tensor) -> Mask:
    """The obvious change and the faint ones: those that are certain by themselves, and those that go on from it."""
    parts = parts_of((ratio > _WEAK).numpy())
    certain = parts.sums((ratio > _STRONG).numpy()) >= _SEED
    beside = highest(torch.from_numpy(plain).float()[None], _APART + 2)[0].numpy() > 0
    certain |= (parts.sums(beside) >= _SEED) & (parts.areas() - parts.sums(beside) >= _GOES_ON)
    faint = parts.painted(certain)
    return _closed(torch.from_numpy(plain | faint).float()[None]) if faint.any() else plain


def _closed(mask: Tensor, radius: int = 2) -> Mask:
    """Gaps of up to twice the radius closed."""
    closed: Mask = lowest(highest(mask, radius), radius)[0].numpy() > 0.5
    return np.asarray(closed)
