"""From a first guess to a tenth of a pixel: robust least squares on locally normalised luminance.

Every step linearises the difference of the two pictures in the displacement (Lucas and Kanade 1981), sums it up over
blocks, and solves for the mapping's terms. Pixels that disagree lose their weight, and so do blocks that do not look
alike. How large a bend of each order may be is learnt from the picture itself (its prior's variance, by expectation
maximisation), so that a picture that is not bent does not get bends from noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .filters import blur, enlarged, halved, lowest, pooled, sampled, scaled, slopes
from .mapping import DEGREE, Mapping, legendre, places


@dataclass(frozen=True)
class Level:
    """One stage: the picture's long side, the mapping's degree, steps, and from where a difference says nothing.

    coarse: at this long side it is looked at what looks unlike, as a sky does whose noise is finer than its clouds.
    """

    long: int
    degree: int
    steps: int
    cut: float
    coarse: int = 0


COARSE = (Level(160, 1, 8, 4.0),)
MIDDLE = (Level(320, 1, 4, 3.0), Level(512, 3, 2, 2.0), Level(512, 5, 2, 2.0))
FINE = (Level(512, DEGREE, 2, 1.8, 400), Level(800, DEGREE, 1, 1.8, 400))

_EDGE = 10  # pixels: three deviations of the blur that tells fine from coarse
_STILL = 0.02  # edit pixels: a smaller step is the last
_BEND = 1.5  # edit pixels: the deviation of a bend of order 2 before anything is known; each further order is less
_DECAY = 0.6
_ALONE, _SMOOTH = 4, 12  # blocks err with their neighbours: so many are one measurement, and so many of a sky's
_TURN = 0.01  # the deviation of turns and slants, of the long side: half a degree, before anything is known
_LEAST, _UNTOLD = 2.5e-4, 0.25  # no noise is less; what it is where too few blocks tell
_TURNS = 3  # of learning the bends' variances, each step


@dataclass(frozen=True)
class Refined:
    """The mapping, and how alike the two pictures are there: likeness [1,h,w], -1..1, on a coarse grid."""

    mapping: Mapping
    likeness: Tensor


@dataclass(frozen=True)
class _Sums:
    """Per block [5,h,w]: the weighted squares of the slopes (uu, uv, vv) and their products with the difference, in
    edit pixels; how alike the blocks are [1,h,w]; where their centres lie, as shares of the source; how many are one
    measurement."""

    planes: Tensor
    likeness: Tensor
    down: Tensor
    across: Tensor
    alone: int = _ALONE


@dataclass(frozen=True, eq=False)
class _Features:
    """Of both pictures at one size [1,h,w], and the source's slopes."""

    source: Tensor
    edited: Tensor
    slopes: tuple[Tensor, Tensor]


class Aligner:
    """Two pictures' luminance [1,h,w], and what was made of it at each size.

    edit: the (height, width) of the edit in whose pixels mappings count.
    """

    def __init__(self, source: Tensor, edited: Tensor, edit: tuple[int, int]) -> None:
        self._edit = edit
        self._sizes = [(source, edited)]
        self._features: dict[tuple[int, int], _Features] = {}

    def refine(self, mapping: Mapping, levels: Sequence[Level], free: Tensor | None = None) -> Refined:
        """free [1,h,w]: 1 where nothing was edited, as far as is known."""
        variance = _BEND**2 * _DECAY ** (2 * torch.arange(-2.0, DEGREE - 1).double())
        likeness = torch.zeros(1, 1, 1)
        for level in levels:
            at = self._at(level.long)
            weight = torch.ones(1) if free is None else pooled(free, *at.source.shape[1:])
            for _ in range(level.steps):
                sums = self._sums(mapping, at, level.cut, weight)
                likeness = sums.likeness
                seen = [sums]
                if level.coarse:
                    seen.append(self._unlike(mapping, self._at(level.coarse), level.cut, free, likeness))
                step, variance = _solved(seen, mapping, level.degree, variance)
                mapping = mapping.moved(step)
                if float(step.abs().sum((1, 2)).max()) < _STILL:
                    break
        return Refined(mapping, likeness)

    def _sums(self, mapping: Mapping, at: _Features, cut: float, free: Tensor, margin: float = 1.0) -> _Sums:
        source, edited = at.source, at.edited
        height, width = source.shape[1:]
        u, v = mapping.on(height, width)
        across, down = edited.shape[2] / self._edit[1], edited.shape[1] / self._edit[0]
        seen = sampled(edited, u * across, v * down)
        slope_u, slope_v = (a + b for a, b in zip(slopes(seen), at.slopes, strict=True))
        # Per source pixel to per edit pixel; the maps are near enough to even for that.
        slope_u = slope_u * (width / 2 / float(mapping.affine()[0, 0]))
        slope_v = slope_v * (height / 2 / float(mapping.affine()[1, 1]))
        difference = seen - source
        weight = (1 - (difference / cut).square_()).clamp_(min=0).square_()
        weight *= mapping.covered(u, v, margin)
        weight *= free
        block = min(8 if max(height, width) < 500 else 16, height, width)
        both = [seen * source, seen * seen, source * source]
        likeness = _likeness(_blocks(torch.cat(both), block))
        pulled = [weight * slope_u, weight * slope_v]
        products = [pulled[0] * slope_u, pulled[0] * slope_v, pulled[1] * slope_v]
        sums = torch.cat([*products, pulled[0] * difference, pulled[1] * difference])
        planes = _blocks(sums, block) * _trust(likeness)
        rows, columns = (
            (torch.arange(n) + 0.5) * block / of for n, of in zip(planes.shape[1:], (height, width), strict=True)
        )
        return _Sums(planes, likeness, rows, columns)

    def _unlike(self, mapping: Mapping, at: _Features, cut: float, free: Tensor | None, likeness: Tensor) -> _Sums:
        """The sums over what looked unlike, likeness [1,h,w], at a size at which it was looked at more finely."""
        size = at.source.shape[1:]
        weight = 1 - enlarged(_trust(likeness), *size)
        if free is not None:
            weight = weight * lowest(pooled(free, *size), _EDGE)
        # A slope that ends at a border is detail there, and more than all that a sky has.
        weight[:, :_EDGE] = weight[:, -_EDGE:] = weight[:, :, :_EDGE] = weight[:, :, -_EDGE:] = 0
        sums = self._sums(mapping, at, cut, weight, _EDGE * self._edit[1] / at.edited.shape[2])
        return replace(sums, alone=_SMOOTH)

    def smaller(self, long: int) -> tuple[Tensor, Tensor]:
        """Both pictures, halved until the source's long side is less than twice that."""
        source, edited = self._sizes[0]
        times = max(0, math.floor(math.log2(max(source.shape[1:]) / long)))
        while len(self._sizes) <= times:
            source, edited = self._sizes[-1]
            self._sizes.append((halved(source), halved(edited)))
        return self._sizes[times]

    def _at(self, long: int) -> _Features:
        """Both pictures' features, the source's long side no longer than that."""
        whole = self._sizes[0]
        shrink = min(1.0, long / max(whole[0].shape[1:]))
        sizes = [(max(8, round(p.shape[1] * shrink)), max(8, round(p.shape[2] * shrink))) for p in whole]
        if sizes[0] not in self._features:
            small = self.smaller(long)
            source, edited = (feature(scaled(p, *size, "bilinear")) for p, size in zip(small, sizes, strict=True))
            self._features[sizes[0]] = _Features(source, edited, slopes(source))
        return self._features[sizes[0]]


def feature(luminance: Tensor) -> Tensor:
    """[1,H,W]: what is finer than 4 px, over its own strength nearby: the same in any light and contrast."""
    fine = luminance - blur(luminance, 4)
    return (fine / (blur(fine * fine, 6).clamp_(min=0).sqrt_() + 0.012)).clamp_(-3, 3)


def _blocks(planes: Tensor, block: int) -> Tensor:
    """Sums over blocks; pixels beyond the last whole block are left out."""
    return F.avg_pool2d(planes[None], block)[0] * block**2


def _likeness(products: Tensor) -> Tensor:
    """[1,h,w]: the local correlation, from block sums of ab, aa, bb, over some blocks each way."""
    near = blur(products, 1.0)
    return near[:1] / (near[1:2] * near[2:3] + 1e-3).clamp_(min=1e-9).sqrt_()


def _trust(likeness: Tensor) -> Tensor:
    """How much a block counts that is so alike, 0..1."""
    return ((likeness - 0.25) / 0.4).clamp(0, 1)


def _solved(seen: Sequence[_Sums], mapping: Mapping, degree: int, variance: Tensor) -> tuple[Tensor, Tensor]:
    """The step [2,n,n] that the block sums ask for, and the bends' variances after it."""
    down, across = zip(*places(degree), strict=True)
    order = torch.tensor([i + j for i, j in places(degree)] * 2)
    count = 2 * len(down)
    information, pull = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    for sums in seen:
        rows, columns = (legendre(2 * share.double() - 1, degree) for share in (sums.down, sums.across))
        basis = (rows[list(down)][:, :, None] * columns[list(across)][:, None, :]).reshape(len(down), -1)
        uu, uv, vv, u, v = sums.planes.reshape(5, -1).double() / (_noise(sums.planes.double()) * sums.alone)
        uu, uv, vv = ((basis * one) @ basis.T for one in (uu, uv, vv))
        pull += torch.cat([basis @ u, basis @ v])
        information += torch.cat([torch.cat([uu, uv], 1), torch.cat([uv, vv], 1)])
    loose = torch.full_like(pull, 1e-8)
    for place, cross in enumerate([i > j for i, j in places(degree)] + [i < j for i, j in places(degree)]):
        if cross and order[place] == 1:
            loose[place] = (_TURN * max(mapping.edit)) ** -2
    stiff = torch.where(order > 1, 1 / variance[order], loose)
    now = mapping.terms[:, list(down), list(across)].reshape(-1)
    for _ in range(_TURNS if degree > 1 else 1):
        covariance = torch.linalg.inv(information + torch.diag(stiff))
        step = (-covariance @ (pull + stiff * now * (stiff > 1e-8))).clamp(-20, 20)
        power = (now + step).square() + covariance.diagonal()
        variance = variance.clone()
        variance[: degree + 1] = (torch.bincount(order, power) / torch.bincount(order)).clamp(min=1e-6)
        stiff = torch.where(order > 1, 1 / variance[order], loose)
    terms = torch.zeros_like(mapping.terms)
    terms[:, list(down), list(across)] = step.reshape(2, -1)
    return terms, variance


def _noise(sums: Tensor) -> float:
    """The variance by which block sums must be divided to be information.

    Were there nothing but noise, r' A^-1 r of a block would be twice that (chi squared of two); the median of such
    is 1.386 times it. The pixels' own variance would be too little: neighbours err alike.
    """
    uu, uv, vv, u, v = sums.reshape(5, -1)
    solid = uu * vv - uv * uv
    sure = solid > 1e-3 * (uu + vv).square() + 1e-12
    if int(sure.sum()) < 8:
        return _UNTOLD
    spread = (vv * u * u - 2 * uv * u * v + uu * v * v)[sure] / solid[sure]
    return max(_LEAST, float(spread.median()) / 1.386)
