"""Encoded families of one picture size, drawn as training goes on, and batches of lessons from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..kontext.checkpoint.layers import LATENT_CHANNELS
from ..kontext.latents import pack
from .drawing import drawn, tensor_ready
from .families import AXES, CORNERS, Family, Lesson, family, lessons
from .instructions import EditKind
from .vocabulary import numbers
from .wording import double_sentence, sentence, with_courtesy

Encode = Callable[[torch.Tensor], torch.Tensor]
_CHANGED = 0.25


@dataclass(frozen=True)
class Course:
    """What is taught at a time.

    blocks: how many double and single ones the net has by then. batch: lessons a step. doubles: the share of sentences
    with two edits. plain: no courtesies in them.
    """

    name: str
    blocks: tuple[int, int]
    sizes: tuple[tuple[int, int], ...]
    kinds: frozenset[EditKind]
    batch: int
    doubles: float = 0.0
    plain: bool = False


@dataclass(frozen=True, eq=False)
class LessonBatch:
    """Tokens [B, L, 64] of sources and targets, words [B, PLACES], guidance [B], weight [B, L, 1] of mean about 1."""

    source: torch.Tensor
    target: torch.Tensor
    words: torch.Tensor
    guidance: torch.Tensor
    weight: torch.Tensor


class Pool:
    """Families number 0, 1, ... of a size; their pictures come from the seed, so only latents are stored.

    kinds: what its lessons are of; a pool of other kinds is another pool.
    """

    def __init__(self, size: tuple[int, int], kinds: frozenset[EditKind], seed: int) -> None:
        self.size, self.kinds = size, kinds
        self._seed = seed
        self._code = sum(1 << number for number, kind in enumerate(EditKind) if kind in kinds)
        width, height = size
        self._latents = torch.zeros(0, CORNERS, LATENT_CHANNELS, height // 8, width // 8, dtype=torch.float16)
        self._families: list[Family] = []

    def __len__(self) -> int:
        return len(self._families)

    def grow(self, count: int, encode: Encode) -> None:
        """Draws and encodes so many more families."""
        fresh = [self._family(len(self) + k) for k in range(count)]
        latents = [encode(torch.from_numpy(tensor_ready([drawn(scene) for scene in one.corners]))) for one in fresh]
        needed = len(self) + count
        if needed > len(self._latents):
            # Twice as much room each time, so that growing by one does not copy everything.
            room = torch.zeros(max(needed, 2 * len(self)), *self._latents.shape[1:], dtype=torch.float16)
            room[: len(self)] = self._latents[: len(self)]
            self._latents = room
        for latent, one in zip(latents, fresh, strict=True):
            self._latents[len(self)] = latent
            self._families.append(one)

    def save(self, folder: Path) -> None:
        """Keeps the latents, so that the next run need not encode them."""
        save_file({"latents": self._latents[: len(self)].clone()}, folder / self._name)

    def load(self, folder: Path) -> None:
        """Takes up what `save` kept, if anything."""
        path = folder / self._name
        if path.is_file():
            self._latents = load_file(path)["latents"]
            self._families = [self._family(number) for number in range(len(self._latents))]

    def batch(self, rng: np.random.Generator, course: Course, unheard: float = 0.06) -> LessonBatch:
        """Random lessons of a course. unheard: the share whose guidance is near 0, which is to leave the picture.

        So guidance means something: a sampler that hands it over wrongly is found out by its pictures.
        """
        count = course.batch
        drawn_lessons = [self._lesson(rng, course) for _ in range(count)]
        at = torch.tensor([number for number, _ in drawn_lessons])
        source = self._latents[at, torch.tensor([lesson.source for _, lesson in drawn_lessons])].float()
        target = self._latents[at, torch.tensor([lesson.target for _, lesson in drawn_lessons])].float()
        said = [self._said(rng, self._families[number], lesson, course) for number, lesson in drawn_lessons]
        deaf = torch.from_numpy(rng.random(count) < unheard)
        heard = torch.from_numpy(rng.uniform(1, 4, count).astype(np.float32))
        little = torch.from_numpy(rng.uniform(0, 0.2, count).astype(np.float32))
        target = torch.where(deaf[:, None, None, None], source, target)
        tokens, wanted = pack(source), pack(target)
        return LessonBatch(
            tokens, wanted, torch.tensor([numbers(one) for one in said]), torch.where(deaf, little, heard),
            _weight(tokens, wanted),
        )  # fmt: skip

    @property
    def _name(self) -> str:
        return f"pool_{self.size[0]}x{self.size[1]}_{self._code}.safetensors"

    def _family(self, number: int) -> Family:
        return family(np.random.default_rng([self._seed, *self.size, self._code, number]), self.size, self.kinds)

    def _lesson(self, rng: np.random.Generator, course: Course) -> tuple[int, Lesson]:
        while True:
            number = int(rng.integers(len(self)))
            order = [int(axis) for axis in rng.permutation(AXES)]
            axes = tuple(order[: 2 if rng.random() < course.doubles else 1])
            found = lessons(self._families[number], axes)
            if found:
                return number, found[int(rng.integers(len(found)))]

    def _said(self, rng: np.random.Generator, cube: Family, lesson: Lesson, course: Course) -> str:
        scene = cube.corners[lesson.source]
        if len(lesson.edits) == 2:
            said = double_sentence((lesson.edits[0], lesson.edits[1]), scene, rng)
        else:
            said = sentence(lesson.edits[0], scene, rng)
        return said if course.plain else with_courtesy(said, lesson.edits, scene, rng)


def _weight(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Half of the loss for the tokens that change, however few: copying the rest is the easier half to learn."""
    changed = ((source - target).abs().mean(-1, keepdim=True) > _CHANGED).float()
    share = changed.mean(1, keepdim=True).clamp(min=0.06)
    return torch.where(changed.sum(1, keepdim=True) > 0, 0.5 + 0.5 * changed / share, torch.ones_like(changed))
