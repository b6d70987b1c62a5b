"""The model card's figures and pictures, by one command: held-out instructions over several seeds, by kind.

    python -m kontext_bridge.training.card FOLDER OUT [--singles 500] [--doubles 200] [--seeds 3] [--steps 20]

OUT gets `figures.json`, `figures.md` (a table), `grid.png` (the first edits of every kind) and `failures.png`.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .evaluate import Case, Judged, cases, figures, judge
from .grid import grid, trained
from .instructions import EditKind
from .network import DemoNetwork
from .scenes import FULL

logger = logging.getLogger(__name__)

_AT_ONCE = 40
_SHOWN_EACH, _FAILURES = 3, 24


def asked_of(singles: int, doubles: int, seed: int, sizes: Sequence[tuple[int, int]]) -> list[list[Case]]:
    """Held-out cases, as many of every kind, spread over the sizes."""
    each = -(-singles // (len(EditKind) * len(sizes)))
    return [cases(EditKind, size, each, 5000 + seed, -(-doubles // len(sizes))) for size in sizes]


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
    parser = argparse.ArgumentParser(prog="python -m kontext_bridge.training.card", description=__doc__)
    parser.add_argument("folder", type=Path, help="the training's work folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--singles", type=int, default=500)
    parser.add_argument("--doubles", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    network, autoencoder = trained(given.folder)
    given.out.mkdir(parents=True, exist_ok=True)
    by_seed = []
    for seed in range(given.seeds):
        verdicts: list[Judged] = []
        for number, asked in enumerate(asked_of(given.singles, given.doubles, seed, FULL)):
            found, shown = measured(network, autoencoder, asked, given.steps, seed)
            verdicts += found
            if seed == number == 0:
                _pictures(asked, found, shown, given.out)
        by_seed.append(figures(verdicts))
        logger.info("seed %d: %s", seed, by_seed[-1])
    (given.out / "figures.json").write_text(json.dumps(by_seed, indent=1), encoding="utf-8")
    (given.out / "figures.md").write_text(table(by_seed), encoding="utf-8")


def _pictures(asked: list[Case], verdicts: list[Judged], shown: torch.Tensor, out: Path) -> None:
    first: list[int] = []
    for kind in dict.fromkeys(case.kind for case in asked):
        first += [number for number, case in enumerate(asked) if case.kind == kind][:_SHOWN_EACH]
    wrong = [number for number, verdict in enumerate(verdicts) if not verdict.right][:_FAILURES]
    for name, chosen in (("grid.png", first), ("failures.png", wrong)):
        if chosen:
            picked = [asked[number] for number in chosen], [verdicts[number] for number in chosen]
            grid(*picked, shown[chosen], zoom=1).save(out / name)


if __name__ == "__main__":
    main()
