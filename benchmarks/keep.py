"""Keep against known truth: the scorer's table for ours, the baselines and the prototype.

    python benchmarks/keep.py TOOLS [--seed 0 1 2 3] [--only NAME] [--each] [--baselines] [--prototype]
    python benchmarks/keep.py TOOLS --chain [--seed 1]      # three edits in a row, with Keep between them and without

TOOLS is the folder with keep_pairs.py, keep_score.py and keep_prototype.py. They need scipy and scikit-image, and the
ECC baseline OpenCV: install these beside the package for this alone. For CPU times run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from kontext_bridge.imaging.keep.engine import keep
from kontext_bridge.imaging.keep.mapping import Mapping

ROWS, COLUMNS = 25, 33  # of the lattice on which the scorer is told where the edit lies


def ours(source: np.ndarray, edited: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """keep as the scorer calls it."""
    kept = keep(torch.from_numpy(np.require(source, requirements="W")), torch.from_numpy(np.array(edited)))
    return (
        kept.picture.numpy(),
        kept.mask.numpy(),
        told(kept.mapping, source.shape) | {"verdict": kept.report.verdict.value},
    )


def told(mapping: Mapping, shape: tuple[int, ...]) -> dict[str, Any]:
    """The mapping as an affine in the source's pixels and what is left of it on a lattice."""
    height, width = shape[:2]
    down, across = torch.linspace(0, 1, ROWS), torch.linspace(0, 1, COLUMNS)
    found = torch.stack(mapping.at(down, across), -1).double().numpy()
    affine = mapping.affine().numpy() / [width, height, 1]
    y, x = np.meshgrid(down.numpy() * height, across.numpy() * width, indexing="ij")
    return {"affine": affine, "grid": found - (np.stack([x, y], -1) @ affine[:, :2].T + affine[:, 2])}


def chained(pairs: ModuleType, score: ModuleType, photo: str, scale: float, seed: int, between: bool) -> list[str]:
    """After each of three edits in a row: how far what none of them touched is from the first picture."""
    first = pairs.photo(photo, scale)
    start = picture = (first.rgb * 255).round() / np.float32(255)
    touched = np.zeros(start.shape[:2], bool)
    lines = []
    for turn in range(3):
        scene = pairs.Scene(picture.copy(), first.objects)
        pair = pairs.make(pairs.Recipe(f"chain-{turn}", "add", lambda rng, scene=scene: scene, pairs.add_thing), seed)
        touched |= score._disc_grow(pair.truth.mask, 10)
        height, width = start.shape[:2]
        picture = ours(pair.source, pair.edited)[0] if between else pairs.resize(pair.edited, width, height).clip(0, 1)
        delta, psnr = score._colour_error(picture, start, ~touched)
        exact = (picture == start).all(-1)[~touched].mean()
        lines.append(f"{photo:10} {'Keep' if between else 'none':5} {turn + 1} {psnr:6.1f} {delta:6.2f} {exact:7.4f}")
    return lines


def load(folder: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    if spec is None or spec.loader is None or not (folder / f"{name}.py").exists():
        raise SystemExit(f"There is no {name}.py in {folder}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", type=Path)
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true", help="one pair of each kind")
    parser.add_argument("--each", action="store_true", help="a line a pair")
    parser.add_argument("--baselines", action="store_true")
    parser.add_argument("--prototype", action="store_true")
    parser.add_argument("--chain", action="store_true", help="three edits in a row instead of the pairs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs, score = load(options.tools, "keep_pairs"), load(options.tools, "keep_score")
    if options.chain:
        print("photograph, between, turn; PSNR, dE2000, bit-exact of what no edit touched")
        for photo, scale, between in itertools.product(("astronaut", "coffee"), (1.5,), (False, True)):
            print(*chained(pairs, score, photo, scale, options.seed[0], between), sep="\n", flush=True)
        return
    methods = {"ours": lambda pair: ours}
    if options.prototype:
        prototype = load(options.tools, "keep_prototype").keep
        methods["prototype"] = lambda pair: prototype
    if options.baselines:
        methods |= score.BASELINES
    for seed in options.seed:
        rows = score.run(methods, pairs.pairs(seed, options.only, options.quick))
        print(f"seed {seed}\n{score.table(rows, options.each)}", flush=True)


if __name__ == "__main__":
    main()
