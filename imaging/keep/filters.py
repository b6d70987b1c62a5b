"""The few filters that everything here is made of, on planes [C,H,W] fp32.

A blur is a product with a banded matrix, tile by tile: on a CPU a fifth of the time of a convolution, and the
same for every width. A running maximum is made of shifted maxima, which is a twentieth of a pooling's time. Many
passes over a large picture take half the time in bands that a cache holds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_TILE = 48
_COARSE = 6  # times coarser, and means of means of four will do for means
_BAND = 200  # rows: with twenty more on both sides five tiles of a blur
# The eye's weights of red, green and blue (Rec. 601).
_LUMA = (0.299, 0.587, 0.114)


def luma(colour: Tensor) -> Tensor:
    """[1,H,W]: the brightness of [3,H,W]."""
    return (torch.tensor(_LUMA) @ colour.reshape(3, -1)).reshape(1, *colour.shape[1:])


def blur(planes: Tensor, sigma: float) -> Tensor:
    """A Gaussian of that deviation; beyond the border the border's own values go on."""
    band = _band(round(sigma * 64))
    return _across(_down(planes, band), band).contiguous()


def slopes(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Change per pixel to the right and downwards; none across the border."""
    across, down = torch.zeros_like(planes), torch.zeros_like(planes)
    across[..., 1:-1] = (planes[..., 2:] - planes[..., :-2]) / 2
    down[..., 1:-1, :] = (planes[..., 2:, :] - planes[..., :-2, :]) / 2
    return across, down


def highest(planes: Tensor, radius: int) -> Tensor:
    """The largest value in the square of that radius; beyond the border there is nothing."""
    return _extreme(planes, radius, torch.maximum, -math.inf)


def lowest(planes: Tensor, radius: int) -> Tensor:
    """The smallest value in the square of that radius; beyond the border there is nothing."""
    return _extreme(planes, radius, torch.minimum, math.inf)


def grown(mask: Tensor, radius: int) -> Tensor:
    """[H,W] bool: within the square of that radius around the mask [H,W] bool."""
    return _extreme(mask.view(torch.uint8)[None], radius, torch.maximum, 0)[0].view(torch.bool)


def shrunk(mask: Tensor, radius: int) -> Tensor:
    """[H,W] bool: where all of that square, as far as it lies in the picture, is the mask's."""
    return _extreme(mask.view(torch.uint8)[None], radius, torch.minimum, 1)[0].view(torch.bool)


def in_blocks(
    work: Callable[[slice, slice], Tensor], reach: int, height: int, width: int, where: Tensor | None = None
) -> Tensor:
    """[1,height,width], block by block: what `work` reads and writes then stays in a processor's cache.

    work: [1,h,w] of the rows and columns it is told; reach: how many pixels away what it makes of one can come from.
    where [height,width] bool: where alone it is asked for; elsewhere there may be zeros.
    """
    found = torch.zeros(1, height, width)
    for start in range(0, height, _BAND):
        stop = min(height, start + _BAND)
        first = max(0, start - reach)
        for left, right in [(0, width)] if where is None else _spans(where[start:stop].any(0), 2 * reach):
            before = max(0, left - reach)
            made = work(slice(first, min(height, stop + reach)), slice(before, min(width, right + reach)))
            found[:, start:stop, left:right] = made[:, start - first :, left - before :][:, : stop - start, : right - left]
    return found


def _spans(marked: Tensor, gap: int) -> list[tuple[int, int]]:
    """From the first to behind the last that is marked, without the gaps that are wider than that."""
    places = marked.nonzero()[:, 0].tolist()
    if not places:
        return []
    wide = [(a + 1, b) for a, b in itertools.pairwise(places) if b - a > gap]
    return list(zip([places[0], *(b for _, b in wide)], [*(a for a, _ in wide), places[-1] + 1], strict=True))


def scaled(planes: Tensor, height: int, width: int, mode: str = "bicubic") -> Tensor:
    """At another size, antialiased; at the same size untouched."""
    if planes.shape[1:] == (height, width):
        return planes
    return F.interpolate(planes[None], (height, width), mode=mode, antialias=True)[0]


def pooled(planes: Tensor, height: int, width: int) -> Tensor:
    """Means over the areas of a coarser grid; at the same size untouched."""
    while planes.shape[1] >= _COARSE * height and planes.shape[2] >= _COARSE * width and _even(planes):
        planes = _by_two(planes)
    if planes.shape[1:] == (height, width):
        return planes
    if planes.shape[1:] == (2 * height, 2 * width):
        return _by_two(planes)
    return F.interpolate(planes[None], (height, width), mode="area")[0]


def halved(planes: Tensor) -> Tensor:
    """Means at half the size, of 8 pixels at least."""
    return pooled(planes, max(8, planes.shape[1] // 2), max(8, planes.shape[2] // 2))


def _even(planes: Tensor) -> bool:
    return planes.shape[1] % 2 == 0 == planes.shape[2] % 2


def _by_two(planes: Tensor) -> Tensor:
    pairs = planes[:, ::2] + planes[:, 1::2]
    return (pairs[..., ::2] + pairs[..., 1::2]).mul_(0.25)


def enlarged(planes: Tensor, height: int, width: int) -> Tensor:
    """On a finer grid, linear between."""
    return F.interpolate(planes[None], (height, width), mode="bilinear")[0]


def sampled(planes: Tensor, u: Tensor, v: Tensor, mode: str = "bilinear", beyond: str = "border") -> Tensor:
    """[C,h,w]: the planes at the points u (across), v (down) [h,w], counted in pixels from the top left edge."""
    grid = torch.stack([u * (2 / planes.shape[2]) - 1, v * (2 / planes.shape[1]) - 1], -1)
    return F.grid_sample(planes[None], grid[None], mode=mode, padding_mode=beyond, align_corners=False)[0]


def centres(count: int) -> Tensor:
    """Where pixels 0..count-1 have their centres, as shares 0..1 of the whole length."""
    return (torch.arange(count) + 0.5) / count


def _extreme(planes: Tensor, radius: int, larger: Callable[[Tensor, Tensor], Tensor], nothing: float) -> Tensor:
    found, window = F.pad(planes, (radius,) * 4, value=nothing), 2 * radius + 1
    for axis in (1, 2):
        reach = 1
        while reach < window:
            # Two windows that touch or overlap make one of up to twice the width.
            step = min(reach, window - reach)
            left = found.narrow(axis, 0, found.shape[axis] - step)
            found = larger(left, found.narrow(axis, step, found.shape[axis] - step))
            reach += step
    return found


@lru_cache(maxsize=32)
def _band(sixty_fourths: int) -> Tensor:
    """[tile, tile + 2 radius]: each row the Gaussian's weights, one pixel further on than in the row above."""
    sigma = sixty_fourths / 64
    radius = max(1, math.ceil(3 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    band = torch.zeros(_TILE, _TILE + 2 * radius)
    for row in range(_TILE):
        band[row, row : row + 2 * radius + 1] = weights / weights.sum()
    return band


def _down(planes: Tensor, band: Tensor) -> Tensor:
    """The band's weighted means down the columns of [C,H,W]."""
    count, height, width = planes.shape
    radius, spare = (band.shape[1] - _TILE) // 2, -height % _TILE
    padded = F.pad(planes[None], (0, 0, radius, radius + spare), mode="replicate")[0]
    # Tiles overlap by the radius on both sides: one view, no copy.
    shape = count, (height + spare) // _TILE, band.shape[1], width
    tiles = padded.as_strided(shape, (padded.stride(0), _TILE * width, width, 1))
    return torch.matmul(band, tiles).reshape(count, -1, width)[:, :height]


def _across(planes: Tensor, band: Tensor) -> Tensor:
    """The same along the rows."""
    count, height, width = planes.shape
    radius, spare = (band.shape[1] - _TILE) // 2, -width % _TILE
    padded = F.pad(planes[None], (radius, radius + spare, 0, 0), mode="replicate")[0]
    shape = (width + spare) // _TILE, count * height, band.shape[1]
    tiles = padded.as_strided(shape, (_TILE, padded.stride(1), 1))
    means = torch.bmm(tiles, band.T.expand(len(tiles), -1, -1))
    return means.transpose(0, 1).reshape(count, height, -1)[..., :width]
