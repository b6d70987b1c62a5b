"""Families drawn, with what can be said about them: by as many processes as there are, or by this one.

Everything that a lesson needs beside the latents is made here, once: which picture it starts from, which it leads to
and the sentence as numbers, several of each family. So a batch is looked up, wherever the latents lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .drawing import drawn
from .families import AXES, Family, family, lessons
from .instructions import EditKind
from .scenes import Scene, Time, random_scene
from .vocabulary import PLACES, numbers
from .wording import WITH_LIGHTS, double_sentence, sentence, with_courtesy

SINGLES, DOUBLES = 32, 16
_CHUNK = 20


@dataclass(frozen=True)
class Subject:
    """What families are of.

    size: width and height in pixels. kinds: of edits; with BORROW among them every family has a second picture.
    plain: no courtesies in the sentences. placing: most lessons are of the kinds that put things into place.
    """

    size: tuple[int, int]
    kinds: frozenset[EditKind]
    plain: bool = False
    placing: bool = False

    @property
    def borrows(self) -> bool:
        """Whether there is a second picture."""
        return EditKind.BORROW in self.kinds

    @property
    def code(self) -> int:
        """A number for all but the size."""
        bits = [kind in self.kinds for kind in EditKind] + [self.plain, self.placing]
        return sum(1 << place for place, bit in enumerate(bits) if bit)

    @property
    def pictures(self) -> int:
        """Pictures of a family."""
        return (1 << AXES) + int(self.borrows)


@dataclass(frozen=True, eq=False)
class Sheet:
    """Some families, drawn: pictures [N, P, H, W, 3] of bytes, and of every family SINGLES lessons and then DOUBLES.

    source and target: numbers of pictures, [N, SINGLES + DOUBLES] of bytes. words: [N, SINGLES + DOUBLES, PLACES].
    """

    pictures: npt.NDArray[np.uint8]
    source: npt.NDArray[np.uint8]
    target: npt.NDArray[np.uint8]
    words: npt.NDArray[np.int16]


def sheets(subject: Subject, count: int, seed: int, workers: Executor | None = None) -> Iterator[Sheet]:
    """Families number 0 to count - 1 of a subject, some at a time and in order; the same from the same seed."""
    spans = [(subject, seed, start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    return workers.map(sheet, spans) if workers else map(sheet, spans)


def sheet(span: tuple[Subject, int, int, int]) -> Sheet:
    """Families of a subject, from a number up to another."""
    subject, seed, start, stop = span
    pictures, said = [], []
    for number in range(start, stop):
        rng = np.random.default_rng([seed, *subject.size, subject.code, number])
        cube = family(rng, subject.size, subject.kinds, subject.placing)
        scenes = [*cube.corners, *([cube.second] if cube.second is not None else [])]
        pictures.append(np.stack([drawn(scene) for scene in scenes]))
        said.append([_lesson(rng, cube, subject, place >= SINGLES) for place in range(SINGLES + DOUBLES)])
    source, target, words = (np.array([[lesson[part] for lesson in one] for one in said]) for part in range(3))
    assert words.shape[2] == PLACES
    return Sheet(np.stack(pictures), source.astype(np.uint8), target.astype(np.uint8), words.astype(np.int16))


def lantern_sheet(size: tuple[int, int], start: int, stop: int, seed: int) -> Sheet:
    """Scenes, each as it is (picture 0) and at night with lanterns (1); every lesson leads there."""
    pictures, words = [], []
    for number in range(start, stop):
        rng = np.random.default_rng([seed, *size, 77, number])
        scene = random_scene(rng, size)
        pictures.append(np.stack([drawn(scene), drawn(with_lanterns(scene))]))
        chosen = rng.integers(len(WITH_LIGHTS), size=SINGLES + DOUBLES)
        words.append([numbers(WITH_LIGHTS[one]) for one in chosen])
    lessons_each = (stop - start, SINGLES + DOUBLES)
    return Sheet(
        np.stack(pictures), np.zeros(lessons_each, np.uint8), np.ones(lessons_each, np.uint8), np.array(words, np.int16)
    )


def with_lanterns(scene: Scene) -> Scene:
    """The scene at night, with lanterns."""
    return replace(scene, time=Time.NIGHT, lanterns=True)


def _lesson(rng: np.random.Generator, cube: Family, subject: Subject, double: bool) -> tuple[int, int, list[int]]:
    """A random lesson of one edit or of two; of one where no two can be said together."""
    for _ in range(40):
        order = [int(axis) for axis in rng.permutation(AXES)]
        if subject.borrows and rng.random() < 0.5:
            order = [0, *(axis for axis in order if axis)]
        found = lessons(cube, tuple(order[: 2 if double else 1]))
        if found:
            break
    else:
        return _lesson(rng, cube, subject, False)
    lesson = found[int(rng.integers(len(found)))]
    scene = cube.corners[lesson.source]
    if len(lesson.edits) == 2:
        said = double_sentence((lesson.edits[0], lesson.edits[1]), scene, rng)
    else:
        said = sentence(lesson.edits[0], scene, rng)
    if not subject.plain:
        said = with_courtesy(said, lesson.edits, scene, rng)
    return lesson.source, lesson.target, numbers(said)
