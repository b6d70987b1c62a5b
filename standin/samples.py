"""The pictures that the service's own documents edit in their examples: one of ours stands in their place."""

from __future__ import annotations

import io
from functools import cache

from PIL import Image, ImageDraw

# Public repositories of the service, whose pictures the examples of Kontext name; the second is of an older page.
SAMPLE_REPOS = frozenset({("elau", "assets"), ("ox", "Oxen-Character-Simple-Vector-Graphic")})
# The host that the examples call; a picture of theirs may be named by it where only their own calls were redirected.
DOCUMENTED_HOST = "https://hub.oxen.ai"
_SIDE = 512


def is_sample(where: tuple[str, str, str] | None) -> bool:
    """Whether a file of a repository is a picture of the examples."""
    return where is not None and where[:2] in SAMPLE_REPOS and where[2].endswith((".png", ".jpg", ".jpeg", ".webp"))


@cache
def sample() -> bytes:
    """A square PNG: a round face with two horns."""
    picture = Image.new("RGB", (_SIDE, _SIDE), (236, 240, 244))
    pen = ImageDraw.Draw(picture)
    for side in (-1, 1):
        pen.polygon([(256 + side * x, y) for x, y in ((70, 170), (150, 60), (130, 210))], (214, 196, 160))
    pen.ellipse((116, 140, 396, 420), (150, 100, 70))
    pen.ellipse((176, 290, 336, 410), (222, 184, 160))
    for x in (200, 290):
        pen.ellipse((x, 220, x + 24, 250), (30, 24, 20))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
