"""Source, edit and truth side by side, with the sentence under them: to be looked at, and for the model card."""

from __future__ import annotations

import argparse
import logging
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from .asked_for import above_zero, carried_out, from_zero, sides
from .autoencoder import decoded, encoded, pixels, trained_autoencoder
from .drawing import drawn, tensor_ready
from .evaluate import Case, Judged, cases, figures, judge
from .instructions import EditKind
from .network import DemoNetwork, edits
from .scenes import SMALL, example
from .train import trained_network

logger = logging.getLogger(__name__)

_COLUMNS, _TEXT = 3, 26


def grid(asked: Sequence[Case], verdicts: Sequence[Judged], shown: torch.Tensor, zoom: int = 2) -> Image.Image:
    """shown: [B, 3, 3, H, W], from `judge`. A wrong edit has its sentence in red."""
    height, width = shown.shape[-2] * zoom, shown.shape[-1] * zoom
    rows = -(-len(asked) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * (3 * width + 12), rows * (height + _TEXT)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (case, verdict) in enumerate(zip(asked, verdicts, strict=True)):
        left, top = number % _COLUMNS * (3 * width + 12), number // _COLUMNS * (height + _TEXT)
        for place, picture in enumerate(shown[number]):
            tile = Image.fromarray(pixels(picture)).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (left + place * width, top))
        said = textwrap.shorten(case.said, 3 * width // 6, placeholder="...")
        pen.text((left + 2, top + height + 6), said, fill="black" if verdict.right else "red")
    return sheet


def trained(folder: Path) -> tuple[DemoNetwork, Any]:
    """The averaged network and the VAE of a work folder, as they are by now."""
    return trained_network(folder), trained_autoencoder(folder)


def _example(network: DemoNetwork, autoencoder: Any, size: tuple[int, int], said: list[str], steps: int) -> Image.Image:
    """The example scene, and what every sentence makes of it."""
    picture = torch.from_numpy(tensor_ready([drawn(example(size))]))
    source = encoded(autoencoder, picture).expand(len(said), -1, -1, -1)
    made = decoded(autoencoder, edits(network, source, said, steps))
    row = torch.cat([picture, made]).permute(1, 2, 0, 3).flatten(2)
    return Image.fromarray(pixels(row)).resize((row.shape[2] * 2, row.shape[1] * 2), Image.Resampling.NEAREST)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m kontext_bridge.training.grid", description=__doc__)
    parser.add_argument("folder", type=Path, help="the training's work folder")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--each", type=from_zero, default=6)
    parser.add_argument("--size", type=sides, default=SMALL[0], metavar="WIDTHxHEIGHT")
    parser.add_argument("--steps", type=above_zero, default=20)
    parser.add_argument("--doubles", type=from_zero, default=6)
    parser.add_argument("--seed", type=from_zero, default=2000)
    parser.add_argument("--example", nargs="*", default=[], metavar="SENTENCE", help="edit the example picture instead")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    network, autoencoder = trained(given.folder)
    if given.example:
        _example(network, autoencoder, given.size, given.example, given.steps).save(given.picture)
        return
    asked = cases(EditKind, given.size, given.each, given.seed, given.doubles)
    verdicts, shown = judge(network, autoencoder, asked, given.steps, given.seed)
    logger.info("%s", figures(verdicts))
    grid(asked, verdicts, shown).save(given.picture)


if __name__ == "__main__":
    carried_out(main)
