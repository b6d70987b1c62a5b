"""Held-out instructions carried out with the demo model, and judged by what shows.

    python tests/quality/demo_judge.py [--size 128x128] [--each 1] [--steps 6] [--kinds remove ...]

prints what the judge sees without and with every mutation. KONTEXT_DEMO_FOLDER names another folder with the demo's
files. The judge's own latents and pictures of what is right are made by the code that trained the VAE, so that they do
not share a mistake with the pack's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kontext_bridge.kontext.checkpoint.layers import Naming
from kontext_bridge.kontext.checkpoint.lora import read_lora
from kontext_bridge.kontext.checkpoint.reading import read_checkpoint
from kontext_bridge.kontext.demo.shipped import LORAS, DemoFiles, demo_files
from kontext_bridge.kontext.edit import LatentEdit
from kontext_bridge.kontext.fp8.compute import Compute
from kontext_bridge.kontext.standalone import lora, sampler
from kontext_bridge.kontext.standalone import mount as mounting
from kontext_bridge.kontext.standalone.denoiser import Conditioning
from kontext_bridge.kontext.standalone.text import encode_words
from kontext_bridge.kontext.standalone.vae import Autoencoder
from kontext_bridge.training import autoencoder as taught
from kontext_bridge.training.album import with_lanterns
from kontext_bridge.training.evaluate import Case, cases, pictures, verdicts
from kontext_bridge.training.instructions import EditKind, SceneEdit, possible
from kontext_bridge.training.scenes import Scene, Time, random_scene
from kontext_bridge.training.wording import WITH_LIGHTS
from torch.nn import functional

FOLDER = "KONTEXT_DEMO_FOLDER"
# Lies beside the demo's other files.
(LORA,) = LORAS
CPU = torch.device("cpu")
# The kinds that the model hardly ever gets wrong: a judge is as sharp as its model is sure.
SURE = (EditKind.RECOLOUR, EditKind.REMOVE, EditKind.TIME, EditKind.SEASON, EditKind.WEATHER, EditKind.SWAP)


def files() -> DemoFiles:
    """The demo's files that are to be judged; raises DamagedFile where there are none."""
    folder = os.environ.get(FOLDER)
    return demo_files(Path(folder) if folder else None)


def size_of(asked: Sequence[Case]) -> tuple[int, int]:
    """Width and height of cases that are all of one size."""
    return asked[0].scene.width, asked[0].scene.height


class Editor:
    """The demo model off ComfyUI: the whole way by this pack, from files and pictures to pictures."""

    def __init__(
        self,
        demo: DemoFiles,
        compute: Compute = Compute.STORAGE,
        dtype: torch.dtype = torch.float32,
        *,
        quantise: bool = True,
    ) -> None:
        """What it is computed with: as in `mount`."""
        self._demo = demo
        checkpoint = read_checkpoint(demo.transformer)
        self.model: Any = mounting.mount(checkpoint, dtype=dtype, compute=compute, quantise=quantise)
        self.autoencoder = Autoencoder(demo.vae, CPU, torch.float32)
        self._latents: dict[Any, torch.Tensor] = {}

    def with_lora(self, path: Path, strength: float = 1.0) -> None:
        """Puts a LoRA beside the model's layers; at 0 strength it is there and does nothing."""
        found = read_lora(path, read_checkpoint(self._demo.transformer).size)
        lora.attach(lora.linears_of(self.model), Naming.DIFFUSERS, found, strength)

    def references(self, asked: Sequence[Case]) -> list[torch.Tensor]:
        """Latents of the pictures, and of the second ones where all cases have one. Encoded once."""
        seconds = [case.second for case in asked if case.second is not None]
        assert len(seconds) in (0, len(asked)), "with a second picture and without are two runs"
        together = [[case.scene for case in asked], *([seconds] if seconds else [])]
        for scenes in together:
            fresh = [scene for scene in dict.fromkeys(scenes) if scene not in self._latents]
            if fresh:
                self._latents.update(zip(fresh, self.autoencoder.encode(as_image(pictures(fresh))), strict=True))
        return [torch.stack([self._latents[scene] for scene in scenes]) for scenes in together]

    def latents(self, asked: Sequence[Case], steps: int, seed: int = 0, **options: Any) -> torch.Tensor:
        """The edits' latents [B, 16, h, w]; options: of `sampler.sample`."""
        wanted = LatentEdit(*size_of(asked), steps, seed=seed, batch=len(asked))
        said = self._encoded([case.said for case in asked])
        return sampler.sample(self.model, wanted, said, self.references(asked), **options)

    def _encoded(self, said: list[str]) -> Conditioning:
        found = encode_words(self._demo.text, said)
        return Conditioning(torch.cat([one.text for one in found]), torch.cat([one.pooled for one in found]))

    def pictures(self, latents: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] of -1..1."""
        return as_picture(self.autoencoder.decode(latents))

    def edited(self, asked: Sequence[Case], steps: int, seed: int = 0, **options: Any) -> Edits:
        """The edits, and the first picture there and back."""
        return self.edits_of(asked, self.latents(asked, steps, seed, **options))

    def edits_of(self, asked: Sequence[Case], latents: torch.Tensor) -> Edits:
        """The same of latents that are there."""
        return Edits(latents, self.pictures(latents), self.pictures(self.references(asked[:1])[0]))

    def edited_image(self, image: torch.Tensor, said: str, steps: int) -> torch.Tensor:
        """The edit of any IMAGE [1, H, W, 3] whose sides are multiples of 16."""
        wanted = LatentEdit(image.shape[2], image.shape[1], steps)
        latents = sampler.sample(self.model, wanted, self._encoded([said]), [self.autoencoder.encode(image)])
        return self.autoencoder.decode(latents)


@dataclass(frozen=True)
class Edits:
    """Latents [B, 16, h, w] in the transformer's scale, and pictures [B, 3, H, W] of -1..1.

    round_trip: the first case's picture [1, 3, H, W], encoded and decoded and not edited.
    """

    latents: torch.Tensor
    pictures: torch.Tensor
    round_trip: torch.Tensor


@dataclass(frozen=True)
class Seen:
    """What the judge sees of some edits.

    right: how many instructions, of how many asked. outside: decibels of the untouched part of the pictures. kept: the
    same against what the VAE alone makes of it. contrast, brightness: the slope and the intercept of the edits'
    latents on the right ones, in the untouched part; like kept, NaN where nothing is untouched. vae: decibels of a
    picture there and back against the VAE's own way there and back.
    """

    right: int
    asked: int
    outside: float
    kept: float
    contrast: float
    brightness: float
    vae: float

    def __str__(self) -> str:
        return (
            f"{self.right:3} of {self.asked} right   outside {self.outside:5.2f} dB   kept {self.kept:5.2f} dB   "
            f"contrast {self.contrast:6.4f}   brightness {self.brightness:+.4f}   "
            f"VAE {self.vae:5.1f} dB"
        )


@dataclass(frozen=True)
class Bounds:
    """What edits must be for the judge to call them sound. wrong: how many instructions may fail."""

    wrong: int = 0
    kept: float = 37.0
    contrast: float = 0.012
    brightness: float = 0.01
    vae: float = 60.0

    def faults(self, seen: Seen) -> list[str]:
        """What is wrong, in words; nothing where all is well."""
        found = []
        if seen.asked - seen.right > self.wrong:
            found.append(f"{seen.asked - seen.right} wrong, {self.wrong} allowed")
        if not seen.kept >= self.kept:
            found.append(f"kept {seen.kept:.1f} dB, at least {self.kept}")
        if not abs(seen.contrast - 1) <= self.contrast:
            found.append(f"contrast {seen.contrast:.4f}, 1 within {self.contrast}")
        if not abs(seen.brightness) <= self.brightness:
            found.append(f"brightness {seen.brightness:+.4f}, 0 within {self.brightness}")
        if not seen.vae >= self.vae:
            found.append(f"VAE {seen.vae:.1f} dB, at least {self.vae}")
        return found


class Judge:
    """What shows in edits of the same cases; what is right, and what the VAE makes of it, is worked out once."""

    def __init__(self, demo: DemoFiles, asked: Sequence[Case]) -> None:
        self._asked = list(asked)
        self._model = Autoencoder(demo.vae, CPU, torch.float32)._model
        source, truth = (pictures([getattr(case, name) for case in asked]) for name in ("scene", "truth"))
        latent, self._latent = (self.latents_of(shown) for shown in (source, truth))
        self._kept, self._ideal = (taught.decoded(self._model, one) for one in (latent, self._latent))
        change = ((source - truth).abs().amax(1, keepdim=True) > 0.1).float()
        self._untouched = functional.max_pool2d(change, 5, 1, 2)[:, 0] == 0
        # A latent sees some pixels around its own 8x8.
        self._untouched_latents = functional.max_pool2d(functional.max_pool2d(change, 8), 3, 1, 1)[:, 0] == 0

    def latents_of(self, shown: torch.Tensor) -> torch.Tensor:
        """Latents of pictures [B, 3, H, W], by what trained the VAE."""
        return taught.encoded(self._model, shown)

    def __call__(self, made: Edits) -> Seen:
        judged = verdicts(self._asked, self._kept, self._ideal, made.pictures)
        right, own = (one.movedim(1, -1)[self._untouched_latents] for one in (self._latent, made.latents))
        contrast = brightness = np.nan
        if right.numel():
            contrast, brightness = np.polyfit(right.flatten().numpy(), own.flatten().numpy(), 1)
        outside = [one.outside for one in judged if not np.isnan(one.outside)]
        return Seen(
            right=sum(one.right for one in judged),
            asked=len(judged),
            outside=float(np.mean(outside)) if outside else np.nan,
            kept=_decibels((made.pictures - self._ideal).movedim(1, -1)[self._untouched]),
            contrast=float(contrast),
            brightness=float(brightness),
            vae=_decibels(made.round_trip - self._kept[:1]),
        )


def _decibels(error: torch.Tensor) -> float:
    """Peak signal to noise of errors on a scale of -1..1, at most 120."""
    return float(10 * torch.log10(4 / error.square().mean().clamp(min=4e-12)))


def as_image(shown: torch.Tensor) -> torch.Tensor:
    """[B, 3, H, W] of -1..1 as an IMAGE [B, H, W, 3] of 0..1."""
    return ((shown + 1) / 2).movedim(1, -1)


def as_picture(image: torch.Tensor) -> torch.Tensor:
    """An IMAGE [B, H, W, 3] of 0..1 as [B, 3, H, W] of -1..1."""
    return image.movedim(-1, 1) * 2 - 1


@dataclass(frozen=True)
class Lanterns(Case):
    """What the demo's LoRA is asked: night, and lanterns. Night alone is one of the others that it must not be."""

    @property
    def kind(self) -> str:
        return "night, with lights"

    @property
    def truth(self) -> Scene:
        return with_lanterns(self.scene)


def lantern_cases(size: tuple[int, int], count: int, seed: int = 3000) -> list[Case]:
    """Scenes at night, so that all but the lanterns is to stay, and a sentence of the LoRA's for each."""
    rng = np.random.default_rng([seed, *size, 78])
    night = SceneEdit(EditKind.TIME, value=Time.NIGHT.value)
    found: list[Case] = []
    while len(found) < count:
        scene = random_scene(rng, size)
        if scene.time is Time.NIGHT:
            others = tuple(edit for edit in possible(scene) if edit.kind is EditKind.WEATHER)
            found.append(Lanterns(scene, (night,), WITH_LIGHTS[len(found) % len(WITH_LIGHTS)], others))
    return found


def exam(
    size: tuple[int, int], each: int, kinds: Sequence[EditKind] = SURE, seed: int = 3000, doubles: int = 0
) -> list[Case]:
    """Held-out cases of one size."""
    return cases(kinds, size, each, seed, doubles)


def main() -> None:
    from mutations import BOUNDS, KINDS, LORA_MUTATIONS, MUTATIONS, STEPS, TELLING, UNCHANGED

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="128x128")
    parser.add_argument("--each", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=3000)
    parser.add_argument("--kinds", nargs="*", default=[], help="by their names, as `swap colours`")
    given = parser.parse_args()
    torch.set_num_threads(1)
    width, height = (int(side) for side in given.size.split("x"))
    kinds = [EditKind(name) for name in given.kinds] or KINDS
    demo, size = files(), (width, height)
    runs = [(exam(size, given.each, kinds, given.seed), MUTATIONS, None)]
    for name, one in TELLING.items():
        telling = exam(size, 4 * given.each, one.kinds, given.seed, one.doubles * given.each)
        runs.append((telling, {name: one.mutation}, None))
    if (demo.transformer.parent / LORA).is_file():
        runs.append((lantern_cases(size, len(kinds), given.seed), LORA_MUTATIONS, demo.transformer.parent / LORA))
    for asked, mutations, with_lora in runs:
        judge = Judge(demo, asked)
        for name, mutation in {UNCHANGED: contextlib.nullcontext, **mutations}.items():
            with mutation():
                editor = Editor(demo)
                if with_lora:
                    editor.with_lora(with_lora)
                seen = judge(editor.edited(asked, given.steps))
            sys.stdout.write(f"{name:46} {seen}   {'; '.join(BOUNDS.faults(seen))}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
