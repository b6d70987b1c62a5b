"""How far two pictures are apart: PSNR, SSIM, and the difference that an eye sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .filters import blur, luma, pooled, sampled

_MOST_PSNR = 99.0  # identical pictures: infinity is no JSON
_SAMPLES = 20_000
# sRGB to XYZ over the white point D65 (IEC 61966-2-1), and Lab's knee.
_XYZ = ((0.4339530, 0.3762190, 0.1898280), (0.2126710, 0.7151600, 0.0721690), (0.0177580, 0.1094770, 0.8727650))
_KNEE = 6 / 29


@dataclass(frozen=True)
class Distance:
    """psnr in dB, at most 99; ssim 0..1 of the brightness; delta: the mean CIEDE2000."""

    psnr: float
    ssim: float
    delta: float


SAME = Distance(_MOST_PSNR, 1.0, 0.0)


def distance(one: Tensor, other: Tensor, where: Tensor) -> Distance | None:
    """Between two pictures [3,H,W] and [3,h,w] 0..1 of the same at the pixels `where` [H,W] bool; None where there are
    none.

    PSNR and CIEDE2000 are measured at some twenty thousand pixels spread evenly.
    """
    if not where.any():
        return None
    step = max(1, math.isqrt(where.numel() // _SAMPLES))
    if not (some := where[::step, ::step]).any():
        step, some = 1, where
    a = one[:, ::step, ::step][:, some]
    if other.shape == one.shape:
        b = other[:, ::step, ::step][:, some]
    else:
        down, across = ((step * n + 0.5) / of for n, of in zip(some.nonzero().T, where.shape, strict=True))
        b = sampled(other, (across * other.shape[2])[None], (down * other.shape[1])[None], "bicubic")[:, 0].clamp(0, 1)
    square = float((a - b).double().square().mean())
    psnr = min(_MOST_PSNR, -10 * math.log10(max(square, 1e-10)))
    return Distance(psnr, ssim(luma(one), luma(other), where), float(ciede2000(lab(a), lab(b)).mean()))


def ssim(one: Tensor, other: Tensor, where: Tensor) -> float:
    """Structural similarity of brightness [1,H,W] and [1,h,w] (Wang et al. 2004), its mean over `where` [H,W] bool.

    As its authors advise, looked at from where the short side is about 256 pixels.
    """
    factor = max(1, round(min(where.shape) / 256))
    small = where.shape[0] // factor, where.shape[1] // factor
    one, other, share = (pooled(p, *small) for p in (one, other, where.float()[None]))
    a, b, aa, bb, ab = blur(torch.cat([one, other, one * one, other * other, one * other]), 1.5)
    top = (2 * a * b + 1e-4) * (2 * (ab - a * b) + 9e-4)
    index = top / ((a * a + b * b + 1e-4) * (aa - a * a + bb - b * b + 9e-4))
    return float((index * share[0]).sum() / share.sum())


def lab(colour: Tensor) -> Tensor:
    """[3,...] sRGB 0..1 to CIE Lab, D65."""
    linear = torch.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055).clamp(min=0) ** 2.4)
    x, y, z = (
        torch.where(t > _KNEE**3, t.clamp(min=1e-9) ** (1 / 3), t / (3 * _KNEE**2) + 4 / 29)
        for t in torch.einsum("ij,j...->i...", torch.tensor(_XYZ), linear)
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def ciede2000(one: Tensor, other: Tensor) -> Tensor:
    """The difference of two colours in Lab [3,...], by Sharma, Wu and Dalal (2005)."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    chroma = ((a1.hypot(b1) + a2.hypot(b2)) / 2) ** 7
    stretch = 1 + 0.5 * (1 - (chroma / (chroma + 25**7)).sqrt())
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = a1.hypot(b1), a2.hypot(b2)
    h1, h2 = torch.atan2(b1, a1), torch.atan2(b2, a2)
    turn = torch.remainder(h2 - h1 + math.pi, 2 * math.pi) - math.pi
    grey = c1 * c2 == 0
    turn = torch.where(grey, torch.zeros_like(turn), turn)
    light, strong = l2 - l1, c2 - c1
    hue = 2 * (c1 * c2).sqrt() * (turn / 2).sin()
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    mean_h = torch.where(grey, h1 + h2, h1 + turn / 2)
    weight = (
        1
        - 0.17 * (mean_h - math.pi / 6).cos()
        + 0.24 * (2 * mean_h).cos()
        + 0.32 * (3 * mean_h + math.radians(6)).cos()
        - 0.20 * (4 * mean_h - math.radians(63)).cos()
    )
    sl = 1 + 0.015 * (mean_l - 50) ** 2 / (20 + (mean_l - 50) ** 2).sqrt()
    sc, sh = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * weight
    degrees = torch.remainder(torch.rad2deg(mean_h), 360)
    around = 30 * torch.exp(-(((degrees - 275) / 25) ** 2))
    power = mean_c**7
    twist = -2 * (power / (power + 25**7)).sqrt() * (2 * around.deg2rad()).sin()
    parts = light / sl, strong / sc, hue / sh
    square: Tensor = parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2 + twist * parts[1] * parts[2]
    return square.clamp(min=0).sqrt()
