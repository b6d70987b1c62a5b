"""What can be asked of a scene: edits as data, and what each makes of a scene.

Some pairs of a part and a colour are never taught, so that they can be judged. How edits are said is in wording.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from .scenes import COLOURED, COLOURS, IN_THE_SKY, THINGS, WOOD, Scene, Season, Thing, Time, Weather, painted, usual


class EditKind(Enum):
    """The kinds of instruction, as the figures are told apart."""

    RECOLOUR = "recolour"
    REMOVE = "remove"
    ADD = "add"
    TIME = "time of day"
    SEASON = "season"
    WEATHER = "weather"
    RESIZE = "larger or smaller"
    MOVE = "move"
    SWAP = "swap colours"
    BORROW = "from a second picture"


@dataclass(frozen=True)
class SceneEdit:
    """One change.

    what: a part, for RECOLOUR; two parts with a space between, for SWAP; else a thing. value: a colour (may be empty
    for ADD), a time, season or weather, "larger" or "smaller", "left" or "right" (as seen); for BORROW the colours of
    the thing in the second picture, its own and its accent's.
    """

    kind: EditKind
    what: str = ""
    value: str = ""


# A part that can be painted: the thing it belongs to, and whether it is the thing's accent.
PARTS: dict[str, tuple[str, bool]] = {
    "house": ("house", False),
    "boat": ("boat", False),
    "balloon": ("balloon", False),
    "roof": ("house", True),
    "sails": ("boat", True),
}
_RESIZED = ("house", "trees", "sheep", "boat", "balloon", "sun")
_MOVED = ("boat", "balloon", "sheep", "sun", "cloud", "birds")
BORROWED = ("house", "boat", "balloon")
_SWAPPED = (("boat", "sails"), ("house", "roof"), ("boat", "house"), ("boat", "balloon"), ("house", "balloon"))
_MOST = 1
# What an added thing looks like where the sentence says no more.
_LOOKS: dict[str, tuple[str, str]] = {
    "house": (WOOD, "red"),
    "boat": ("blue", "white"),
    "balloon": ("red", ""),
    "second": ("red", "white"),
}
_NEVER_TAUGHT = {
    ("boat", "purple"),
    ("sails", "orange"),
    ("roof", "green"),
    ("house", "white"),
    ("balloon", "blue"),
}


def edited(scene: Scene, edit: SceneEdit) -> Scene:
    """The scene after the edit. A thing that is added comes to its usual place."""
    if edit.kind is EditKind.TIME:
        return replace(scene, time=Time(edit.value))
    if edit.kind is EditKind.SEASON:
        return replace(scene, season=Season(edit.value))
    if edit.kind is EditKind.WEATHER:
        return replace(scene, weather=Weather(edit.value))
    if edit.kind is EditKind.REMOVE:
        return scene.having(edit.what, None)
    if edit.kind is EditKind.ADD:
        return scene.having(edit.what, as_added(scene, edit.what, edit.value))
    if edit.kind is EditKind.BORROW:
        colour, _, accent = edit.value.partition(" ")
        return scene.having(edit.what, painted(edit.what, usual(scene, edit.what), colour, accent))
    if edit.kind is EditKind.RECOLOUR:
        return _painted(scene, edit.what, edit.value)
    if edit.kind is EditKind.SWAP:
        first, second = edit.what.split()
        one, other = colour_of(scene, first), colour_of(scene, second)
        return _painted(_painted(scene, first, other), second, one)
    thing = _there(scene, edit.what)
    if edit.kind is EditKind.RESIZE:
        return scene.having(edit.what, replace(thing, grown=thing.grown + (1 if edit.value == "larger" else -1)))
    return scene.having(edit.what, replace(thing, moved=thing.moved + _direction(scene, edit.value)))


def colour_of(scene: Scene, part: str) -> str:
    """What a part is painted with. Raises ValueError if it is not there."""
    name, accent = PARTS[part]
    thing = _there(scene, name)
    return thing.accent if accent else thing.colour


def _painted(scene: Scene, part: str, colour: str) -> Scene:
    name, accent = PARTS[part]
    thing = _there(scene, name)
    return scene.having(name, replace(thing, accent=colour) if accent else replace(thing, colour=colour))


def _there(scene: Scene, name: str) -> Thing:
    thing = scene.thing(name)
    if thing is None:
        raise ValueError(f"There is no {name} in the scene.")
    return thing


def _direction(scene: Scene, seen: str) -> int:
    return (1 if seen == "right" else -1) * (-1 if scene.mirrored else 1)


def as_added(scene: Scene, name: str, colour: str = "") -> Thing:
    """The thing as adding it gives it: at its usual place, of the colour that was asked for."""
    usual_colour, accent = _LOOKS.get(name, ("", ""))
    return painted(name, usual(scene, name), colour or usual_colour, accent)


def possible(scene: Scene) -> list[SceneEdit]:
    """Every edit that changes this scene and needs no second picture, taught or held out."""
    edits = [SceneEdit(EditKind.TIME, value=time.value) for time in Time if time is not scene.time]
    edits += [SceneEdit(EditKind.SEASON, value=season.value) for season in Season if season is not scene.season]
    edits += [SceneEdit(EditKind.WEATHER, value=weather.value) for weather in Weather if weather is not scene.weather]
    for name in THINGS:
        thing = scene.thing(name)
        if thing is not None:
            edits.append(SceneEdit(EditKind.REMOVE, name))
            edits += _placing(scene, name, thing)
        else:
            edits += [SceneEdit(EditKind.ADD, name, colour) for colour in ("", *(COLOURS if name in COLOURED else ()))]
    parts = [part for part, (name, _) in PARTS.items() if scene.thing(name) is not None]
    edits += [SceneEdit(EditKind.RECOLOUR, part, c) for part in parts for c in COLOURS if c != colour_of(scene, part)]
    for pair in _SWAPPED:
        if set(pair) <= set(parts) and colour_of(scene, pair[0]) != colour_of(scene, pair[1]):
            edits.append(SceneEdit(EditKind.SWAP, " ".join(pair)))
    return edits


def _placing(scene: Scene, name: str, thing: Thing) -> list[SceneEdit]:
    """Larger or smaller and to either side, by one step from how it came at the most, and not out of the picture."""
    edits = []
    if name in _RESIZED:
        sizes = (("larger", thing.grown + 1), ("smaller", thing.grown - 1))
        edits += [SceneEdit(EditKind.RESIZE, name, word) for word, then in sizes if abs(then) <= _MOST]
    if name in _MOVED:
        for seen in ("left", "right"):
            then = replace(thing, moved=thing.moved + _direction(scene, seen))
            if abs(then.moved) <= _MOST and 0.08 < then.across < 0.92 and _has_room(scene, name, then):
                edits.append(SceneEdit(EditKind.MOVE, name, seen))
    return edits


def _has_room(scene: Scene, name: str, thing: Thing) -> bool:
    """In the sky no two things overlap; the boat stays on the water, the sheep on the land."""
    if name in IN_THE_SKY:
        others = [other for one in IN_THE_SKY if one != name and (other := scene.thing(one)) is not None]
        return all(abs(other.across - thing.across) > 0.14 for other in others)
    return thing.across > scene.shore + 0.1 if name == "boat" else 0.06 < thing.across < scene.shore - 0.06


def lent(scene: Scene, name: str) -> SceneEdit:
    """The edit that brings a thing over from `scene`, which has it."""
    thing = _there(scene, name)
    return SceneEdit(EditKind.BORROW, name, f"{thing.colour} {thing.accent}".strip())


def never_taught(edit: SceneEdit) -> bool:
    """Whether the edit is one of the pairs of a thing and a colour that training leaves out."""
    return (edit.what, edit.value.partition(" ")[0]) in _NEVER_TAUGHT
