"""Draws the templates' cards: `python tests/examples/draw_cards.py [NAME ...]` writes them anew.

Above the templates' picture, below what the demo model made of it, with the sentence that it was told; where the
template edits with another model, the card says whose picture it shows. Taken from the templates: sentences, masks,
whether what was not edited is kept. Where the demo model does not know the template's words, the card says its own.
"""

from __future__ import annotations

import sys
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT / "tests", ROOT / "tests" / "examples"):
    sys.path.insert(0, str(folder))

import conftest  # noqa: E402, F401
import numpy as np  # noqa: E402
import torch  # noqa: E402
from kontext_bridge.edit import main as edit  # noqa: E402
from kontext_bridge.headless.folders import RunFolders  # noqa: E402
from kontext_bridge.headless.graph import read_workflow  # noqa: E402
from kontext_bridge.headless.run import run_workflow  # noqa: E402
from kontext_bridge.imaging.canvas import prepare, restore  # noqa: E402
from kontext_bridge.kontext.demo.shipped import FOLDER, LORAS  # noqa: E402
from kontext_bridge.training.drawing import drawn  # noqa: E402
from kontext_bridge.training.scenes import Time, random_scene  # noqa: E402
from pack import NODES, TITLES, TWINS, WORKFLOWS, read  # noqa: E402
from pack import card as place_of  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

SIDE, PANEL, GAP = 560, 252, 4
SAVED = 480, 480
# Rows of the picture that a card shows: birds, cabin and boat.
TOP, BOTTOM = 109, 570
STEPS = "20"
EDITS = {"KontextEdit", "KontextSubmit", "KontextEditLocal", "KontextEditFolder", "OxenEdit"}
# The demo model has no style of an artist's own, and takes one picture.
IN_ITS_WORDS = {"lora_edit": "Make it night, with lights.", "two_references": "Make it evening."}
WITH_LORA = ("lora_edit", "demo_lora_edit")
PICTURE = WORKFLOWS / "kontext_example.png"
SECOND_SEED = 11


def told(name: str) -> list[str]:
    """The sentences of a template, one after the other; what follows another edit at the service is left out."""
    if name in IN_ITS_WORDS:
        return [IN_ITS_WORDS[name]]
    nodes = [node for node in read(TWINS / f"{name}.json").values() if node["class_type"] in EDITS]
    said = list(dict.fromkeys(node["inputs"]["prompt"] for node in nodes))
    return said[:1] if name == "draft_local_finish_remote" else said


def mask_of(name: str) -> torch.Tensor | None:
    """What a template masks, [1, height, width]: a rectangle, or what its picture has transparent."""
    nodes = read(TWINS / f"{name}.json").values()
    boxes = [node["inputs"] for node in nodes if node["class_type"] == "SolidMask"]
    if boxes:
        (at,) = (node["inputs"] for node in nodes if node["class_type"] == "MaskComposite")
        mask = torch.zeros(1, boxes[0]["height"], boxes[0]["width"])
        mask[:, at["y"] : at["y"] + boxes[1]["height"], at["x"] : at["x"] + boxes[1]["width"]] = 1
        return mask
    names = {node["inputs"]["image"] for node in nodes if node["class_type"] == "LoadImage"} - {PICTURE.name}
    if not names:
        return None
    with Image.open(WORKFLOWS / names.pop()) as picture:
        return 1 - torch.from_numpy(np.array(picture.getchannel("A"), np.float32) / 255)[None]


def made(name: str, folder: Path) -> Image.Image:
    """What the demo model makes of the picture as the template asks."""
    options = ["--demo", "--steps", STEPS]
    if name in WITH_LORA:
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


def there_and_back(folder: Path) -> tuple[Image.Image, str]:
    """What the template of URIs gives, run as it is: its picture, and the text that it went through."""
    nodes = run_workflow(
        read_workflow(TWINS / "uri_round_trip.json"), NODES, RunFolders(source=WORKFLOWS, output=folder)
    ).nodes
    return Image.open(nodes["4"].files[0]).convert("RGB"), nodes["2"].texts["uri"]


def second() -> Image.Image:
    """Another scene, in the light of an evening."""
    scene = random_scene(np.random.default_rng(SECOND_SEED), (1024, 768))
    return Image.fromarray(drawn(replace(scene, time=Time.EVENING)))


def of_a_folder(name: str, folder: Path) -> tuple[Image.Image, Image.Image]:
    """The pictures of a template's folder, side by side, before and after."""
    (node,) = read(TWINS / f"{name}.json").values()
    before = sorted((WORKFLOWS / node["inputs"]["folder"]).glob("*.png"))
    after = [folder / path.name for path in before]
    for path, out in zip(before, after, strict=True):
        if edit([str(path), *told(name), "-o", str(out), "--demo", "--steps", STEPS, "--keep"]):
            raise SystemExit(f"{name}: {path.name}")
    return row(before), row(after)


def row(paths: list[Path]) -> Image.Image:
    """Whole pictures side by side, as high as a card's panel allows."""
    width = (SIDE - GAP * (len(paths) - 1)) // len(paths)
    panel = Image.new("RGB", (SIDE, PANEL), (28, 28, 30))
    for place, path in enumerate(paths):
        with Image.open(path) as picture:
            whole = picture.convert("RGB").resize(
                (width, width * picture.height // picture.width), Image.Resampling.LANCZOS
            )
        panel.paste(whole, (place * (width + GAP), (PANEL - whole.height) // 2))
    return panel


def opened(path: Path) -> torch.Tensor:
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"), np.float32) / 255)[None]


def shown(picture: torch.Tensor) -> Image.Image:
    return Image.fromarray((picture[0].clamp(0, 1) * 255).round().byte().numpy())


def strip(picture: Image.Image) -> Image.Image:
    """The part of a picture that a card shows, across all of it."""
    return picture.crop((0, TOP, picture.width, BOTTOM)).resize((SIDE, PANEL), Image.Resampling.LANCZOS)


def pair(first: Image.Image, other: Image.Image) -> Image.Image:
    """Two whole pictures side by side."""
    width = (SIDE - GAP) // 2
    both = Image.new("RGB", (SIDE, PANEL), (28, 28, 30))
    for place, picture in enumerate((first, other)):
        size = (width, width * picture.height // picture.width)
        whole = picture.resize(size, Image.Resampling.LANCZOS)
        both.paste(whole, (place * (width + GAP), (PANEL - size[1]) // 2))
    return both


def card(before: Image.Image, after: Image.Image, said: str, who: str) -> Image.Image:
    """Square: before, after, and what was said to whom."""
    sheet = Image.new("RGB", (SIDE, SIDE), (28, 28, 30))
    for place, panel in enumerate((before, after)):
        sheet.paste(panel, (0, place * (PANEL + GAP)))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    pen.multiline_text((10, 2 * PANEL + 8), f"{said}\n{who}", (235, 235, 235), font, spacing=4)
    return sheet


def card_of(name: str, folder: Path) -> Image.Image:
    picture = Image.open(PICTURE).convert("RGB")
    if name == "uri_round_trip":
        back, text = there_and_back(folder)
        return card(strip(picture), strip(back), f"{text[:58]} ...", "to text and back: every pixel as it was")
    if name == "folder_edit":
        who = "drawn by the demo model, not by Kontext: every picture of a folder"
        return card(*of_a_folder(name, folder), " ".join(told(name)), who)
    before = pair(picture, second()) if name == "two_references" else strip(picture)
    who = "the demo model" if name.startswith("demo") else "drawn by the demo model, not by Kontext"
    if name == "lora_edit":
        who = "drawn by the demo model with a LoRA of its own, not by Kontext"
    elif name == "another_model_edit":
        who = "drawn by the demo model, not by the model of this template"
    elif name == "two_references":
        who = "drawn by the demo model, which was told this in place of the second picture"
    said = textwrap.shorten(" ".join(told(name)), 72, placeholder=" ...")
    return card(before, strip(made(name, folder)), said, who)


def main(names: list[str]) -> None:
    for name in names or sorted(TITLES):
        with tempfile.TemporaryDirectory() as folder:
            drawing = card_of(name, Path(folder))
        small = drawing.resize(SAVED, Image.Resampling.LANCZOS)
        small.save(place_of(name), quality=75, optimize=True, progressive=True, comment="Kontext Bridge, demo model")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
