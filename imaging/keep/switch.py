"""The switch `keep` of what makes edits: each laid back onto its source, and nothing that came is lost over it.

An edit that changes the whole scene is handed on as it came, and so is one with which Keep fails, whatever the reason:
it may have been paid for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .engine import Kept, keep
from .verdict import Verdict

logger = logging.getLogger(__name__)

_TICK = 0.1
_WORDS = 200
# Memory, not time, is what many at once would need; torch uses all cores for one.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, eq=False)
class KeptEdits:
    """image [B,H,W,C]: what is handed on. told: for each edit what was found, as JSON says it. resized: the places of
    those that were not kept and brought to the size of those that were."""

    image: Tensor
    told: tuple[dict[str, Any], ...]
    resized: tuple[int, ...] = ()

    @property
    def says(self) -> str:
        """A line for each edit."""
        return "\n".join(one["says"] for one in self.told)


def keep_edits(
    sources: Sequence[Tensor],
    edited: Sequence[Tensor],
    raw: Tensor,
    check: Callable[[], None],
    done: Callable[[int], None] = lambda _: None,
) -> KeptEdits:
    """Every edit [h,w,C] laid back onto its source [H,W,C]; the sources are of one size.

    raw [B,h,w,C]: the edits as they are handed on where nothing is kept. Beside some that are kept, one that is not is
    brought to their size. check: raises what stands for Cancel. done: told the place of each that is through.
    """
    found: list[Kept | None] = []
    told = []
    for place, (source, edit) in enumerate(zip(sources, edited, strict=True)):
        kept, words = _kept_or_none(source, edit, check)
        found.append(kept)
        told.append(words)
        done(place)
    try:
        image = _stacked(found, edited, raw).to(raw.device)
    except Exception as error:
        check()
        return none_kept(raw, error)
    pairs = enumerate(zip(found, edited, strict=True))
    resized = (place for place, (kept, edit) in pairs if kept is None and edit.shape[:2] != image.shape[1:3])
    return KeptEdits(image, tuple(told), () if all(kept is None for kept in found) else tuple(resized))


def none_kept(raw: Tensor, error: Exception) -> KeptEdits:
    """The edits raw [B,h,w,C] handed on as they came, all of them, because of an error around Keep."""
    told = _failed(error)
    return KeptEdits(raw, tuple(dict(told) for _ in raw))


def _kept_or_none(source: Tensor, edit: Tensor, check: Callable[[], None]) -> tuple[Kept | None, dict[str, Any]]:
    """What was kept, None where the edit is to be handed on, and what to tell."""
    while not _one_at_a_time.acquire(timeout=_TICK):
        check()
    try:
        check()
        # as the host runs nodes: what it gives may not be changed outside that mode, and this may be another thread
        with torch.inference_mode():
            kept = keep(source.cpu(), edit.cpu(), check=check)
        told = kept.report.numbers()
    except Exception as error:
        check()  # raises again where the run was stopped
        return None, _failed(error)
    finally:
        _one_at_a_time.release()
    return (None if kept.report.verdict is Verdict.WHOLE else kept), told


def _failed(error: Exception) -> dict[str, Any]:
    """What is told of an edit with which Keep itself failed."""
    logger.warning("Keep failed, and the edit is handed on as it came.", exc_info=error)
    reason = " ".join(str(error).split())[:_WORDS] or type(error).__name__
    says = f"Keep failed ({reason}): the edit is handed on as it came, nothing was kept and nothing is lost"
    return {"verdict": "failed", "why": reason, "says": says}


def _stacked(found: Sequence[Kept | None], edited: Sequence[Tensor], raw: Tensor) -> Tensor:
    first = next((kept.picture for kept in found if kept is not None), None)
    if first is None:
        return raw
    return torch.stack(
        [_brought_to(first, edit) if kept is None else kept.picture for kept, edit in zip(found, edited, strict=True)]
    )


def _brought_to(first: Tensor, edit: Tensor) -> Tensor:
    """An edit [h,w,C] at the size, of the type and with the channels of `first` [H,W,C]."""
    colour = edit[..., :3].expand(-1, -1, 3).to(first.device, torch.float32)
    if colour.shape[:2] != first.shape[:2]:
        planes = colour.permute(2, 0, 1)[None]
        planes = F.interpolate(planes, first.shape[:2], mode="bicubic", antialias=True, align_corners=False)
        colour = planes[0].permute(1, 2, 0).clamp(0, 1)
    if first.shape[2] == 4:
        colour = torch.cat([colour, torch.ones_like(colour[..., :1])], -1)
    return colour.to(first.dtype)
