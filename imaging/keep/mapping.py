"""Where every point of the source lies in the edit: an even scale and shift, turned, stretched and gently bent."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from .filters import centres

DEGREE = 9  # a bend of one and a half waves across the picture, to a hundredth of its height


@dataclass(frozen=True, eq=False)
class Mapping:
    """u, v in the edit, in pixels from its top left edge, of a point in the source.

    plain [2,3]: the framing it started from: from shares 0..1 of the source's width and height to u, v.
    terms [2,n,n] fp64: u and v as products of Legendre polynomials: [:, i, j] of degree i down and j across the
    source, both -1..1. edit: the edit's (height, width).
    """

    plain: Tensor
    terms: Tensor
    edit: tuple[int, int]

    @classmethod
    def of(cls, plain: Tensor, edit: tuple[int, int]) -> Mapping:
        """The framing alone."""
        terms = torch.zeros(2, DEGREE + 1, DEGREE + 1, dtype=torch.float64)
        terms[:, 0, 1], terms[:, 1, 0] = plain[:, 0] / 2, plain[:, 1] / 2
        terms[:, 0, 0] = plain[:, 2] + (plain[:, 0] + plain[:, 1]) / 2
        return cls(plain, terms, edit)

    def moved(self, terms: Tensor) -> Mapping:
        """With these terms added."""
        return replace(self, terms=self.terms + terms)

    def at(self, down: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
        """u, v [len(down), len(across)] fp32 at the source's shares 0..1."""
        rows = legendre(2 * down.double() - 1, DEGREE)
        columns = legendre(2 * across.double() - 1, DEGREE)
        u, v = (rows.T @ part @ columns for part in self.terms)
        return u.float(), v.float()

    def on(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """u, v at the centres of a grid over the whole source."""
        rows, columns = _basis(height), _basis(width)
        # An exact sum over few terms, then a ten-thousandth of a pixel is enough.
        u, v = ((rows.T @ part).float() @ columns.float() for part in self.terms)
        return u, v

    def covered(self, u: Tensor, v: Tensor, margin: float = 0.0) -> Tensor:
        """[h,w] bool: which of the points u, v lie within the edit, that far from its border."""
        height, width = self.edit
        return (u > margin) & (u < width - margin) & (v > margin) & (v < height - margin)

    def affine(self) -> Tensor:
        """[2,3] fp64, from shares 0..1 of the source to u, v: the bend left out."""
        across, down = 2 * self.terms[:, 0, 1], 2 * self.terms[:, 1, 0]
        return torch.stack([across, down, self.terms[:, 0, 0] - (across + down) / 2], 1)

    def bend(self) -> tuple[float, float]:
        """How far the edit strays from the affine, in its pixels: on average (root mean square) and at most."""
        bent = self.terms.clone()
        bent[:, 0, 0] = bent[:, 0, 1] = bent[:, 1, 0] = 0
        u, v = replace(self, terms=bent).on(48, 48)
        far = (u * u + v * v).double()
        return math.sqrt(float(far.mean())), math.sqrt(float(far.max()))

    def motion(self) -> tuple[tuple[float, float], float, float]:
        """Against the framing: the shift of the middle in edit pixels, the scale, and the turn in degrees."""
        now, was = self.affine(), self.plain.double()
        shift = now @ torch.tensor([0.5, 0.5, 1.0]).double() - was @ torch.tensor([0.5, 0.5, 1.0]).double()
        linear = now[:, :2] @ torch.linalg.inv(was[:, :2])
        scale = math.sqrt(abs(float(torch.linalg.det(linear))))
        turn = math.degrees(math.atan2(float(linear[1, 0] - linear[0, 1]), float(linear[0, 0] + linear[1, 1])))
        return (float(shift[0]), float(shift[1])), scale, turn


def legendre(t: Tensor, degree: int) -> Tensor:
    """[degree + 1, len(t)]: the Legendre polynomials at t, -1..1, by Bonnet's recursion."""
    rows = [torch.ones_like(t), t]
    for n in range(2, degree + 1):
        rows.append(((2 * n - 1) * t * rows[-1] - (n - 1) * rows[-2]) / n)
    return torch.stack(rows[: degree + 1])


@lru_cache(maxsize=32)
def _basis(count: int) -> Tensor:
    """The polynomials at the centres of so many pixels."""
    return legendre(2 * centres(count).double() - 1, DEGREE)


def places(degree: int) -> list[tuple[int, int]]:
    """Which products of two polynomials have at most this degree together: (down, across), lowest first."""
    return [(total - j, j) for total in range(degree + 1) for j in range(total + 1)]
