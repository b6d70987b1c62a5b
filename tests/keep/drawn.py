"""A small benchmark of its own: drawn pictures, edited, moved, tinted and drawn anew the way an editor does it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kontext_bridge.imaging.keep.filters import blur, sampled, scaled
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Pair:
    """source [H,W,3], edited [h,w,3]; ideal [H,W,3]: the edit alone; changed [H,W] bool; affine [2,3]: source to edit
    pixels."""

    source: Tensor
    edited: Tensor
    ideal: Tensor
    changed: Tensor
    affine: Tensor


def scene(height: int, width: int, seed: int = 0) -> Tensor:
    """[H,W,3]: clouds, texture and boxes."""
    rng = torch.Generator().manual_seed(seed)
    coarse, fine = (torch.rand(1, 3, *(max(2, n // cell) for n in (height, width)), generator=rng) for cell in (40, 5))
    grown = [F.interpolate(noise, (height, width), mode="bicubic")[0] for noise in (coarse, fine)]
    picture = 0.15 + 0.5 * grown[0] + 0.2 * grown[1]
    for _ in range(14):
        top, left, tall, wide = (torch.rand(4, generator=rng) * torch.tensor([0.85, 0.85, 0.2, 0.2])).tolist()
        rows = slice(int(top * height), int((top + tall) * height) + 2)
        columns = slice(int(left * width), int((left + wide) * width) + 2)
        picture[:, rows, columns] = 0.7 * torch.rand(3, 1, 1, generator=rng) + 0.3 * picture[:, rows, columns]
    return eight_bit(picture).permute(1, 2, 0).contiguous()


def pair(
    height: int = 288,
    width: int = 384,
    size: tuple[int, int] | None = None,
    zoom: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    fit: str = "squeeze",
    drift: float = 1.0,
    loss: float = 1.0,
    disc: tuple[float, float, float] | None = (0.55, 0.5, 0.16),
    seed: int = 0,
) -> Pair:
    """A disc recoloured, then all of it framed to `size` (height, width; the source's by default), zoomed and shifted.

    fit: squeeze, cover or pad (mirrored). disc: centre and radius in shares of the height; None: nothing is edited.
    """
    source = scene(height, width, seed).permute(2, 0, 1)
    changed = torch.zeros(height, width, dtype=torch.bool)
    ideal = source
    if disc is not None:
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        changed = (x - disc[0] * width) ** 2 + (y - disc[1] * height) ** 2 < (disc[2] * height) ** 2
        ideal = torch.where(changed, torch.stack([source[2], 1 - source[0], source[1] * 0.6]), source)
    tall, wide = size or (height, width)
    across, down = wide / width, tall / height
    if fit != "squeeze":
        across = down = (max if fit == "cover" else min)(across, down)
    across, down = across * zoom, down * zoom
    affine = torch.tensor(
        [[across, 0, (wide - across * width) / 2 + shift[0]], [0, down, (tall - down * height) / 2 + shift[1]]]
    )
    v, u = torch.meshgrid(torch.arange(tall) + 0.5, torch.arange(wide) + 0.5, indexing="ij")
    small = scaled(ideal, round(height * down), round(width * across)) if down < 0.95 else ideal
    x, y = (u - affine[0, 2]) / across, (v - affine[1, 2]) / down
    seen = sampled(small, x * small.shape[2] / width, y * small.shape[1] / height, "bicubic", "reflection")
    return Pair(
        source.permute(1, 2, 0).contiguous(),
        _drawn_anew(_tinted(seen.clamp(0, 1), drift), loss, seed).permute(1, 2, 0).contiguous(),
        ideal.permute(1, 2, 0).contiguous(),
        changed,
        affine,
    )


def eight_bit(picture: Tensor) -> Tensor:
    return (picture.clamp(0, 1) * 255).round() / 255


def _tinted(picture: Tensor, drift: float) -> Tensor:
    slope = torch.linspace(-1, 1, picture.shape[2])
    gain = 1 + drift * torch.tensor([0.05, -0.02, -0.06])[:, None, None] + drift * 0.03 * slope
    return gain * picture ** (1 + 0.06 * drift) + 0.01 * drift


def _drawn_anew(picture: Tensor, loss: float, seed: int) -> Tensor:
    """Fine detail weaker, and a little noise."""
    rng = torch.Generator().manual_seed(seed + 1)
    base = blur(picture, 1.2)
    noise = 0.008 * loss * torch.randn(picture.shape, generator=rng)
    return eight_bit(base + (picture - base) * (1 - 0.25 * loss) + noise)
