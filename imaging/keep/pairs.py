"""Keep for batches: pair by pair, or one source for many edits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ImageError
from ..pixels import check_image, check_mask
from .engine import Options, keep
from .report import KeepReport


@dataclass(frozen=True, eq=False)
class KeptBatch:
    """images [B,H,W,C] and masks [B,H,W] of the sources' size; a report each."""

    images: Tensor
    masks: Tensor
    reports: tuple[KeepReport, ...]


def keep_batch(
    source: Tensor,
    edited: Tensor,
    mask: Tensor | None = None,
    options: Options | None = None,
    progress: Callable[[int, int], None] | None = None,
    check: Callable[[], None] = lambda: None,
) -> KeptBatch:
    """IMAGEs [B,H,W,C] and a MASK [B,H,W] for the sources: one of each for each edit, or one for all of them.

    progress: told how many of how many are done. check: see `keep`. Raises ImageError where counts or sizes do not go
    together, and for NaN and infinity.
    """
    source, edited = check_image(source), check_image(edited)
    count = len(edited)
    if len(source) not in (1, count):
        raise ImageError(
            f"There are {count} edits for {len(source)} sources. Give one edit for each source, or one source for all."
        )
    masks = None if mask is None else _for_each(check_mask(mask), source, count)
    kept = []
    for number in range(count):
        one = source[number if len(source) > 1 else 0]
        bound = None if masks is None else masks[number].cpu()
        kept.append(keep(one.cpu(), edited[number].cpu(), bound, options, check))
        if progress is not None:
            progress(number + 1, count)
    images = torch.stack([one.picture for one in kept]).to(source.device)
    return KeptBatch(
        images, torch.stack([one.mask for one in kept]).to(source.device), tuple(one.report for one in kept)
    )


def _for_each(mask: Tensor, source: Tensor, count: int) -> Tensor | None:
    """[count,H,W]; None for a mask that is zero everywhere: LoadImage gives one where the file has no alpha."""
    if not (mask > 0).any():
        return None
    if tuple(mask.shape[1:]) != tuple(source.shape[1:3]):
        raise ImageError(
            f"The mask is {mask.shape[2]}x{mask.shape[1]} and the source {source.shape[2]}x{source.shape[1]} "
            "(width x height). They must be of one size: scale the mask to the source first."
        )
    if len(mask) not in (1, count):
        raise ImageError(f"There are {len(mask)} masks for {count} edits. Give one for all of them or one for each.")
    return mask.expand(count, -1, -1)
