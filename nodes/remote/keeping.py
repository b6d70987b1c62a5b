"""The switch `keep` of the remote nodes: which picture each edit was made from, and the edits laid back onto them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ...imaging.codec import DecodedImage, Stacked, to_tensors
from ...imaging.keep.switch import KeptEdits, keep_edits
from ...imaging.pixels import check_image
from ...oxen.errors import InvalidParameters
from ...oxen.jobs.order import Outcome
from ...oxen.jobs.progress import Progress


@dataclass(frozen=True, eq=False)
class Keeping:
    """source [n,H,W,C]: the pictures of all `edits` in order, each of as many edits. check: raises where stopped."""

    source: torch.Tensor
    edits: int
    check: Callable[[], None]

    def keep(self, outcomes: Sequence[Outcome[DecodedImage]], stacked: Stacked, progress: Progress) -> KeptEdits:
        """The pictures that came laid back onto theirs. stacked: the same pictures as one IMAGE."""
        came = [(index, o.picture) for index, o in enumerate(outcomes) if o.picture is not None]
        edited = [
            # one that was brought to the first one's size is kept from what came, not from that
            to_tensors([picture]).image[0] if place in stacked.resized else stacked.image[place]
            for place, (_, picture) in enumerate(came)
        ]
        sources = [self.source[index * len(self.source) // self.edits] for index, _ in came]
        return keep_edits(sources, edited, stacked.image, self.check, lambda place: progress.kept(came[place][0]))


def checked_source(source: object, edits: int) -> torch.Tensor:
    """The pictures before some edits of which the record has none; raises InvalidParameters or ImageError."""
    if source is None:
        raise InvalidParameters(
            "keep is auto, and that needs the pictures as they were before the edit, which the records of edits do not "
            "hold. Connect them to source, or set keep to off. Nothing was fetched."
        )
    image = check_image(source)  # type: ignore[arg-type]
    if edits % len(image):
        many = "1 edit" if edits == 1 else f"{edits} edits"
        raise InvalidParameters(
            f"keep is auto, and source has {len(image)} pictures for {many}. Connect one for all of them, one "
            "for each, or those that were submitted, where each has as many variations. Nothing was fetched."
        )
    return image
