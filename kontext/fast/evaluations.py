"""One run of a sampler: what each call of the model may leave out, and what has to be put back.

A mount makes a Run when its sampler begins, asks it for a call each time that the model is evaluated, and tells the
call what passes through the blocks. Nothing here knows what a block is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .first_block import FirstBlock
from .outside import Settling, inside, towards
from .smaller import shrunk, shrunk_places
from .tally import Tally
from .wishes import Wishes

OTHER_SIZE = "mask: nothing left out, for the first reference is of another size than the result"


class Run:
    """height, width: of the latent that is sampled, both even. tally: what is counted goes there.

    within, outside: which of the picture's tokens are always computed, and which may be left out; empty without a mask.
    """

    def __init__(self, wishes: Wishes, height: int, width: int, tally: Tally) -> None:
        self.wishes = wishes
        self.height, self.width = height, width
        self.tally = tally
        self.within = self.outside = torch.arange(0)
        if wishes.leaves_out and wishes.mask is not None:
            is_inside = inside(wishes.mask, height, width).cpu()
            self.within, self.outside = (which.nonzero()[:, 0] for which in (is_inside, ~is_inside))
        self.settling = Settling(wishes.settled)
        self._first_blocks: dict[object, FirstBlock] = {}

    def references(
        self, references: list[torch.Tensor], places: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The references' latents, and where all tokens lie, [tokens, 3] of picture and references, once smaller."""
        factor = self.wishes.smaller
        if factor == 1:
            return references, places
        sizes = [(latent.shape[2], latent.shape[3]) for latent in references]
        picture, *others = torch.split(places, [self.height * self.width // 4, *(h * w // 4 for h, w in sizes)])
        moved = [shrunk_places(one, h, w, factor) for one, (h, w) in zip(others, sizes, strict=True)]
        return [shrunk(latent, factor) for latent in references], torch.cat([picture, *moved])

    def call(
        self, condition: object, sigma: float, source: torch.Tensor | None, *, all_tokens: bool = False
    ) -> OneCall:
        """A call begins. condition: whatever tells what is evaluated apart, as of classifier-free guidance.

        source: the tokens [B or 1, tokens, values] of the first reference, None where it is of another size.
        all_tokens: nothing may be left out of this one.
        """
        self.settling.begin(sigma)
        if not len(self.outside):
            return OneCall(self, condition, sigma, None, None)
        if source is None:
            self.tally.note(OTHER_SIZE)
        short = source is not None and self.settling.is_over and not all_tokens and sigma > 0
        return OneCall(self, condition, sigma, source, self.within if short else None)

    def first_block(self, condition: object) -> FirstBlock:
        return self._first_blocks.setdefault(condition, FirstBlock())


@dataclass
class OneCall:
    """rows: those of the picture's tokens that are computed; None for all."""

    run: Run
    condition: object
    sigma: float
    source: torch.Tensor | None
    rows: torch.Tensor | None
    ends: bool = False
    _entered: torch.Tensor | None = None
    _after_first: torch.Tensor | None = None
    _added: torch.Tensor | None = None

    @property
    def caches(self) -> bool:
        return self.run.wishes.cache > 0

    def kept(self, tokens: torch.Tensor) -> torch.Tensor:
        """Of the picture's tokens [B, tokens, ...] those that are computed."""
        return tokens if self.rows is None else tokens[:, self.rows.to(tokens.device)]

    def enter(self, picture: torch.Tensor) -> None:
        """The picture's rows [B, rows, H] before the first block, which may change them in place."""
        if self.caches:
            self._entered = picture.clone()

    def after_first(self, picture: torch.Tensor) -> bool:
        """The same rows after the first block; gives whether the call may end here."""
        if self._entered is not None:
            added = picture - self._entered
            self._entered = None
            self.ends = self.run.first_block(self.condition).may_end(added, self.run.wishes.cache)
            self._added, self._after_first = added, picture.clone()
        return self.ends

    def after_last(self, picture: torch.Tensor) -> torch.Tensor:
        """The rows as they came out of the last block that ran; gives them as they are to be read."""
        if self._after_first is None or self._added is None:
            return picture
        remembered = self.run.first_block(self.condition)
        if self.ends and remembered.others is not None:
            return picture + remembered.others
        remembered.keep(self._added, picture - self._after_first)
        return picture

    def velocity(self, tokens: torch.Tensor, computed: torch.Tensor) -> torch.Tensor:
        """The velocity of all of the picture's noisy tokens [B, tokens, values], from that of those that were kept."""
        if self.source is None:
            return computed
        run = self.run
        if self.rows is None:
            if not run.settling.is_over:
                outside = run.outside.to(tokens.device)
                foreseen = tokens[:, outside].float() - self.sigma * computed[:, outside].float()
                run.settling.see(self.condition, foreseen)
            return computed
        whole = towards(self.source, tokens, self.sigma).to(computed.dtype)
        whole[:, self.rows.to(whole.device)] = computed
        return whole

    def count(self, *, blocks: int, text: int, picture: int, reference: int, fewer: int) -> None:
        kept = picture if self.rows is None else len(self.rows)
        self.run.tally.count(
            blocks=blocks,
            text=text,
            picture=picture,
            kept=kept,
            reference=reference,
            fewer=fewer,
            ended=self.ends,
        )
