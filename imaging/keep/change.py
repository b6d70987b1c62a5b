"""Which pixels were edited, told from those that a model merely drew anew.

Two looks at what is left between the source and the aligned, corrected edit. The fine one asks how far each picture
lies outside the other's range within two pixels: an edge drawn a little to the side is no difference. The coarse one
asks for the mean difference nearby, which finds faint light and shadow over texture. Both are measured against what
texture alone lets one expect, scaled to this edit's own loss. Grown from what is certain into what is likely.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .components import parts_of, with_filled_holes
from .filters import blur, enlarged, grown, halved, highest, lowest, shrunk, slopes

_NEAR = 2  # pixels that an edge may wander
_FINE = 0.010, 0.10  # the differences expected: flat, and for each unit of slope
_COARSE = 0.012, 0.20
_LOUD = 2.5  # how far above the quietest nine tenths a difference must lie
_WEAK, _STRONG = 1.0, 2.2
_LIKELY, _SPECK = 0.4, 6  # what is weaker, or smaller in pixels, hides no change
_MARKED = 0.8  # nor what is nowhere stronger than that
_APART = 3  # pixels around an obvious change that say nothing of faint ones
_SEED = 12  # this many strong pixels make a part certain
_TAIL, _TAIL_REACH = 0.2, 6  # less than that share of the largest nearby is a blur's tail
FINE_REACH = 20  # rows: three deviations of each blur, one of slopes, and the tail's
_GOES_ON = 40  # a faint part beside an obvious one is certain if so many of its pixels lie further off
_HOLE = 120  # pixels: smaller holes in a changed part are changed
CUT = 0.012  # a channel this near to black or white was cut off
_NEARLY = 0.015  # how exactly it is known from where on


@dataclass(frozen=True, eq=False)
class EditedPixels:
    """mask, likely [H,W] bool: what was edited, and all that may have been; noise: the edit's own loss, over what is
    expected of a good one."""

    mask: Tensor
    likely: Tensor
    noise: float


def find_change(
    fine: Tensor, source: Tensor, difference: Tensor, judged: Tensor, likely: Tensor | None = None
) -> EditedPixels:
    """What was edited, by both looks.

    fine [H,W]: see `fine_ratio`; judged [H,W] bool: what can be judged. source, difference [3,h,w]: at half that size.
    likely [H,W] bool: where alone the fine look was taken; None: everywhere.
    """
    some = fine[::3, ::3], (judged if likely is None else judged & likely)[::3, ::3]
    noise = max(1.0, _quiet(*some) * _LOUD)
    plain = _grown(fine / noise)
    free = judged & ~grown(plain, _APART)
    share = halved(free.float()[None])
    coarse = _coarse(source, difference, share)
    noise = max(noise, _quiet(coarse, halved(judged.float()[None])[0] > 0.5) * _LOUD)
    wide = enlarged(coarse[None], *free.shape)[0].mul_(free)
    mask = torch.from_numpy(with_filled_holes(_with_faint(plain, wide / noise).numpy(), _HOLE))
    return EditedPixels(mask, _suspects(torch.maximum(fine, wide) / noise) if likely is None else likely, noise)


def left_over(source: Tensor, corrected: Tensor, edited: Tensor, covered: Tensor) -> Tensor:
    """[3,H,W]: source minus corrected, as far as that does not come of the edit's being cut off. covered [1,H,W].

    edited: the edit before its drift was taken back, which shows where it was cut off. There any source that is darker
    than corrected black looks the same, and any that is brighter than corrected white, but no other.
    """
    difference = (source - corrected).mul_(covered)
    explained = difference.clamp(-1, _NEARLY)
    difference = torch.where(edited < CUT, difference - explained, difference)
    explained = difference.clamp(-_NEARLY, 1)
    return torch.where(edited > 1 - CUT, difference - explained, difference)


def fine_ratio(source: Tensor, difference: Tensor, covered: Tensor) -> Tensor:
    """[1,H,W]: by how much the difference is more than texture. covered [1,H,W]."""
    smooth = blur(source, 1.5)
    other = smooth - blur(difference, 1.5)
    beyond = torch.maximum(_outside(smooth, other), _outside(other, smooth)).square_().sum(0, keepdim=True).sqrt_()
    fine = blur(beyond, 1.0) / (_FINE[0] + _FINE[1] * _texture(smooth)) * covered
    fine *= fine > _TAIL * highest(fine, _TAIL_REACH)
    return fine


def _texture(smooth: Tensor, near: float = 2.5) -> Tensor:
    """[1,H,W]: the slopes' root mean square nearby."""
    across, down = slopes(smooth)
    return blur((across * across + down * down).sum(0, keepdim=True), near).clamp_(min=0).sqrt_()


def _outside(one: Tensor, other: Tensor) -> Tensor:
    """How far `one` lies outside the range that the other takes nearby."""
    return torch.maximum(one - highest(other, _NEAR), lowest(other, _NEAR) - one).clamp_(min=0)


def _coarse(source: Tensor, difference: Tensor, free: Tensor) -> Tensor:
    """[h,w]: by how much the mean difference of what is free [1,h,w] within some two is more than texture."""
    near = blur(torch.cat([difference * free, free]), 2.0)
    mean = near[:3].square_().sum(0).sqrt_() / near[3].clamp_(min=0.15)
    return mean / (_COARSE[0] + _COARSE[1] / 2 * _texture(blur(source, 0.75), 1.25)[0])


def _quiet(ratio: Tensor, covered: Tensor) -> float:
    """What nine tenths of the pixels that are certainly not edited stay below."""
    quiet = ratio[covered & (ratio < _WEAK)]
    return float(quiet[:: max(1, len(quiet) // 50_000)].quantile(0.9)) if len(quiet) > 100 else 0.0


def _grown(ratio: Tensor) -> Tensor:
    """The likely parts that have something certain in them, and a pixel around for what the threshold cut off."""
    parts = parts_of((ratio > _WEAK).numpy())
    certain = parts.counts((ratio > _STRONG).numpy()) >= _SEED
    return _closed(grown(torch.from_numpy(parts.painted(certain)), 1))


def _with_faint(plain: Tensor, ratio: Tensor) -> Tensor:
    """The obvious change and the faint ones: those that are certain by themselves, and those that go on from it."""
    parts = parts_of((ratio > _WEAK).numpy())
    certain = parts.counts((ratio > _STRONG).numpy()) >= _SEED
    beside = parts.counts(grown(plain, _APART + 2).numpy())
    certain |= (beside >= _SEED) & (parts.areas() - beside >= _GOES_ON)
    return _closed(plain | torch.from_numpy(parts.painted(certain))) if certain.any() else plain


def _suspects(ratio: Tensor) -> Tensor:
    """[H,W] bool: where a closer look may find a change."""
    parts = parts_of((ratio > _LIKELY).numpy())
    marked = parts.counts((ratio > _MARKED).numpy()) > 0
    return torch.from_numpy(parts.painted(marked & (parts.areas() >= _SPECK)))


def _closed(mask: Tensor, radius: int = 2) -> Tensor:
    """Gaps of up to twice the radius closed."""
    return shrunk(grown(mask, radius), radius)
