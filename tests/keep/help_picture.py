"""Draws the picture of Kontext Keep's help page: `python tests/keep/help_picture.py` writes it anew.

The templates' picture with a red boat, moved, enlarged and tinted as an editor does it, and what Keep makes of it.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "web" / "docs" / "pictures" / "KontextKeep.jpg"

for folder in (ROOT / "tests", ROOT / "tests" / "keep"):
    sys.path.insert(0, str(folder))

import conftest  # noqa: E402, F401
import numpy as np  # noqa: E402
import torch  # noqa: E402
from drawn import _drawn_anew, _tinted  # noqa: E402
from kontext_bridge.imaging.codec import decode, to_tensors  # noqa: E402
from kontext_bridge.imaging.keep.engine import keep  # noqa: E402
from kontext_bridge.imaging.keep.filters import sampled  # noqa: E402
from kontext_bridge.imaging.pixels import to_uint8  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402
from torch import Tensor  # noqa: E402

SIZE = (880, 1184)  # of the edit: what the service makes of 4:3
BOAT = slice(490, 575), slice(670, 970)  # its hull and its deck
PANEL = (480, 360)
GAP, CAPTION = 10, 42


def source() -> Tensor:
    return to_tensors([decode((ROOT / "example_workflows" / "kontext_example.png").read_bytes())]).image[0]


def edited(picture: Tensor) -> Tensor:
    """The edit as it comes: the boat red, all of it shifted, 2 % larger, tinted and a little softer."""
    planes = picture.permute(2, 0, 1).clone()
    red = torch.tensor([0.86, 0.16, 0.14])[:, None, None]
    part = planes[:, BOAT[0], BOAT[1]]
    hull = (part - torch.tensor([46, 104, 190])[:, None, None] / 255).abs().amax(0) < 0.08
    planes[:, BOAT[0], BOAT[1]] = torch.where(hull, red, part)
    height, width = planes.shape[1:]
    v, u = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    across, down = SIZE[1] / width * 1.02, SIZE[0] / height * 1.02
    x, y = (u - SIZE[1] / 2 - 9) / across + width / 2, (v - SIZE[0] / 2 + 6) / down + height / 2
    seen = sampled(planes, x, y, "bicubic", "reflection").clamp(0, 1)
    return _drawn_anew(_tinted(seen, 1.5), 1.0, 0).permute(1, 2, 0).contiguous()


def drawn() -> Image.Image:
    """Four panels with a caption each, two by two."""
    before = source()
    edit = edited(before)
    kept = keep(before, edit)
    mask = kept.mask.unsqueeze(-1).expand(-1, -1, 3)
    free = kept.mask == 0
    assert torch.equal(kept.picture[free], before[free])
    panels = [
        ("source", before),
        ("edited: moved, larger, tinted, softer", edit),
        (f"image: {kept.report.line}", kept.picture),
        ("mask: what was taken from the edit", mask),
    ]
    sheet = Image.new("RGB", (2 * PANEL[0] + 3 * GAP, 2 * (PANEL[1] + CAPTION) + 3 * GAP), (28, 28, 30))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for place, (caption, picture) in enumerate(panels):
        left = GAP + place % 2 * (PANEL[0] + GAP)
        top = GAP + place // 2 * (PANEL[1] + CAPTION + GAP)
        panel = Image.fromarray(np.ascontiguousarray(to_uint8(picture)))
        sheet.paste(panel.resize(PANEL, Image.Resampling.LANCZOS), (left, top + CAPTION))
        lines = textwrap.wrap(caption, 74)
        pen.text((left, top + CAPTION - 4 - 18 * len(lines)), "\n".join(lines), (225, 225, 225), font)
    return sheet


if __name__ == "__main__":
    OUT.parent.mkdir(exist_ok=True)
    drawn().save(OUT, quality=88, optimize=True)
