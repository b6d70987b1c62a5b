"""A first guess of where the edit lies, by correlation of the directions of edges.

The direction of an edge survives a change of colour, light and contrast, and every edge counts the same. Tried are
the ways in which a picture comes to be framed anew, each at scales up to a sixth apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .bench import Bench
from .filters import blur, centres, scaled, slopes
from .mapping import Mapping

LONG = 128
_SCALES = torch.linspace(0.84, 1.18, 18)
_REACH = 0.12  # the largest shift, of the long side
_LIKELY = 0.08  # the deviation of shifts: of two equal fits the nearer is right
_EDGE = 0.15  # of the length: how wide the window's flanks are
_FAINT = 0.006  # edges weaker than this are noise


@dataclass(frozen=True)
class Guess:
    """A mapping and how well it fits, 0..1."""

    mapping: Mapping
    fit: float


def first_guesses(source: Tensor, edited: Tensor, bench: Bench, most: int = 3) -> list[Guess]:
    """The likeliest first. source, edited: both pictures' luminance [1,h,w], small."""
    size = bench.edit
    shrink = LONG / max(size)
    height, width = max(8, round(size[0] * shrink)), max(8, round(size[1] * shrink))
    window = torch.outer(_window(height), _window(width))
    target = _directions(scaled(edited, height, width)[None]) * window
    target_strength = float((target.abs() ** 2).sum())
    target = torch.fft.fft2(target)
    guesses: list[Guess] = []
    for frame in framings(size, bench.aspect):
        trials = _trials(source, frame, size, height, width)
        seen = _directions(trials) * window
        strength = (seen.abs() ** 2).sum((1, 2)) * target_strength
        fits = torch.fft.ifft2(target * torch.fft.fft2(seen).conj()).real / (strength[:, None, None].sqrt() + 1e-6)
        guesses += [_peak(fit, frame, float(scale), size) for fit, scale in zip(fits, _SCALES, strict=True)]
    return _best(guesses, most)


def framings(edit: tuple[int, int], aspect: float) -> list[tuple[float, float]]:
    """The (height, width) of the whole source in the edit: squeezed to it, covering it, or within it."""
    height, width = float(edit[0]), float(edit[1])
    squeezed = [(height, width)]
    if abs(math.log(aspect * height / width)) < 0.004:
        return squeezed
    heights = height, width / aspect
    return [*squeezed, *((tall, tall * aspect) for tall in (max(heights), min(heights)))]


def _window(length: int) -> Tensor:
    """1, falling to 0 at both ends: what changed is most often in the middle, so the rest must count as much."""
    edge = torch.minimum(torch.arange(length) + 0.5, length - 0.5 - torch.arange(length)) / (_EDGE * length)
    return (edge.clamp(max=1) * math.pi / 2).sin()


def _directions(pictures: Tensor) -> Tensor:
    """[N,1,h,w] to [N,h,w] complex: the gradient over its length."""
    across, down = slopes(blur(pictures[:, 0], 1.0))
    gradient = torch.complex(across, down)
    return gradient / (gradient.abs() + _FAINT)


def _trials(source: Tensor, frame: tuple[float, float], edit: tuple[int, int], height: int, width: int) -> Tensor:
    """[scales,1,height,width]: the source framed at each scale about the middle, at the small size."""
    tall, wide = (max(8, round(frame[axis] / edit[axis] * (height, width)[axis])) for axis in (0, 1))
    small = scaled(source, tall, wide)
    down, across = ((centres(n) * 2 - 1) * edit[axis] / frame[axis] for axis, n in ((0, height), (1, width)))
    grid = (
        torch.stack([across.expand(height, -1), down[:, None].expand(-1, width)], -1)[None]
        / _SCALES[:, None, None, None]
    )
    return F.grid_sample(small.expand(len(_SCALES), -1, -1, -1), grid, padding_mode="reflection", align_corners=False)


def _peak(fit: Tensor, frame: tuple[float, float], scale: float, edit: tuple[int, int]) -> Guess:
    """Where the correlation [h,w] is highest among the likely shifts."""
    height, width = fit.shape
    reach = max(1, round(_REACH * max(height, width)))
    rows, columns = min(reach, (height - 1) // 2), min(reach, (width - 1) // 2)
    near = torch.roll(fit, (rows, columns), (0, 1))[: 2 * rows + 1, : 2 * columns + 1]
    down, across = torch.arange(-rows, rows + 1.0), torch.arange(-columns, columns + 1.0)
    deviation = _LIKELY * max(height, width)
    near = near * torch.exp(-(down[:, None] ** 2 + across**2) / (2 * deviation**2))
    row, column = divmod(int(near.argmax()), 2 * columns + 1)
    shift = float(across[column]) * edit[1] / width, float(down[row]) * edit[0] / height
    tall, wide = frame[0] * scale, frame[1] * scale
    middle = (edit[1] - wide) / 2, (edit[0] - tall) / 2
    mapping = Mapping.of(_plain(frame, edit), edit)
    start = Mapping.of(torch.tensor([[wide, 0, middle[0] + shift[0]], [0, tall, middle[1] + shift[1]]]), edit)
    return Guess(mapping.moved(start.terms - mapping.terms), float(near.max()))


def _plain(frame: tuple[float, float], edit: tuple[int, int]) -> Tensor:
    tall, wide = frame
    return torch.tensor([[wide, 0, (edit[1] - wide) / 2], [0, tall, (edit[0] - tall) / 2]])


def _best(guesses: list[Guess], most: int) -> list[Guess]:
    """The best that are not one another's neighbours."""
    chosen: list[Guess] = []
    for guess in sorted(guesses, key=lambda one: -one.fit):
        terms = guess.mapping.terms
        near = 0.025 * max(guess.mapping.edit)
        if all(float((terms - other.mapping.terms).abs().max()) > near for other in chosen):
            chosen.append(guess)
    return chosen[:most]
