"""What was left out of a run, counted, and how far its result is from the exact one."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class Tally:
    """Counts over all calls of a run or of several.

    rows: of all tokens through all blocks, and how many of these were left out: what a call costs goes by them.
    notes: why something that was asked for was not done.
    """

    calls: int = 0
    ended: int = 0
    blocks: int = 0
    blocks_left: int = 0
    without: int = 0
    tokens: int = 0
    tokens_left: int = 0
    reference: int = 0
    reference_left: int = 0
    rows: int = 0
    rows_left: int = 0
    notes: dict[str, None] = field(default_factory=dict)

    def note(self, text: str) -> None:
        self.notes[text] = None

    def count(
        self, *, blocks: int, text: int, picture: int, kept: int, reference: int, fewer: int, ended: bool
    ) -> None:
        """One call: how many blocks and tokens it had by right, and what of them it computed."""
        self.calls += 1
        self.ended += ended
        self.blocks += blocks
        self.blocks_left += blocks - 1 if ended else 0
        self.without += kept < picture
        self.tokens += picture
        self.tokens_left += picture - kept
        self.reference += reference
        self.reference_left += reference - fewer
        whole = blocks * (text + picture + reference)
        self.rows += whole
        self.rows_left += whole - (1 if ended else blocks) * (text + kept + fewer)

    @property
    def saved(self) -> float:
        """The part of the rows through blocks that was left out."""
        return self.rows_left / self.rows if self.rows else 0.0

    def lines(self) -> list[str]:
        """In words, a fact a line: what was left out in all, what could not be, and then where it was left out."""
        told = [f"{self.saved:.0%} of the work left out", *self.notes]
        if self.blocks_left:
            told.append(
                f"cache: {self.ended} of {self.calls} calls ended after their first block, "
                f"{self.blocks_left} of {self.blocks} blocks left out"
            )
        if self.tokens_left:
            told.append(
                f"mask: in {self.without} of {self.calls} calls {self.tokens_left // self.without} of "
                f"{self.tokens // self.calls} tokens left out"
            )
        if self.reference_left:
            told.append(
                f"reference: {(self.reference - self.reference_left) // self.calls} instead of "
                f"{self.reference // self.calls} tokens"
            )
        return told

    def said(self, deviation: Deviation | None) -> list[str]:
        """The same with what it saved and changed. A node has room for some 80 characters: what counts comes first."""
        if deviation is not None:
            return [str(deviation), *self.lines()]
        whole, *others = self.lines()
        return [whole, NOT_MEASURED, *others]


NOT_MEASURED = "time saved and deviation: not measured"


@dataclass(frozen=True)
class Deviation:
    """A fast result beside the exact one from the same noise.

    latent: the difference as a part of the exact one. picture: decibels of peak signal to noise, None where nothing
    was decoded. exact, fast: seconds of all calls.
    """

    latent: float
    picture: float | None
    exact: float
    fast: float

    def __str__(self) -> str:
        saved = 1 - self.fast / self.exact if self.exact > 0 else 0.0
        # A machine that is busy meanwhile, or a model too small, makes the fast run the slower.
        time = f"{saved:.0%} of the time saved" if saved >= 0.005 else "no time saved"
        shown = "pictures not compared" if self.picture is None else f"picture {self.picture:.1f} dB"
        return f"{time}, {shown}, latent {self.latent:.3f} apart ({self.fast:.2f} s instead of {self.exact:.2f} s)"


def apart(one: torch.Tensor, exact: torch.Tensor) -> float:
    """How far a latent is from the exact one, as a part of it."""
    return float((one.float() - exact.float()).norm() / exact.float().norm().clamp(min=1e-12))


def decibels(one: torch.Tensor, exact: torch.Tensor) -> float:
    """Peak signal to noise of a picture of 0..1 against the exact one, at most 120."""
    error = (one.float().clamp(0, 1) - exact.float().clamp(0, 1)).square().mean().clamp(min=1e-12)
    return float(-10 * torch.log10(error))
