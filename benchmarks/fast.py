"""What each approximation costs and saves, judged by the demo model's edits of held-out instructions.

python benchmarks/fast.py [--edits 72] [--steps 20] [--seed 5000] [--only TEXT]

One edit at a time on one thread, as someone who tries it has it: exactly and with each option in turn, from the same
noise. Right is what the judge of tests/quality calls right; the deviation is from the exact edit. Work is rows of
tokens through blocks, counted. Time is the process's own, exact and fast by turns, as a part of the exact edit's, and
of a model so small that what is not in blocks counts for much: it says nothing of Kontext. Ends in a table, with how
busy the machine was.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from kontext_bridge.kontext.fast.tally import Tally, apart, decibels
from kontext_bridge.kontext.fast.wishes import Wishes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "quality"))

from demo_judge import SURE, Editor, Judge, as_image, exam, files
from kontext_bridge.training.evaluate import Case, pictures
from kontext_bridge.training.instructions import EditKind
from kontext_bridge.training.scenes import FULL

Asks = Callable[[Case], Wishes]
# What paints the whole picture anew has nothing outside a mask; such edits are not asked with one.
_MOST_MASKED = 0.6


def drawn_around(case: Case, pixels: int = 6) -> torch.Tensor:
    """A mask [1, H, W] as an artist would draw it: what is to change, and some pixels around it."""
    source, truth = (pictures([scene]) for scene in (case.scene, case.truth))
    change = ((source - truth).abs().amax(1) > 0.1).float()
    return torch.nn.functional.max_pool2d(change, 2 * pixels + 1, 1, pixels)


OPTIONS: dict[str, Asks] = {
    "cache 0.05": lambda case: Wishes(cache=0.05),
    "cache 0.1": lambda case: Wishes(cache=0.1),
    "cache 0.15": lambda case: Wishes(cache=0.15),
    "cache 0.25": lambda case: Wishes(cache=0.25),
    "mask, settled 0.05": lambda case: Wishes(settled=0.05, mask=drawn_around(case)),
    "mask, settled 0.1": lambda case: Wishes(settled=0.1, mask=drawn_around(case)),
    "mask, settled 0.3": lambda case: Wishes(settled=0.3, mask=drawn_around(case)),
    "reference 1.5": lambda case: Wishes(smaller=1.5),
    "reference 2": lambda case: Wishes(smaller=2.0),
    "cache 0.1, mask 0.1": lambda case: Wishes(cache=0.1, settled=0.1, mask=drawn_around(case)),
}


@dataclass
class Found:
    """What came of one option, over all edits."""

    edits: int = 0
    right: int = 0
    kept: list[float] = field(default_factory=list)
    latent: list[float] = field(default_factory=list)
    picture: list[float] = field(default_factory=list)
    seconds: float = 0.0
    exact: float = 0.0
    tally: Tally = field(default_factory=Tally)

    def row(self, name: str) -> str:
        mean, tally = statistics.fmean, self.tally
        return (
            f"| {name} | {self.edits} | {self.right / self.edits:.1%} | {mean(self.kept):.1f} "
            f"| {mean(self.latent):.3f} | {max(self.latent):.3f} | {mean(self.picture):.1f} "
            f"| {part(tally.blocks_left, tally.blocks):.0%} | {part(tally.tokens_left, tally.tokens):.0%} "
            f"| {tally.saved:.0%} | {self.seconds / self.exact:.2f} |"
        )


def part(left: int, whole: int) -> float:
    return left / whole if whole else 0.0


HEAD = (
    "| option | edits | right | kept, dB | latent apart | at most | picture, dB | blocks left out | tokens left out "
    "| work left out | time |\n|" + "---|" * 11
)


def timed(editor: Editor, case: Case, steps: int, **options: object) -> tuple[torch.Tensor, float]:
    began = time.process_time()
    latent = editor.latents([case], steps, **options)
    return latent, time.process_time() - began


def measured(editor: Editor, asked: Sequence[Case], options: dict[str, Asks], steps: int) -> dict[str, Found]:
    found = {name: Found() for name in ("exact", *options)}
    for case in asked:
        judge = Judge(files(), [case])
        editor.references([case])
        exact, _ = timed(editor, case, steps)
        shown = as_image(editor.pictures(exact))
        for name, asks in {"exact": lambda case: Wishes(), **options}.items():
            one, wishes = found[name], asks(case)
            if wishes.mask is not None and wishes.mask.mean() > _MOST_MASKED:
                continue
            one.edits += 1
            one.exact += timed(editor, case, steps)[1]
            latent, seconds = timed(editor, case, steps, fast=wishes, tally=one.tally)
            one.seconds += seconds
            made = editor.edits_of([case], latent)
            seen = judge(made)
            one.right += seen.right
            one.kept.append(seen.kept)
            one.latent.append(apart(latent, exact))
            one.picture.append(decibels(as_image(made.pictures), shown))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=72)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=5000)
    parser.add_argument("--only", default="", help="options whose names hold this text")
    given = parser.parse_args()
    torch.set_num_threads(1)
    # One of each kind that the model is sure of, and those that it is less sure of, where a little worse shows.
    kinds = [*SURE, EditKind.ADD, EditKind.MOVE, EditKind.RESIZE]
    asked = exam(FULL[0], -(-given.edits // len(kinds)), kinds, given.seed)[: given.edits]
    options = {name: asks for name, asks in OPTIONS.items() if given.only in name}
    found = measured(Editor(files()), asked, options, given.steps)
    print(f"{len(asked)} edits of 128x128, {given.steps} steps, one thread, torch {torch.__version__}")
    print(HEAD)
    for name, one in found.items():
        if one.edits:
            print(one.row(name), flush=True)
    print(f"load over the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
