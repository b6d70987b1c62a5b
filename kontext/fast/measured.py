"""The approximated run beside the exact one, from the same noise: how far apart, and what time was saved."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from .tally import Deviation, Tally, apart, decibels

T = TypeVar("T")


class Clock:
    """Seconds of single calls, each waited for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def timed(self, device: torch.device, call: Callable[[], T]) -> T:
        _wait(device)
        began = time.perf_counter()
        out = call()
        _wait(device)
        self.seconds.append(time.perf_counter() - began)
        return out

    @property
    def steady(self) -> float:
        """All calls, the first as if it had taken the median: it also pays for what is only done once.

        The others as they were: on a machine that is busy now and then both runs are held up, and the median of one
        beside all of the other would hide what was saved.
        """
        return sum(self.seconds[1:]) + statistics.median(self.seconds) if self.seconds else 0.0

    @property
    def total(self) -> float:
        return sum(self.seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compared(
    exactly: Callable[[Clock], torch.Tensor],
    fast: Callable[[Clock], torch.Tensor],
    tally: Tally,
    decode: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[torch.Tensor, list[str]]:
    """The latent of the fast run, and what there is to say of it; both runs have their calls timed."""
    clocks = Clock(), Clock()
    exact, latent = exactly(clocks[0]), fast(clocks[1])
    shown = None if decode is None else decibels(decode(latent), decode(exact))
    deviation = Deviation(apart(latent, exact), shown, clocks[0].steady, clocks[1].total)
    return latent, tally.said(deviation)
