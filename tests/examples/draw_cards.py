"""Draws the templates' cards: `python tests/examples/draw_cards.py [NAME ...]` writes them anew.

Above the templates' picture, below what the demo model made of it, with the sentence that it was told; where the
template edits with another model, the card says whose picture it shows. Taken from the templates: sentences, masks,
whether what was not edited is kept.
"""

from __future__ import annotations

import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT / "tests", ROOT / "tests" / "examples"):
    sys.path.insert(0, str(folder))

import conftest  # noqa: E402, F401
import numpy as np  # noqa: E402
import torch  # noqa: E402
from kontext_bridge.edit import main as edit  # noqa: E402
from kontext_bridge.imaging.canvas import prepare, restore  # noqa: E402
from kontext_bridge.kontext.demo.shipped import FOLDER, LORAS  # noqa: E402
from pack import TWINS, WORKFLOWS, read  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

SIDE, PANEL = 560, 252
# Rows of the picture that a card shows: birds, cabin and boat.
TOP, BOTTOM = 109, 570
STEPS = "20"
EDITS = {"KontextEdit", "KontextSubmit", "KontextEditLocal"}
# Not the demo model's to show: a second picture, a style of the artist's own, no edit at all.
WITHOUT = ("two_references", "lora_edit", "uri_round_trip")
PICTURE = WORKFLOWS / "kontext_example.png"


def told(name: str) -> list[str]:
    """The sentences of a template, one after the other; what follows another edit at the service is left out."""
    nodes = [node for node in read(TWINS / f"{name}.json").values() if node["class_type"] in EDITS]
    said = list(dict.fromkeys(node["inputs"]["prompt"] for node in nodes))
    return said[:1] if name == "draft_local_finish_remote" else said


def mask_of(name: str) -> torch.Tensor | None:
    """The rectangle that a template masks, [1, height, width]."""
    nodes = read(TWINS / f"{name}.json").values()
    boxes = [node["inputs"] for node in nodes if node["class_type"] == "SolidMask"]
    if not boxes:
        return None
    (at,) = (node["inputs"] for node in nodes if node["class_type"] == "MaskComposite")
    mask = torch.zeros(1, boxes[0]["height"], boxes[0]["width"])
    mask[:, at["y"] : at["y"] + boxes[1]["height"], at["x"] : at["x"] + boxes[1]["width"]] = 1
    return mask


def made(name: str, folder: Path) -> Image.Image:
    """What the demo model makes of the picture as the template asks."""
    options = ["--demo", "--steps", STEPS]
    if name == "demo_lora_edit":
        options += ["--lora", str(FOLDER / LORAS[0])]
    else:
        options += ["--keep"]
    path, mask = PICTURE, mask_of(name)
    canvas = None if mask is None else prepare(opened(PICTURE), mask, megapixels=128 * 128 / 2**20)
    if canvas is not None:
        path = folder / f"{name}_cut.png"
        shown(canvas.prepared).save(path)
    for number, said in enumerate(told(name)):
        out = folder / f"{name}_{number}.png"
        if edit([str(path), said, "-o", str(out), *options]):
            raise SystemExit(f"{name}: {said}")
        path = out
    return Image.open(path).convert("RGB") if canvas is None else shown(restore(opened(path), canvas))


def opened(path: Path) -> torch.Tensor:
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"), np.float32) / 255)[None]


def shown(picture: torch.Tensor) -> Image.Image:
    return Image.fromarray((picture[0].clamp(0, 1) * 255).round().byte().numpy())


def card(name: str, after: Image.Image) -> Image.Image:
    """Square: before, after, and what was said to whom."""
    sheet = Image.new("RGB", (SIDE, SIDE), (28, 28, 30))
    with Image.open(PICTURE) as before:
        for place, picture in enumerate((before, after)):
            panel = picture.crop((0, TOP, picture.width, BOTTOM)).resize((SIDE, PANEL), Image.Resampling.LANCZOS)
            sheet.paste(panel, (0, place * (PANEL + 4)))
    who = "the demo model" if name.startswith("demo") else "drawn by the demo model, not by Kontext"
    said = textwrap.shorten(" ".join(told(name)), 72, placeholder=" ...")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    pen.multiline_text((10, 2 * PANEL + 8), f"{said}\n{who}", (235, 235, 235), font, spacing=4)
    return sheet


def main(names: list[str]) -> None:
    for name in names or sorted({path.stem for path in TWINS.glob("*.json")} - set(WITHOUT)):
        with tempfile.TemporaryDirectory() as folder:
            drawn = card(name, made(name, Path(folder)))
        drawn.save(WORKFLOWS / f"{name}.jpg", quality=86, optimize=True, comment="Kontext Bridge, demo model")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
