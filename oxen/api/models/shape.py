"""The shape of a result: how each model is told to keep that of the picture, or the nearest that it has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What the nodes offer on every model that can be told a shape.
AS_PICTURE = "as my picture"


@dataclass(frozen=True)
class Fitted:
    """Values of a model's own fields that keep a picture's shape, and by which rule, in a few words."""

    values: dict[str, Any]
    rule: str


@dataclass(frozen=True)
class Shape:
    """Where a model is told the shape of its result.

    field: our name of the field whose choices are the shapes. ratios: width by height of those that have one.
    keeps: the choice that follows the picture. switch: our name of the switch that does, in its place. Where there is
    neither, the nearest ratio is chosen. follows_last: `keeps` goes by the last of several pictures.
    """

    field: str
    ratios: Mapping[str, float]
    keeps: str | None = None
    switch: str | None = None
    follows_last: bool = False

    def fit(self, chosen: str, width: int, height: int, pictures: int = 1) -> Fitted:
        """What to send for a choice of `shapes`, for the first of so many pictures, whose size in pixels is given."""
        if chosen != AS_PICTURE:
            off = {} if self.switch is None else {self.switch: False}
            return Fitted({self.field: chosen} | off, f"{self.field} {chosen}, as chosen")
        nearest = self.nearest(width, height)
        if self.switch is not None:
            return Fitted({self.field: nearest, self.switch: True}, f"{self.switch} true")
        if self.keeps is None or (self.follows_last and pictures > 1):
            return Fitted({self.field: nearest}, f"{self.field} {nearest}, the nearest to {width}x{height}")
        return Fitted({self.field: self.keeps}, f"{self.field} {self.keeps}")

    def nearest(self, width: int, height: int) -> str:
        """The choice whose ratio is nearest to that of a size; the wider and the taller are measured alike."""
        return min(self.ratios, key=lambda one: abs(math.log(self.ratios[one] * height / width)))


def ratio(text: str) -> float | None:
    """Width by height of "16:9" or "1920x1080"; None for what is neither."""
    for between in ":x":
        width, found, height = text.partition(between)
        try:
            if found and 0 < float(width) < math.inf and 0 < float(height) < math.inf:
                by = float(width) / float(height)
                return by if 0 < by < math.inf else None
        except ValueError:
            continue
    return None
