"""Edits as an editor gives them, in place of the stand-in's: known ones, so that what Keep makes of them can be held
against them.
"""

from __future__ import annotations

from typing import Any

import torch
from drawn import scene
from kontext_bridge.imaging.codec import decode, encode, to_tensors
from kontext_bridge.imaging.keep.filters import scaled
from kontext_bridge.imaging.pixels import to_uint8
from torch import Tensor

HAT, NIGHT = "a hat", "night"
SIZE = (160, 200)


def sources(count: int = 1) -> Tensor:
    """[count,160,200,3]: different pictures."""
    return torch.stack([scene(*SIZE, seed) for seed in range(count)])


def disc(height: int, width: int, grown: float = 1.0) -> Tensor:
    """[H,W] bool: where a hat is drawn."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return ((x / width - 0.5) * width / height) ** 2 + (y / height - 0.5) ** 2 < (0.18 * grown) ** 2


def make_edit(source: bytes, edit: Any, shrink: int = 1, paint: object = None, *_: object) -> bytes:
    """The picture at one and a quarter of its size, tinted, with a hat; with the prompt "night" another one."""
    picture = to_tensors([decode(source)]).image[0].permute(2, 0, 1)
    height, width = picture.shape[1:]
    if edit.prompt == NIGHT:
        picture = scene(height, width, 77).permute(2, 0, 1)
    hat = torch.stack([picture[2], 1 - picture[0], picture[1] * 0.6])
    drawn = torch.where(disc(height, width), hat, picture)
    drawn = scaled(drawn, height * 5 // 4, width * 5 // 4) * torch.tensor([1.03, 1.0, 0.96])[:, None, None] + 0.01
    return encode(to_uint8(drawn.clamp(0, 1).permute(1, 2, 0))).data
