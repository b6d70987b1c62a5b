"""LoRA beside a layer whose weight must not change: products of two narrow matrices, added to the layer's output.

out: [..., N], what the layer has made of x [..., K].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional

# Matrices whose largest number is no smaller than this have their digits in half floats.
_FINE = 2.0**-10


@dataclass(frozen=True)
class Branch:
    """LoRA beside a layer: `x @ down.T @ up.T * strength`, added to `up.shape[0]` outputs from `offset` on.

    down: [rank, inputs]. up: [rows, rank]. Both in the model's compute type. strength: 1 in what `join` makes.
    """

    down: torch.Tensor
    up: torch.Tensor
    offset: int
    strength: float = 1.0

    def add_to(self, out: torch.Tensor, x: torch.Tensor) -> None:
        """Add this branch's output for the input `x` to `out`, in place; computed where and in what type `out` is."""
        _add(out, x, self.down, (self,))

    def add_to_weight(self, weight: torch.Tensor) -> None:
        """Add to a layer's written-out `weight`, in place, what this branch does to its outputs."""
        rows = weight[self.offset : self.offset + self.up.shape[0]]
        rows.addmm_(self.up.to(weight), self.down.to(weight), alpha=self.strength)

    def moved(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> Branch:
        """The same with its matrices moved or cast."""
        return Branch(fn(self.down), fn(self.up), self.offset, self.strength)


@dataclass(frozen=True)
class Joined:
    """All branches of a layer: `down` is theirs one below the other, so that the input is read once for all."""

    down: torch.Tensor
    ups: tuple[torch.Tensor, ...]
    offsets: tuple[int, ...]

    def __iter__(self) -> Iterator[Branch]:
        downs = self.down.split_with_sizes([up.shape[1] for up in self.ups])
        return (Branch(*parts) for parts in zip(downs, self.ups, self.offsets, strict=True))

    def add_to(self, out: torch.Tensor, x: torch.Tensor) -> None:
        """Add what the branches make of the input `x` to `out`, as each of them would."""
        _add(out, x, self.down, tuple(self))

    def moved(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> Joined:
        """The same with its matrices moved or cast."""
        return Joined(fn(self.down), tuple(fn(up) for up in self.ups), self.offsets)

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self.down, *self.ups


def _add(out: torch.Tensor, x: torch.Tensor, down: torch.Tensor, branches: tuple[Branch, ...]) -> None:
    """Add branches whose matrices `down` are one to out [..., N], which must be contiguous.

    Each picture of a batch [B, ..., K] is computed by itself, as in `quantise_input`.
    """
    down, ups = down.to(out), [branch.up.to(out) for branch in branches]
    pictures = [(out[i], x[i]) for i in range(len(x))] if x.ndim > 2 else [(out, x)]
    for picture, rows in pictures:
        narrow, first = functional.linear(rows.reshape(-1, x.shape[-1]).to(out), down), 0
        for branch, up in zip(branches, ups, strict=True):
            # Written into its outputs by the product itself: another pass over them, and a rounding, less.
            changed = picture.view(-1, out.shape[-1])[:, branch.offset : branch.offset + up.shape[0]]
            changed.addmm_(narrow[:, first : first + up.shape[1]], up.t(), alpha=branch.strength)
            first += up.shape[1]


def join(branches: Iterable[Branch], device: torch.device, dtype: torch.dtype) -> Joined | None:
    """The branches of one layer on a device and in a type, those of the same rows as one; None if there are none.

    Their strengths go into `up`, where they are rounded no more than the branches' outputs would be: a number beside
    the matrices would be one more graph for a compiler, for every strength.
    """
    same_rows: dict[tuple[int, int], list[Branch]] = {}
    for branch in branches:
        same_rows.setdefault((branch.offset, branch.up.shape[0]), []).append(branch)
    if not same_rows:
        return None
    downs, ups = [], []
    for some in same_rows.values():
        pairs = [_weighed(branch, device, dtype) for branch in some]
        downs += [down for down, _ in pairs]
        ups.append(_one([up for _, up in pairs], 1))
    return Joined(_one(downs, 0), tuple(ups), tuple(offset for offset, _ in same_rows))


def _one(tensors: list[torch.Tensor], dim: int) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def _weighed(branch: Branch, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """A branch's matrices with its strength in them."""
    down, up = branch.down, branch.up
    if branch.strength != 1:
        up = up.to(torch.float32) * branch.strength
    if dtype == torch.float16:
        down, up = _balanced(down.to(torch.float32), up.to(torch.float32))
    return down.to(device, dtype), up.to(device, dtype)


def _balanced(down: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same product, of factors of about one size where `up` is the smaller or half floats do not hold one of them.

    They are coarse below 6e-5 and end at 65504. Otherwise `down` is left: a larger one would make larger numbers of x.
    """
    inner, outer = (float(matrix.abs().max()) if matrix.numel() else 0.0 for matrix in (down, up))
    # A damaged LoRA is nothing to balance either.
    if not (0 < inner < math.inf and 0 < outer < math.inf) or (_FINE <= inner <= outer <= 1 / _FINE):
        return down, up
    # A power of two changes no digit.
    factor = 2.0 ** round(math.log2(inner / outer) / 2)
    return down / factor, up * factor


@dataclass(frozen=True)
class Shift:
    """What a LoRA adds to a layer's bias: `values * strength`, to as many outputs from `offset` on."""

    values: torch.Tensor
    offset: int
    strength: float = 1.0

    def add_to(self, out: torch.Tensor, x: torch.Tensor) -> None:
        """Add it to `out`, in place, whatever the input `x` is."""
        out[..., self.offset : self.offset + len(self.values)].add_(self.values.to(out), alpha=self.strength)

    def moved(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> Shift:
        return Shift(fn(self.values), self.offset, self.strength)
