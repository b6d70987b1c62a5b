"""Eight pictures that are worth 48 lessons: a scene and three edits that do not touch each other.

Applying any of the three or none gives the corners of a cube. Every edge is one edit, in one direction or both;
every diagonal of a side is two edits in one sentence. So few pictures have to be drawn and encoded. Where things are
borrowed there is a ninth picture, from which the first edit takes one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .instructions import (
    BORROWED,
    PARTS,
    EditKind,
    SceneEdit,
    as_added,
    colour_of,
    edited,
    lent,
    never_taught,
    possible,
)
from .scenes import COLOURED, COLOURS, IN_THE_SKY, THINGS, Scene, Season, Time, Weather, random_scene

AXES = 3
_TRIES = 60
CORNERS = 1 << AXES


@dataclass(frozen=True)
class Axis:
    """An edit and what undoes it; None where that cannot be said in words, or is held out."""

    there: SceneEdit | None
    back: SceneEdit | None


@dataclass(frozen=True)
class Family:
    """The scene of every corner, bit k of whose number tells whether the edit of axis k was made.

    second: where the thing of axis 0 is taken from, if that is borrowed.
    """

    corners: tuple[Scene, ...]
    axes: tuple[Axis, ...]
    second: Scene | None = None


@dataclass(frozen=True)
class Lesson:
    """From which corner to which, by which edits (one or two)."""

    source: int
    target: int
    edits: tuple[SceneEdit, ...]


def family(
    rng: np.random.Generator, size: tuple[int, int], kinds: frozenset[EditKind], placing: bool = False
) -> Family:
    """A family whose lessons may all be taught, of these kinds only; with BORROW among them, one that borrows.

    placing: most are of the kinds that have to put a thing into its place, which are learned last.
    """
    while True:
        scene, axes = random_scene(rng, size), []
        busy: set[str] = set()
        second = None
        if EditKind.BORROW in kinds:
            second, borrowed = _borrowing(rng, scene)
            scene, axis, busy = borrowed
            axes.append(axis)
        while len(axes) < AXES:
            found = _axis(rng, scene, busy, kinds, placing)
            if found is None:
                break
            scene, axis, touched = found
            busy |= touched
            axes.append(axis)
        if len(axes) == AXES:
            break
    corners = []
    for corner in range(CORNERS):
        changed = scene
        for bit, (_, change) in enumerate(axes):
            changed = edited(changed, change) if corner >> bit & 1 else changed
        corners.append(changed)
    return Family(tuple(corners), tuple(axis for axis, _ in axes), second)


def lessons(cube: Family, axes: tuple[int, ...]) -> list[Lesson]:
    """All lessons of a family along one axis, or along two at once."""
    found = []
    for source in range(CORNERS):
        edits = [cube.axes[axis].back if source >> axis & 1 else cube.axes[axis].there for axis in axes]
        said = tuple(edit for edit in edits if edit is not None)
        if len(said) == len(axes):
            found.append(Lesson(source, source ^ sum(1 << axis for axis in axes), said))
    return found


# How often a kind is taught, if not once; adding comes with removing.
_OFTEN = {EditKind.RECOLOUR: 2.0, EditKind.REMOVE: 2.0}
_PLACING = {EditKind.RECOLOUR: 2.0, EditKind.REMOVE: 6.0, EditKind.RESIZE: 4.0, EditKind.MOVE: 3.0}


def _axis(rng: np.random.Generator, scene: Scene, busy: set[str], kinds: frozenset[EditKind], placing: bool) -> _Found:
    """An axis that touches nothing busy, the scene made ready for it, and what it touches.

    None if there seems to be none: a scene with few things has not three edits of some kinds.
    """
    wanted = sorted(kinds - {EditKind.ADD, EditKind.BORROW}, key=lambda kind: kind.value)
    share = np.array([(_PLACING if placing else _OFTEN).get(kind, 1.0) for kind in wanted])
    for _ in range(_TRIES):
        kind = wanted[int(rng.choice(len(wanted), p=share / share.sum()))]
        if kind in _WHOLE:
            found = _whole(rng, scene, kind, busy)
        elif kind is EditKind.REMOVE:
            found = _toggling(rng, scene, busy, EditKind.ADD in kinds, placing)
        elif kind is EditKind.RECOLOUR:
            found = _painting(rng, scene, busy)
        elif kind is EditKind.SWAP:
            found = _swapping(rng, scene, busy)
        else:
            found = _changing(rng, scene, kind, busy)
        if found is not None:
            return found
    return None


def _borrowing(rng: np.random.Generator, scene: Scene) -> tuple[Scene, tuple[Scene, tuple[Axis, SceneEdit], set[str]]]:
    """A second scene with a thing in it, and the axis that takes that over into the first."""
    while True:
        name = str(rng.choice(BORROWED))
        second = random_scene(rng, (scene.width, scene.height))
        if second.thing(name) is None or never_taught(lent(second, name)):
            continue
        edit, empty = lent(second, name), scene.having(name, None)
        touched = {name, "sky"} if name in IN_THE_SKY else {name}
        # Removing it undoes the edit.
        return second, (empty, _both_ways(edit, SceneEdit(EditKind.REMOVE, name)), touched)


_Found = tuple[Scene, tuple[Axis, SceneEdit], set[str]] | None
_WHOLE: dict[EditKind, tuple[str, type[Time] | type[Season] | type[Weather]]] = {
    EditKind.TIME: ("time", Time),
    EditKind.SEASON: ("season", Season),
    EditKind.WEATHER: ("weather", Weather),
}
_INVERSE = {"larger": "smaller", "smaller": "larger", "left": "right", "right": "left"}


def _whole(rng: np.random.Generator, scene: Scene, kind: EditKind, busy: set[str]) -> _Found:
    name, options = _WHOLE[kind]
    if name in busy:
        return None
    now = str(getattr(scene, name).value)
    then = _other(rng, [option.value for option in options], now)
    return scene, _both_ways(SceneEdit(kind, value=then), SceneEdit(kind, value=now)), {name}


def _painting(rng: np.random.Generator, scene: Scene, busy: set[str]) -> _Found:
    parts = [part for part, (name, _) in PARTS.items() if scene.thing(name) is not None and _free(part, busy)]
    if not parts:
        return None
    part = str(rng.choice(parts))
    now = colour_of(scene, part)
    allowed = [colour for colour in COLOURS if not never_taught(SceneEdit(EditKind.RECOLOUR, part, colour))]
    then = _other(rng, allowed, now)
    back = SceneEdit(EditKind.RECOLOUR, part, now) if now in COLOURS else None
    return scene, _both_ways(SceneEdit(EditKind.RECOLOUR, part, then), back), {part, f"any {PARTS[part][0]}"}


def _toggling(rng: np.random.Generator, scene: Scene, busy: set[str], adding: bool, placing: bool) -> _Found:
    """Removing a thing; and adding it, where it is as adding makes it.

    placing: mostly that, and what has colours; most of all the second boat, the smallest that has, and learned last.
    """
    names = [name for name in THINGS if name not in busy and f"any {name}" not in busy]
    if placing:
        share = np.array([5.0 if name == "second" else 2.0 if name in COLOURED else 1.0 for name in names])
        name = str(rng.choice(names, p=share / share.sum()))
    else:
        name = str(rng.choice(names))
    touched = {name, "sky"} if name in IN_THE_SKY else {name}
    if "sky" in touched & busy:
        return None
    removal = SceneEdit(EditKind.REMOVE, name)
    if scene.thing(name) is not None and (not adding or rng.random() < (0.15 if placing else 0.35)):
        return scene, _both_ways(removal, None), touched
    if not adding:
        return None
    colour = str(rng.choice(["", *COLOURS])) if name in COLOURED else ""
    empty = scene.having(name, None)
    ready = scene.having(name, as_added(empty, name, colour))
    return ready, _both_ways(removal, SceneEdit(EditKind.ADD, name, colour)), touched


def _swapping(rng: np.random.Generator, scene: Scene, busy: set[str]) -> _Found:
    pairs = [edit for edit in possible(scene) if edit.kind is EditKind.SWAP]
    pairs = [edit for edit in pairs if all(_free(part, busy) for part in edit.what.split())]
    if not pairs:
        return None
    edit = pairs[int(rng.integers(len(pairs)))]
    parts = edit.what.split()
    return scene, _both_ways(edit, edit), {*parts, *(f"any {PARTS[part][0]}" for part in parts)}


def _changing(rng: np.random.Generator, scene: Scene, kind: EditKind, busy: set[str]) -> _Found:
    """Larger, smaller, or moved: the whole thing is busy then, and so is its place in the sky."""
    edits = [edit for edit in possible(scene) if edit.kind is kind]
    edits = [edit for edit in edits if edit.what not in busy and f"any {edit.what}" not in busy]
    edits = [edit for edit in edits if not (edit.what in IN_THE_SKY and "sky" in busy)]
    if not edits:
        return None
    edit = edits[int(rng.integers(len(edits)))]
    touched = {edit.what, "sky"} if edit.what in IN_THE_SKY else {edit.what}
    return scene, _both_ways(edit, SceneEdit(kind, edit.what, _INVERSE[edit.value])), touched


def _free(part: str, busy: set[str]) -> bool:
    return part not in busy and PARTS[part][0] not in busy


def _both_ways(there: SceneEdit, back: SceneEdit | None) -> tuple[Axis, SceneEdit]:
    taught = [None if edit is None or never_taught(edit) else edit for edit in (there, back)]
    return Axis(taught[0], taught[1]), there


def _other(rng: np.random.Generator, options: list[str], now: str) -> str:
    return str(rng.choice([option for option in options if option != now]))
