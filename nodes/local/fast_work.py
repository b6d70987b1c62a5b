"""What Kontext Fast does, and what it says after each run of its MODEL. Loaded when the node first runs."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import torch

from ... import host
from ...kontext.errors import BadRequest
from ...kontext.fast.wishes import Wishes
from .. import checks
from .inside import inside_comfyui

logger = logging.getLogger(__name__)


def fast(model: Any, cache: float, reference: float, settled: float, measure: bool, mask: Any, vae: Any) -> Any:
    """The MODEL with what was asked for; raises KontextError."""
    cache, settled = checks.number(cache, "cache"), checks.number(settled, "settled")
    reference, measure = checks.number(reference, "reference"), checks.switch(measure, "measure")
    if mask is not None and not isinstance(mask, torch.Tensor):
        raise BadRequest("mask takes a MASK, and something else is connected. Connect a mask.")
    if mask is not None and mask.ndim == 2:
        mask = mask[None]
    wishes = Wishes(cache, settled, mask, reference)
    node = host.executing_node()

    def patched() -> Any:
        from ...kontext.comfyui.fast_model import NodeWishes, with_fast

        return with_fast(model, NodeWishes(wishes, partial(_tell, node), measure, vae))

    made = inside_comfyui(patched)
    host.Voice().say(_before(wishes))
    return made


def _before(wishes: Wishes) -> str:
    if wishes.mask is not None and not wishes.settled:
        return "settled is 0, so the mask is not used"
    return "on, and counts with the next run" if wishes else "off: nothing is left out"


def _tell(node: str | None, lines: list[str]) -> None:
    """Say it at the node, whose line it is whether or not it was executed in this run, and in the log."""
    text = " · ".join(lines)
    logger.info("Kontext Fast: %s", text)
    if node is not None:
        host.Voice(node).say(text)
