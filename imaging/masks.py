"""A MASK as the picture that a service takes for one: which part to change, in its own colours."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .pixels import UInt8, to_uint8

# From here on a pixel counts as marked: what a service makes of one that is half marked is told nowhere.
_MARKED = 128


def is_empty(mask: Tensor) -> bool:
    """Whether a MASK [H,W] marks nothing."""
    return not bool((to_uint8(mask) >= _MARKED).any())


def is_faint(mask: Tensor) -> bool:
    """Whether a MASK [H,W] is not zero, and yet marks nothing: no pixel of it by half."""
    return 0 < int(to_uint8(mask.amax()[None])[0]) < _MARKED


def white_where_marked(mask: Tensor) -> UInt8:
    """A MASK [H,W], 1 = to be changed, as pixels [H,W,3]: white there, black elsewhere, nothing between."""
    marked = to_uint8(mask) >= _MARKED
    return np.repeat(np.where(marked, 255, 0).astype(np.uint8)[..., None], 3, axis=2)


def transparent_where_marked(mask: Tensor, pixels: UInt8) -> UInt8:
    """The 8-bit picture [H,W,C], as [H,W,4]: transparent where the MASK [H,W] is 1, opaque elsewhere."""
    colour = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels, 3, axis=2)
    alpha = np.where(to_uint8(mask) >= _MARKED, 0, 255).astype(np.uint8)
    return np.concatenate([colour, alpha[..., None]], axis=2)
