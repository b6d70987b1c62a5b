"""What each approximation costs and saves, judged by the demo model's edits of held-out instructions.

python benchmarks/fast.py [--edits 72] [--steps 20] [--seed 5000] [--only TEXT]

One edit at a time on one thread, as someone who tries it has it: exactly and with each option in turn, from the same
noise. Right is what the judge of tests/quality calls right; the deviation is from the exact edit of all steps. Work is
rows of tokens through blocks, counted. Time is the process's own as a part of the exact edit's, which is timed before
the options and after them, and of a model so small that what is not in blocks counts for much: it says nothing of
Kontext. Edits that paint the whole picture anew are not tried with a mask; the exact edits of the others have a row of
their own. Ends in a table, with how busy the machine was: of the edits so far, where Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from kontext_bridge.kontext.fast.tally import Tally, apart, decibels
from kontext_bridge.kontext.fast.wishes import Wishes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "quality"))

from demo_judge import SURE, Editor, Judge, as_image, exam, files
from kontext_bridge.training.evaluate import Case, pictures
from kontext_bridge.training.instructions import EditKind
from kontext_bridge.training.scenes import FULL

# What paints the whole picture anew has nothing outside a mask; such edits are not asked with one.
_MOST_MASKED = 0.6


def drawn_around(case: Case, pixels: int = 6) -> torch.Tensor:
    """A mask [1, H, W] as an artist would draw it: what is to change, and some pixels around it."""
    source, truth = (pictures([scene]) for scene in (case.scene, case.truth))
    change = ((source - truth).abs().amax(1) > 0.1).float()
    return torch.nn.functional.max_pool2d(change, 2 * pixels + 1, 1, pixels)


@dataclass(frozen=True)
class Way:
    """What is asked for of an edit: approximations, whether within a mask, and which part of the steps is taken."""

    fast: Wishes = field(default_factory=Wishes)
    settled: float = 0.0
    masked: bool = False
    steps: float = 1.0

    def wishes(self, mask: torch.Tensor) -> Wishes:
        return replace(self.fast, settled=self.settled, mask=mask) if self.settled else self.fast


EXACT = {"exact": Way(), "exact, edits with a mask": Way(masked=True)}
# A distilled LoRA makes few steps whole. The demo has none, so that here they are only left out.
OPTIONS = {
    **{f"cache {much}": Way(Wishes(cache=much)) for much in (0.05, 0.1, 0.15, 0.2, 0.25)},
    **{f"mask, settled {much}": Way(settled=much, masked=True) for much in (0.05, 0.1, 0.3)},
    "cache 0.2, mask 0.1": Way(Wishes(cache=0.2), settled=0.1, masked=True),
    **{f"reference {much:g}": Way(Wishes(smaller=much)) for much in (1.5, 2.0)},
    "half the steps": Way(steps=0.5),
    "a quarter of the steps": Way(steps=0.25),
}


@dataclass
class Found:
    """What came of one way, over all edits."""

    edits: int = 0
    right: int = 0
    kept: list[float] = field(default_factory=list)
    latent: list[float] = field(default_factory=list)
    picture: list[float] = field(default_factory=list)
    seconds: float = 0.0
    exact: float = 0.0
    tally: Tally = field(default_factory=Tally)

    def row(self, name: str, way: Way) -> str:
        mean, tally = statistics.fmean, self.tally
        # Where an edit changes all of the picture there is nothing to keep.
        kept = [one for one in self.kept if not math.isnan(one)]
        return (
            f"| {name} | {self.edits} | {self.right / self.edits:.1%} | {mean(kept) if kept else math.nan:.1f} "
            f"| {mean(self.latent):.3f} | {max(self.latent):.3f} | {mean(self.picture):.1f} "
            f"| {part(tally.blocks_left, tally.blocks):.0%} | {part(tally.tokens_left, tally.tokens):.0%} "
            f"| {1 - way.steps * (1 - tally.saved):.0%} | {self.seconds / self.exact:.2f} |"
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


def measured(editor: Editor, asked: Sequence[Case], ways: dict[str, Way], steps: int) -> dict[str, Found]:
    """What was found of each way, over the edits so far where someone ends it."""
    found = {name: Found() for name in ways}
    try:
        for case in asked:
            one_edit(editor, case, ways, steps, found)
    except KeyboardInterrupt:
        print("ended early")
    return found


def one_edit(editor: Editor, case: Case, ways: dict[str, Way], steps: int, found: dict[str, Found]) -> None:
    judge, mask = Judge(files(), [case]), drawn_around(case)
    editor.references([case])
    exact, before = timed(editor, case, steps)
    shown = as_image(editor.pictures(exact))
    made: dict[str, tuple[torch.Tensor, float | None]] = {}
    for name, way in ways.items():
        if name in EXACT:
            made[name] = exact, None
        elif not way.masked or mask.mean() <= _MOST_MASKED:
            wishes = way.wishes(mask)
            given = {"fast": wishes, "tally": found[name].tally} if wishes else {}
            made[name] = timed(editor, case, max(1, round(steps * way.steps)), **given)
    # A machine grows slower and faster while the options are tried.
    mean = (before + timed(editor, case, steps)[1]) / 2
    for name, (latent, seconds) in made.items():
        if ways[name].masked and mask.mean() > _MOST_MASKED:
            continue
        one, edits = found[name], editor.edits_of([case], latent)
        seen = judge(edits)
        one.edits += 1
        one.exact += mean
        one.seconds += mean if seconds is None else seconds
        one.right += seen.right
        one.kept.append(seen.kept)
        one.latent.append(apart(latent, exact))
        one.picture.append(decibels(as_image(edits.pictures), shown))


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
    ways = EXACT | {name: way for name, way in OPTIONS.items() if given.only in name}
    found = measured(Editor(files()), asked, ways, given.steps)
    print(f"{len(asked)} edits of 128x128, {given.steps} steps, one thread, torch {torch.__version__}")
    print(HEAD)
    for name, one in found.items():
        if one.edits:
            print(one.row(name, ways[name]), flush=True)
    print(f"load over the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
