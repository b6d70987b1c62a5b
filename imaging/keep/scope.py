"""What of a picture an edit may have changed. Light: the node's widgets are made of it."""

from __future__ import annotations

from enum import Enum


class Scope(str, Enum):
    """auto finds out; local and whole say so; mask takes all of the given mask, changed or not."""

    AUTO = "auto"
    LOCAL = "local"
    WHOLE = "whole"
    MASK = "mask"
