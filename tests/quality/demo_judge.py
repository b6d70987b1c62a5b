"""Held-out instructions carried out by this pack's sampler off ComfyUI with the demo model, and judged by what shows.

    python tests/quality/demo_judge.py [--size 128x128] [--each 6] [--doubles 6] [--steps 8] [--kinds remove ...]

prints what is right without and with every mutation. KONTEXT_DEMO_FOLDER names another folder with the demo's files.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.demo.shipped import DemoFiles, demo_files
from kontext_bridge.kontext.edit import LatentEdit
from kontext_bridge.kontext.fp8.compute import Compute
from kontext_bridge.kontext.standalone import mount as mounting
from kontext_bridge.kontext.standalone import sampler
from kontext_bridge.kontext.standalone.denoiser import Conditioning
from kontext_bridge.kontext.standalone.text import encode_words
from kontext_bridge.kontext.standalone.vae import Autoencoder
from kontext_bridge.training.evaluate import Case, Judged, cases, figures, pictures, verdicts
from kontext_bridge.training.instructions import EditKind

FOLDER = "KONTEXT_DEMO_FOLDER"
_CPU = torch.device("cpu")


def files() -> DemoFiles:
    """The demo's files that are to be judged; raises DamagedFile where there are none."""
    folder = os.environ.get(FOLDER)
    return demo_files(Path(folder) if folder else None)


@dataclass(frozen=True)
class Examination:
    """Cases of one size, and how they are sampled."""

    asked: list[Case]
    steps: int
    seed: int = 0

    @property
    def size(self) -> tuple[int, int]:
        scene = self.asked[0].scene
        return scene.width, scene.height


def edited_pictures(demo: DemoFiles, examination: Examination) -> torch.Tensor:
    """The edits [B, 3, H, W] of -1..1, by the whole way off ComfyUI: files, text, VAE, sampler."""
    model = mounting.mount(read_checkpoint(demo.transformer), dtype=torch.float32, compute=Compute.STORAGE)
    autoencoder = Autoencoder(demo.vae, _CPU, torch.float32)
    asked = examination.asked
    said = encode_words(demo.text, [case.said for case in asked])
    together = Conditioning(torch.cat([one.text for one in said]), torch.cat([one.pooled for one in said]))
    width, height = examination.size
    wanted = LatentEdit(width, height, examination.steps, seed=examination.seed, batch=len(asked))
    reference = autoencoder.encode(_image([case.scene for case in asked]))
    return _picture(autoencoder.decode(sampler.sample(model, wanted, together, [reference])))


class Judge:
    """Verdicts on edits of the same cases; what the VAE makes of the right pictures is worked out once."""

    def __init__(self, demo: DemoFiles, examination: Examination) -> None:
        self._asked = examination.asked
        autoencoder = Autoencoder(demo.vae, _CPU, torch.float32)
        self._kept, self._ideal = (
            _picture(autoencoder.decode(autoencoder.encode(_image(scenes))))
            for scenes in ([case.scene for case in self._asked], [case.truth for case in self._asked])
        )

    def __call__(self, made: torch.Tensor) -> list[Judged]:
        return verdicts(self._asked, self._kept, self._ideal, made)


def _image(scenes: list[Any]) -> torch.Tensor:
    return ((pictures(scenes) + 1) / 2).movedim(1, -1)


def _picture(image: torch.Tensor) -> torch.Tensor:
    return image.movedim(-1, 1) * 2 - 1


def examination(
    size: tuple[int, int], each: int, doubles: int, steps: int, kinds: Sequence[str] = (), seed: int = 3000
) -> Examination:
    """kinds: by their values; all of them by default."""
    chosen = [kind for kind in EditKind if not kinds or kind.value in kinds]
    return Examination(cases(chosen, size, each, seed, doubles), steps)


def table(rows: dict[str, list[Judged]]) -> list[str]:
    """A line for each run: percent right in all, decibels outside, and what fell."""
    told = {name: figures(one) for name, one in rows.items()}
    return [f"{name:42} {one['all']:6.1f} % right   {one['outside dB']:6.2f} dB outside" for name, one in told.items()]


def main() -> None:
    from mutations import MUTATIONS, UNCHANGED, is_caught

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="128x128")
    parser.add_argument("--each", type=int, default=6)
    parser.add_argument("--doubles", type=int, default=6)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--kinds", nargs="*", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    width, height = (int(side) for side in given.size.split("x"))
    demo, asked = files(), examination((width, height), given.each, given.doubles, given.steps, given.kinds)
    judge = Judge(demo, asked)
    sound = judge(edited_pictures(demo, asked))
    sys.stdout.write(table({UNCHANGED: sound})[0] + "\n")
    for name, mutation in MUTATIONS.items():
        with mutation():
            made = edited_pictures(demo, asked)
        found = judge(made)
        caught = "caught" if is_caught(sound, found) else "NOT CAUGHT"
        sys.stdout.write(f"{table({name: found})[0]}   {caught}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
