"""An edit with approximations off ComfyUI, and what there is to say of it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..fast.measured import Clock, compared
from ..fast.tally import Tally
from ..fast.wishes import Wishes

# A call of `sample` that is still to be told of approximations.
Take = Callable[..., torch.Tensor]


def sampled(
    take: Take, wishes: Wishes, decode: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> tuple[torch.Tensor, list[str]]:
    """The latent of an edit, and what was left out of it, a fact a line; nothing where nothing was to be.

    decode: makes pictures of latents; given, the edit is also made exactly, and the two are compared.
    """
    if not wishes:
        return take(), []
    tally = Tally()
    if decode is None:
        latent = take(fast=wishes, tally=tally)
        return latent, tally.said(None)

    def exactly(clock: Clock) -> torch.Tensor:
        return take(clock=clock)

    def fast(clock: Clock) -> torch.Tensor:
        return take(fast=wishes, tally=tally, clock=clock)

    return compared(exactly, fast, tally, decode)
