"""What a model was made for: how large the pictures are that it edits best, and what it is called if it is no Kontext.

Kontext edits about a megapixel. A file of another size says so in its metadata, as the demo model's does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import DamagedFile

PIXELS, CALLED = "kontext_bridge.pixels", "kontext_bridge.called"
_MEGAPIXEL = 1024 * 1024
_MOST_PIXELS = 4096 * 4096
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Purpose:
    """pixels: of the pictures that the model edits best. called: its own name, None where it is FLUX.1 Kontext."""

    pixels: int = _MEGAPIXEL
    called: str | None = None

    @property
    def megapixels(self) -> float:
        """The same as `pixels`, in the unit of Kontext Prepare: 1 is 1024 x 1024."""
        return self.pixels / _MEGAPIXEL


def purpose_in(metadata: Mapping[str, str], name: str) -> Purpose:
    """What a file's metadata says of it; name: the file's. Raises DamagedFile for a size that is none."""
    pixels = metadata.get(PIXELS, str(_MEGAPIXEL))
    if not re.fullmatch(r"[0-9]{3,8}", pixels) or not 16 * 16 <= int(pixels) <= _MOST_PIXELS:
        raise DamagedFile(
            f"{name} says in its metadata that it edits pictures of {pixels[:_LONGEST_NAME]!r} pixels, which is no "
            f"number from {16 * 16} to {_MOST_PIXELS}. Get the file anew."
        )
    return Purpose(int(pixels), metadata.get(CALLED, "")[:_LONGEST_NAME].strip() or None)
