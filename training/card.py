"""The model card's figures and pictures, by one command: held-out instructions over several seeds, by kind.

    python -m kontext_bridge.training.card FOLDER OUT [--singles 500] [--doubles 200] [--seeds 3] [--steps 20 8]
        [--stored] [--device cuda] [--workers 12]

OUT gets `figures.json`, `figures.md` (a table for each number of steps), and of the first seed and number of steps
`grid.png` (the first edits of every kind) and `failures_128x128.png` and so on, all that went wrong at each size.
--stored judges the weights as the FP8 file has them.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .asked_for import above_zero, carried_out, from_zero
from .evaluate import Case, Judged, cases, figures, judge
from .export import rounded_as_stored
from .grid import grid, trained
from .instructions import EditKind
from .network import DemoNetwork
from .scenes import FULL

logger = logging.getLogger(__name__)

_AT_ONCE = 40
_SHOWN_EACH, _FAILURES = 3, 24


@dataclass(frozen=True)
class Sitting:
    """What one process judges: the cases of one seed and size. out: where their pictures go, if anywhere."""

    folder: Path
    device: str
    stored: bool
    seed: int
    size: tuple[int, int]
    singles: int
    doubles: int
    steps: int
    out: Path | None = None


def judged(sitting: Sitting) -> list[Judged]:
    """The verdicts of a sitting. singles and doubles count for all sizes together, as many of every kind."""
    torch.set_num_threads(1)
    network, autoencoder = trained(sitting.folder)
    if sitting.stored:
        rounded_as_stored(network)
    network, autoencoder = network.to(sitting.device), autoencoder.to(sitting.device)
    each = -(-sitting.singles // (len(EditKind) * len(FULL)))
    asked = cases(EditKind, sitting.size, each, 5000 + sitting.seed, -(-sitting.doubles // len(FULL)))
    found, shown = measured(network, autoencoder, asked, sitting.steps, sitting.seed)
    if sitting.out is not None:
        _pictures(asked, found, shown, sitting.out)
    return found


def measured(
    network: DemoNetwork, autoencoder: Any, asked: list[Case], steps: int, seed: int
) -> tuple[list[Judged], torch.Tensor]:
    """Verdicts and pictures of cases of one size, some at a time."""
    verdicts: list[Judged] = []
    shown = []
    for start in range(0, len(asked), _AT_ONCE):
        found, pictures = judge(network, autoencoder, asked[start : start + _AT_ONCE], steps, seed + start)
        verdicts += found
        shown.append(pictures)
    return verdicts, torch.cat(shown)


def table(by_seed: Sequence[dict[str, float]]) -> str:
    """Markdown: a row a kind, the mean over the seeds and the least."""
    lines = ["| | mean | least of the seeds |", "|---|---|---|"]
    for name in by_seed[0]:
        values = [found[name] for found in by_seed]
        lines.append(f"| {name} | {np.mean(values):.1f} | {min(values):.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m kontext_bridge.training.card",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="the training's work folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--singles", type=from_zero, default=500)
    parser.add_argument("--doubles", type=from_zero, default=200)
    parser.add_argument("--seeds", type=above_zero, default=3)
    parser.add_argument("--steps", type=above_zero, nargs="+", default=[20])
    parser.add_argument("--stored", action="store_true", help="with the weights as the FP8 file has them")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=above_zero, default=1, help="processes")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    trained(given.folder)  # found out here, for an error cannot come from another process in words
    given.out.mkdir(parents=True, exist_ok=True)
    runs = [(steps, seed) for steps in given.steps for seed in range(given.seeds)]
    sittings = [
        Sitting(given.folder, given.device, given.stored, seed, size, given.singles, given.doubles, steps,
             given.out if (steps, seed) == runs[0] else None)
        for steps, seed in runs for size in FULL
    ]  # fmt: skip
    with ProcessPoolExecutor(given.workers, get_context("spawn")) as workers:
        coming = workers.map(judged, sittings)
        by_steps: dict[int, list[dict[str, float]]] = {steps: [] for steps in given.steps}
        for steps, seed in runs:
            by_steps[steps].append(figures([verdict for _ in FULL for verdict in next(coming)]))
            logger.info("%d steps, seed %d: %s", steps, seed, by_steps[steps][-1])
    (given.out / "figures.json").write_text(json.dumps(by_steps, indent=1), encoding="utf-8")
    told = "\n".join(f"{steps} steps\n\n{table(by_seed)}" for steps, by_seed in by_steps.items())
    (given.out / "figures.md").write_text(told, encoding="utf-8")


def _pictures(asked: list[Case], verdicts: list[Judged], shown: torch.Tensor, out: Path) -> None:
    first: list[int] = []
    for kind in dict.fromkeys(case.kind for case in asked):
        first += [number for number, case in enumerate(asked) if case.kind == kind][:_SHOWN_EACH]
    wrong = [number for number, verdict in enumerate(verdicts) if not verdict.right][:_FAILURES]
    size = asked[0].scene.width, asked[0].scene.height
    for name, chosen in (("grid.png", first if size == FULL[0] else []), (f"failures_{size[0]}x{size[1]}.png", wrong)):
        if chosen:
            picked = [asked[number] for number in chosen], [verdicts[number] for number in chosen]
            grid(*picked, shown[chosen], zoom=1).save(out / name)


if __name__ == "__main__":
    carried_out(main)
