"""Is a held-out instruction done right? Measured on pictures, by kind of instruction.

An edit is right if the picture is nearer to the true one than to the source and to what other edits of the same
scene would have made; if of the change that was asked for less than 40 % is missing; and if nothing else came out
wrong by a quarter of the range on more than 2 % of the other pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from .autoencoder import decoded, encoded
from .drawing import drawn, tensor_ready
from .instructions import BORROWED, EditKind, SceneEdit, edited, lent, never_taught, possible
from .network import DemoNetwork, edits
from .scenes import Scene, random_scene
from .wording import double_sentence, held_out, sentence

MISSING = 0.4
_STRAY, _STRAY_SHARE = 0.5, 0.02
_ALTERNATIVES = 14


@dataclass(frozen=True)
class Case:
    """One held-out instruction of an unseen scene, and other edits that the result must not look like.

    second: the picture from which something is taken over.
    """

    scene: Scene
    edits: tuple[SceneEdit, ...]
    said: str
    others: tuple[SceneEdit, ...]
    second: Scene | None = None

    @property
    def kind(self) -> str:
        return self.edits[0].kind.value if len(self.edits) == 1 else "two in one"

    @property
    def truth(self) -> Scene:
        scene = self.scene
        for edit in self.edits:
            scene = edited(scene, edit)
        return scene


@dataclass(frozen=True)
class Judged:
    """missing: the share of the change that was not made. outside: decibels where nothing was to change."""

    kind: str
    right: bool
    missing: float
    outside: float


def cases(kinds: Iterable[EditKind], size: tuple[int, int], each: int, seed: int, doubles: int = 0) -> list[Case]:
    """`each` instructions of every kind, then so many of two edits. Half of the paintings are colours never taught."""
    rng = np.random.default_rng([seed, *size, 7])
    found = []
    for kind in kinds:
        for number in range(each):
            found.append(_case(rng, size, kind, unseen=kind is EditKind.RECOLOUR and number % 2 == 0))
    for _ in range(doubles):
        found.append(_double(rng, size))
    return found


def _case(rng: np.random.Generator, size: tuple[int, int], kind: EditKind, unseen: bool) -> Case:
    while True:
        scene, second = random_scene(rng, size), None
        every = possible(scene)
        if kind is EditKind.BORROW:
            second = random_scene(rng, size)
            every += [lent(second, name) for name in BORROWED if scene.thing(name) is None and second.thing(name)]
        wanted = [edit for edit in every if edit.kind is kind and never_taught(edit) is unseen]
        if wanted:
            edit = wanted[int(rng.integers(len(wanted)))]
            said = sentence(edit, scene, rng, judged=True)
            if held_out(said):  # of the sentences for some edits none is
                return Case(scene, (edit,), said, _others(rng, scene, every, (edit,)), second)


def _double(rng: np.random.Generator, size: tuple[int, int]) -> Case:
    while True:
        scene = random_scene(rng, size)
        every = [edit for edit in possible(scene) if not never_taught(edit)]
        first, second = (every[int(k)] for k in rng.choice(len(every), 2, replace=False))
        after_first, after_second = edited(scene, first), edited(scene, second)
        if second not in possible(after_first) or first not in possible(after_second):
            continue
        both = edited(after_first, second)
        if both == edited(after_second, first) and both != scene:
            said = double_sentence((first, second), scene, rng, judged=True)
            return Case(scene, (first, second), said, _others(rng, scene, every, (first, second)))


def _others(
    rng: np.random.Generator, scene: Scene, every: list[SceneEdit], wanted: tuple[SceneEdit, ...]
) -> tuple[SceneEdit, ...]:
    """Edits that share a thing or a colour with what is wanted come first. What gives the same picture is no other."""
    truth = scene
    for edit in wanted:
        truth = edited(truth, edit)
    left = [edit for edit in (every[int(k)] for k in rng.permutation(len(every))) if edited(scene, edit) != truth]
    left = [edit for edit in left if edit not in wanted]
    if wanted[0].kind is EditKind.BORROW:
        # Nor is adding it in the very colour that the second picture has it in.
        colour = wanted[0].value.partition(" ")[0]
        left = [edit for edit in left if (edit.kind, edit.what, edit.value) != (EditKind.ADD, wanted[0].what, colour)]
    alike = {edit.what for edit in wanted} | {edit.value for edit in wanted}
    left.sort(key=lambda edit: edit.what not in alike and edit.value not in alike)
    return tuple(left[:_ALTERNATIVES])


@torch.inference_mode()
def judge(
    network: DemoNetwork, autoencoder: Any, asked: list[Case], steps: int = 10, seed: int = 0
) -> tuple[list[Judged], torch.Tensor]:
    """Verdicts on cases of one size, and [B, 3, 3, H, W]: source, edit and truth of each. Computed where network is."""
    device = next(network.parameters()).device
    source, truth = pictures([case.scene for case in asked]), pictures([case.truth for case in asked])
    latent, latent_truth = (encoded(autoencoder, shown.to(device)) for shown in (source, truth))
    made_latent = torch.empty_like(latent)
    for borrows in (False, True):
        at = [number for number, case in enumerate(asked) if (case.second is not None) is borrows]
        if at:
            seconds = [second for number in at if (second := asked[number].second) is not None]
            other = encoded(autoencoder, pictures(seconds).to(device)) if borrows else None
            made_latent[at] = edits(network, latent[at], [asked[number].said for number in at], steps, seed, other)
    kept, ideal, made = (decoded(autoencoder, one).cpu() for one in (latent, latent_truth, made_latent))
    return verdicts(asked, kept, ideal, made), torch.stack([source, made, truth], 1)


def verdicts(asked: list[Case], kept: torch.Tensor, ideal: torch.Tensor, made: torch.Tensor) -> list[Judged]:
    """Verdicts on edits of cases of one size, whoever made them.

    made: the edits; kept and ideal: source and truth as the VAE gives them back; all [B, 3, H, W] of -1..1.
    """
    source, truth = pictures([case.scene for case in asked]), pictures([case.truth for case in asked])
    return [_verdict(case, *shown) for case, *shown in zip(asked, source, truth, kept, ideal, made, strict=True)]


def _verdict(
    case: Case, source: torch.Tensor, truth: torch.Tensor, kept: torch.Tensor, ideal: torch.Tensor, made: torch.Tensor
) -> Judged:
    change = (source - truth).abs().amax(0) > 0.1
    near = functional.max_pool2d(change.float()[None], 5, 1, 2)[0] > 0
    missing = ((made - ideal).abs().mean(0)[change].mean() / (kept - ideal).abs().mean(0)[change].mean()).item()
    outside = ~near
    if bool(outside.any()):
        squared = (made - truth).square().mean(0)[outside].mean()
        stray = ((made - ideal).abs().amax(0)[outside] > _STRAY).float().mean().item()
        decibels = float(10 * torch.log10(4 / squared))
    else:
        stray, decibels = 0.0, float("nan")
    wrong = _wrong(case)
    nearest = (wrong - made).square().mean((1, 2, 3)).min() > (truth - made).square().mean()
    right = bool(nearest) and missing < MISSING and stray < _STRAY_SHARE
    return Judged(case.kind, right, missing, decibels)


@functools.lru_cache(400)
def _wrong(case: Case) -> torch.Tensor:
    return pictures([case.scene, *(edited(case.scene, edit) for edit in case.others)])


def figures(judged: Iterable[Judged]) -> dict[str, float]:
    """Percent right, by kind and of all, the median missing share and the mean decibels outside."""
    judged = list(judged)
    found = {"all": 100 * float(np.mean([v.right for v in judged]))}
    for kind in dict.fromkeys(v.kind for v in judged):
        found[kind] = 100 * float(np.mean([v.right for v in judged if v.kind == kind]))
    found["missing"] = float(np.median([v.missing for v in judged]))
    found["outside dB"] = float(np.nanmean([v.outside for v in judged]))
    return {name: round(value, 2) for name, value in found.items()}


def pictures(scenes: list[Scene]) -> torch.Tensor:
    """Scenes as [B, 3, H, W] of -1..1."""
    return torch.from_numpy(tensor_ready([drawn(scene) for scene in scenes]))
