"""What a model was made for: how large the pictures are that it edits best, and what it is called if it is no Kontext.

Kontext edits about a megapixel. A file of another size says so in its metadata, as the demo model's does. What ComfyUI
saves has metadata of ComfyUI's own, and holds the same entries in a tensor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..errors import DamagedFile

PIXELS, CALLED = "kontext_bridge.pixels", "kontext_bridge.called"
PURPOSE = "kontext_bridge_purpose"
_MEGAPIXEL = 1024 * 1024
_MOST_PIXELS = 4096 * 4096
_LONGEST_NAME = 100
# A model that is not Kontext gives noise so far from its own size.
_TIMES_TOO_LARGE = 4


@dataclass(frozen=True)
class Purpose:
    """pixels: of the pictures that the model edits best. called: its own name, None where it is FLUX.1 Kontext."""

    pixels: int = _MEGAPIXEL
    called: str | None = None

    @property
    def megapixels(self) -> float:
        """The same as `pixels`, in the unit of Kontext Prepare: 1 is 1024 x 1024."""
        return self.pixels / _MEGAPIXEL

    def is_far_exceeded(self, width: int, height: int) -> bool:
        """Whether noise alone would come of an edit of this size in pixels. Kontext is not held to its megapixel."""
        return self.called is not None and width * height > _TIMES_TOO_LARGE * self.pixels


def purpose_in(metadata: Mapping[str, str], name: str) -> Purpose:
    """What a file's metadata says of it; name: the file's. Raises DamagedFile for a size that is none."""
    pixels = metadata.get(PIXELS, str(_MEGAPIXEL))
    if not re.fullmatch(r"[0-9]{3,8}", pixels) or not 16 * 16 <= int(pixels) <= _MOST_PIXELS:
        raise DamagedFile(
            f"{name} says in its metadata that it edits pictures of {pixels[:_LONGEST_NAME]!r} pixels, which is no "
            f"number from {16 * 16} to {_MOST_PIXELS}. Get the file anew."
        )
    return Purpose(int(pixels), metadata.get(CALLED, "")[:_LONGEST_NAME].strip() or None)


def as_tensor(purpose: Purpose) -> torch.Tensor:
    """The metadata of a purpose as bytes, the way ComfyUI's files tell what has no place elsewhere."""
    told = {PIXELS: str(purpose.pixels)} | ({} if purpose.called is None else {CALLED: purpose.called})
    return torch.tensor(list(json.dumps(told).encode()), dtype=torch.uint8)


def as_metadata(tensor: torch.Tensor | None, name: str) -> dict[str, str]:
    """Such bytes as metadata again; none without a tensor. Raises DamagedFile."""
    if tensor is None:
        return {}
    try:
        told = json.loads(bytes(tensor.to(torch.uint8).tolist()))
        return {str(key): str(value) for key, value in told.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFile(f"{name}: {PURPOSE!r} cannot be read. Get the file anew.") from error
