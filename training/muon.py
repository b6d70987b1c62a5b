"""Muon: momentum, made orthogonal. All matrices of one shape are made so at once, in float32.

After Keller Jordan's Muon and torch.optim.Muon, whose learning rates it shares. torch's works one matrix at a time
in bfloat16, which processors without bfloat16 arithmetic are slow at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import nn

_STEPS = 5
_QUINTIC = (3.4445, -4.7750, 2.0315)


class BatchedMuon:
    """matrices: parameters, each with the rows of every matrix that is stacked in it; kernels count as matrices."""

    def __init__(
        self,
        matrices: Sequence[tuple[nn.Parameter, tuple[int, ...]]],
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        self._matrices = list(matrices)
        self._momentum, self._decay = momentum, weight_decay
        self._buffers = [torch.zeros_like(parameter) for parameter, _ in self._matrices]

    @torch.no_grad()
    def step(self, rate: float | torch.Tensor) -> None:
        """One step from the parameters' gradients."""
        pieces: dict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
        for (parameter, rows), buffer in zip(self._matrices, self._buffers, strict=True):
            if parameter.grad is None:
                continue
            buffer.lerp_(parameter.grad, 1 - self._momentum)
            update = parameter.grad.lerp(buffer, self._momentum).flatten(1)
            parameter.mul_(1 - rate * self._decay)
            targets = torch.split(parameter, list(rows))
            for target, piece in zip(targets, torch.split(update, list(rows)), strict=True):
                pieces[tuple(piece.shape)].append((target, piece))
        for shape, pairs in pieces.items():
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            straight = orthogonal(torch.stack([piece for _, piece in pairs]))
            for (target, _), change in zip(pairs, straight, strict=True):
                target.sub_(change.view(target.shape) * (rate * scale))

    def state(self) -> list[torch.Tensor]:
        """The momenta, to be saved."""
        return self._buffers

    def resume(self, buffers: Sequence[torch.Tensor]) -> None:
        """Goes on with saved momenta."""
        for own, saved in zip(self._buffers, buffers, strict=True):
            own.copy_(saved)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """[N, rows, columns] with all singular values near 1 (Newton and Schulz, five steps)."""
    a, b, c = _QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x: torch.Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.transpose(1, 2) if tall else x
