"""What the panel *Edits* is told of edits that were made here; the ledger is of what is paid, and knows none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from ... import host
from ...album import behind
from ...imaging.pixels import digest, to_uint8


def note_edits(
    sources: Sequence[torch.Tensor],
    edited: torch.Tensor,
    prompt: str,
    asked: Mapping[str, Any],
    told: Sequence[Mapping[str, Any]],
) -> None:
    """Note edits [B,H,W,C], each with its source [H,W,C], and its seed and seconds in `told`; off ComfyUI nothing.

    Returns as soon as the sources are known by their pixels: all else is written beside the run.
    """
    node = host.executing_node()
    if node is None:
        return
    try:
        folder = host.user_folder() / "album"
    except host.NoFolder:  # a local edit needs none
        return
    where = behind.Where(host.graph(), node)
    for source, picture, about in zip(sources, edited, told, strict=True):
        pixels = to_uint8(source)
        made = behind.Made(
            behind.Source(digest(pixels), partial(to_uint8, source)),
            prompt,
            about["seed"],
            about["seconds"],
            partial(to_uint8, picture),
        )
        behind.note_local(folder, made, asked, where)
