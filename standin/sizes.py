"""How large a result is asked to be: read from the words of a request, whichever of its parameters says them.

What the models make of them in pixels is not documented; "1K" and "1 MP" are `SIDE` squared here, and so on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Size = tuple[int, int]
_SAYING = ("aspect_ratio", "size", "resolution", "scale", "upscale_factor")
_NAMED = {"square": 1.0, "portrait": 2 / 3, "landscape": 3 / 2}
_MULTIPLE = 8
SIDE = 1024
_MOST_PIXELS = 32_000_000


@dataclass(frozen=True)
class Wanted:
    """ratio: width by height; None follows a picture, the last of several where `last`. pixels: how many; None as many
    as the picture has. times: its sides, so many times. exact: width and height where they were said.
    """

    ratio: float | None = None
    pixels: int | None = None
    times: int = 1
    exact: Size | None = None
    last: bool = False

    @property
    def follows(self) -> bool:
        """Whether the shape is a picture's own."""
        return self.ratio is None and self.exact is None

    def size(self, pictures: Sequence[Size]) -> Size:
        """Width and height for pictures of these sizes."""
        if self.exact is not None:
            return self.exact
        width, height = pictures[-1 if self.last else 0]
        if self.ratio is None and self.pixels is None:
            return _within(width * self.times, height * self.times)
        ratio = self.ratio or width / height
        across = ((self.pixels or SIDE**2) * ratio) ** 0.5
        return _rounded(across), _rounded(across / ratio)


def wanted(asked: Mapping[str, Any], follows_last: bool = False) -> Wanted:
    """What a model's own parameters, defaults filled in, say of the size of the result."""
    found = Wanted(last=follows_last)
    for name in _SAYING:
        if isinstance(asked.get(name), str):
            found = replace(found, **_said(asked[name]))
    if found.pixels is None and "aspect_ratio" in asked:
        found = replace(found, pixels=SIDE**2)
    return replace(found, ratio=None) if asked.get("match_input_image") is True else found


def _said(word: str) -> dict[str, Any]:
    if word in _NAMED:
        return {"ratio": _NAMED[word], "pixels": SIDE**2}
    if found := re.fullmatch(r"([\d.]+):([\d.]+)", word):
        return {"ratio": float(found[1]) / float(found[2])}
    if found := re.fullmatch(r"(\d{3,})x(\d{3,})", word):
        return {"exact": (int(found[1]), int(found[2]))}
    if found := re.fullmatch(r"(\d+)x", word):
        return {"times": int(found[1])}
    if found := re.fullmatch(r"(\d+)[Kk]", word):
        return {"pixels": (int(found[1]) * SIDE) ** 2}
    if found := re.fullmatch(r"([\d.]+) MP", word):
        return {"pixels": int(float(found[1]) * SIDE**2)}
    if found := re.fullmatch(r"(\d{3,})(sq)?", word):
        return {"pixels": (int(found[1]) * SIDE // 1024) ** 2}
    if word not in ("auto", "match_input_image"):
        raise ValueError(f"{word!r} says no size that the stand-in knows")
    return {}


def _within(width: int, height: int) -> Size:
    by = min(1.0, (_MOST_PIXELS / (width * height)) ** 0.5)
    return max(1, round(width * by)), max(1, round(height * by))


def _rounded(side: float) -> int:
    return max(1, round(side / _MULTIPLE)) * _MULTIPLE
