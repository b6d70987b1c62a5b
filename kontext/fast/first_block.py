"""The first block as a messenger: where it does what it did, the others are taken to do what they did.

ParaAttention's first-block cache: a block adds to its rows; if what the first one adds has changed little since the
last call that ran them all, then the sum of what the others added then is added again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


def change(now: torch.Tensor, before: torch.Tensor) -> float:
    """The mean absolute difference as a part of `before`'s mean: the largest of the pictures [B, ...]."""
    difference = (now.float() - before.float()).abs().flatten(1).mean(1)
    return float((difference / before.float().abs().flatten(1).mean(1).clamp(min=1e-12)).max())


@dataclass
class FirstBlock:
    """What the blocks added to the picture's rows in the last call that ran them all; nothing before the first."""

    first: torch.Tensor | None = None
    others: torch.Tensor | None = None

    def may_end(self, added: torch.Tensor, threshold: float) -> bool:
        """Whether a call whose first block added this [B, rows, H] may end with it."""
        if self.first is None or self.others is None or self.first.shape != added.shape:
            return False
        return change(added, self.first) < threshold

    def keep(self, first: torch.Tensor, others: torch.Tensor) -> None:
        self.first, self.others = first, others
