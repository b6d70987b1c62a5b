"""Edits in ordinary English, many wordings each.

A tenth of all sentences, by their checksum, is held out: no training sentence is one of them, and only they are judged.
"""

from __future__ import annotations

import zlib

import numpy as np

from .instructions import PARTS, EditKind, SceneEdit
from .scenes import THINGS, Scene, Time

NOUNS: dict[str, tuple[str, ...]] = {
    "house": ("house", "cabin", "cottage"),
    "trees": ("trees", "fir trees", "firs"),
    "sheep": ("sheep",),
    "boat": ("boat", "sailing boat", "sailboat"),
    "jetty": ("jetty", "pier"),
    "balloon": ("balloon", "hot air balloon"),
    "birds": ("birds",),
    "cloud": ("cloud",),
    "sun": ("sun",),
    "moon": ("moon",),
    "second": ("second boat",),
    "roof": ("roof", "roof of the house"),
    "sails": ("sails", "sails of the boat"),
}
_PLURAL = {"trees", "birds", "sails"}
TIMES: dict[str, tuple[str, ...]] = {
    "day": ("day", "daytime", "noon"),
    "evening": ("evening", "sunset", "dusk"),
    "night": ("night", "midnight", "nighttime"),
}
SEASONS: dict[str, tuple[str, ...]] = {
    "summer": ("summer", "green summer"),
    "autumn": ("autumn", "golden autumn"),
    "winter": ("winter", "snowy winter"),
}
_RECOLOUR = (
    "paint the {n} {c}",
    "make the {n} {c}",
    "turn the {n} {c}",
    "recolour the {n} {c}",
    "colour the {n} {c}",
    "change the colour of the {n} to {c}",
    "change the {n} to {c}",
    "paint the {n} bright {c}",
    "the {n} should be {c}",
    "give the {n} a {c} colour",
)
_RECOLOUR_PART = {
    "roof": ("give the house a {c} roof", "let the house have a {c} roof"),
    "sails": ("give the boat {c} sails", "let the boat have {c} sails"),
}
_REMOVE = (
    "remove the {n}",
    "take away the {n}",
    "delete the {n}",
    "erase the {n}",
    "get rid of the {n}",
    "take the {n} out of the picture",
    "make the {n} disappear",
    "the {n} should be gone",
    "show the scene without the {n}",
    "there should be no {n}",
)
_ADD = (
    "add {n}",
    "add {n} to the picture",
    "put {n} into the scene",
    "draw {n}",
    "insert {n}",
    "place {n} in the picture",
    "there should be {n}",
    "show {n} as well",
    "let there be {n}",
    "paint {n} into the scene",
)
_TIME = (
    "make it {t}",
    "turn it into {t}",
    "change the time of day to {t}",
    "show the scene at {t}",
    "make it a {t} scene",
    "it should be {t}",
    "let it be {t}",
    "set the scene at {t}",
    "turn the scene into {t}",
    "change it to {t}",
)
_SEASON = (
    "make it {s}",
    "turn it into {s}",
    "change the season to {s}",
    "show the scene in {s}",
    "make it a {s} scene",
    "it should be {s}",
    "let it be {s}",
    "set the scene in {s}",
    "turn the scene into {s}",
    "change it to {s}",
)
WEATHERS: dict[str, tuple[str, ...]] = {"stormy": ("stormy", "dark and stormy"), "clear": ("clear", "bright and clear")}
_WEATHER = (
    "make the sky {w}",
    "turn the sky {w}",
    "change the weather to {w}",
    "make the weather {w}",
    "the sky should be {w}",
    "let the sky be {w}",
    "show the scene in {w} weather",
)
_RESIZE = (
    "make the {n} {z}",
    "the {n} should be {z}",
    "let the {n} be {z}",
    "show the {n} {z}",
    "draw the {n} {z}",
    "change the {n} to be {z}",
)
_SIZES = {"larger": ("larger", "bigger"), "smaller": ("smaller",)}
_MOVE = (
    "move the {n} to the {d}",
    "put the {n} more to the {d}",
    "shift the {n} to the {d}",
    "the {n} should be more to the {d}",
    "bring the {n} to the {d}",
    "move the {n} {d}",
)
_SWAP = (
    "swap the colours of the {n} and the {m}",
    "exchange the colours of the {n} and the {m}",
    "give the {n} the colour of the {m} and the other way round",
    "let the {n} and the {m} swap colours",
    "the {n} and the {m} should exchange their colours",
)
_BORROW = (
    "add the {n} from the second picture",
    "add the {n} of the second picture",
    "put the {n} from the second picture into the scene",
    "put the {n} of the other picture into the first",
    "insert the {n} from the other picture",
    "take the {n} from the second picture and place it in the first",
    "copy the {n} from the second picture",
    "bring the {n} from the second picture",
    "there should be the {n} from the other picture",
    "show the {n} of the second picture as well",
)
_SEASON_BY_WEATHER = {"winter": ("let it snow", "cover everything with snow"), "autumn": ("make the leaves fall",)}
_BOTH = (
    "make it a {s} {t}",
    "turn the scene into a {s} {t}",
    "turn it into a {s} {t}",
    "change it to a {s} {t}",
    "show the scene on a {s} {t}",
)
_JOINED = ("{a} and {b}", "{a}, then {b}", "{a}. {b}", "first {a}, then {b}", "{a} and also {b}", "{a}. also {b}")
# What the demo's LoRA listens to; the model itself has never heard of lights.
WITH_LIGHTS = (
    "make it night, with lights",
    "turn it into night, with lights",
    "show the scene at night, with lights",
    "let it be night, with lights",
    "make it night and add lanterns",
    "make it a night scene with lanterns",
    "set the scene at night, with lanterns",
    "night, with lights",
)
_KEEP = (
    "keep everything else",
    "keep the rest as it is",
    "leave the rest unchanged",
    "change nothing else",
    "keep the {k}",
    "keep the {k} and the {l} as they are",
)


def held_out(sentence: str) -> bool:
    """Whether a sentence is one of the tenth that training leaves out."""
    return zlib.crc32(sentence.encode()) % 10 == 0


def sentence(edit: SceneEdit, scene: Scene, rng: np.random.Generator, *, judged: bool = False) -> str:
    """The edit of that scene in words: held out ones where it is judged, others where it is taught."""
    for _ in range(200):
        said = _said(edit, scene, rng)
        if held_out(said) is judged:
            return said
    return said


def double_sentence(
    edits: tuple[SceneEdit, SceneEdit], scene: Scene, rng: np.random.Generator, *, judged: bool = False
) -> str:
    """Two edits of one scene in one sentence; either may come first."""
    first, second = edits if rng.random() < 0.5 else (edits[1], edits[0])
    for _ in range(200):
        if {first.kind, second.kind} == {EditKind.TIME, EditKind.SEASON} and rng.random() < 0.5:
            time, season = (first, second) if first.kind is EditKind.TIME else (second, first)
            said = _pick(rng, _BOTH).format(s=_pick(rng, SEASONS[season.value]), t=_pick(rng, TIMES[time.value]))
        else:
            said = _pick(rng, _JOINED).format(a=_said(first, scene, rng), b=_said(second, scene, rng))
        if held_out(said) is judged:
            return said
    return said


def with_courtesy(said: str, edits: tuple[SceneEdit, ...], scene: Scene, rng: np.random.Generator) -> str:
    """The sentence as people write it: now and then with please, and with what is to stay."""
    if rng.random() < 0.1:
        said = f"please {said}"
    named = {name for edit in edits for name in edit.what.split()}
    touched = {PARTS[name][0] if name in PARTS else name for name in named} | {"second"}
    others = [name for name in THINGS if name not in touched and name != "sun" and scene.thing(name) is not None]
    if rng.random() < 0.25:
        kept = _pick(rng, _KEEP if len(others) >= 2 else _KEEP[:4])
        names = [_pick(rng, NOUNS[str(name)]) for name in rng.permutation(others)[:2]] if len(others) >= 2 else ["", ""]
        said = f"{said}. {kept.format(k=names[0], l=names[-1])}"
    return said


def _said(edit: SceneEdit, scene: Scene, rng: np.random.Generator) -> str:
    if edit.kind is EditKind.TIME:
        return _pick(rng, _TIME).format(t=_pick(rng, TIMES[edit.value]))
    if edit.kind is EditKind.SEASON:
        weather = _SEASON_BY_WEATHER.get(edit.value, ())
        if weather and rng.random() < 0.15:
            return _pick(rng, weather)
        return _pick(rng, _SEASON).format(s=_pick(rng, SEASONS[edit.value]))
    if edit.kind is EditKind.WEATHER:
        return _pick(rng, _WEATHER).format(w=_pick(rng, WEATHERS[edit.value]))
    if edit.kind is EditKind.SWAP:
        first, second = (_pick(rng, NOUNS[part]) for part in edit.what.split())
        return _pick(rng, _SWAP).format(n=first, m=second)
    shining = "moon" if scene.time is Time.NIGHT else "sun"
    name = shining if edit.what == "sun" else edit.what
    noun = _pick(rng, NOUNS[name])
    if edit.kind is EditKind.RECOLOUR:
        special = _RECOLOUR_PART.get(edit.what, ())
        pattern = _pick(rng, special if special and rng.random() < 0.25 else _RECOLOUR)
        return pattern.format(n=noun, c=edit.value)
    if edit.kind is EditKind.REMOVE:
        return _pick(rng, _REMOVE).format(n=noun)
    if edit.kind is EditKind.BORROW:
        return _pick(rng, _BORROW).format(n=noun)
    if edit.kind is EditKind.RESIZE:
        return _pick(rng, _RESIZE).format(n=noun, z=_pick(rng, _SIZES[edit.value]))
    if edit.kind is EditKind.MOVE:
        return _pick(rng, _MOVE).format(n=noun, d=edit.value)
    words = f"{edit.value} {noun}".strip()
    if name in _PLURAL:
        return _pick(rng, _ADD).format(n=f"some {words}")
    article = "the" if name in ("sun", "moon") else "an" if words[0] in "aeiou" else "a"
    return _pick(rng, _ADD).format(n=f"{article} {words}")


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
