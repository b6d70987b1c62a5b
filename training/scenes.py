"""A drawn scene as a description: what there is, where, in which colours, at which time of day and year.

Descriptions are what makes before and after exact: an edit changes a field, and everything else is drawn as before.
Places are shares of the picture, x of its width and y of its height; sizes are shares of its shorter side. Land lies
on the left and the lake on the right, unless the scene is mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

import numpy as np

# Sides are multiples of 16, as the model's grid asks. Reading is learned at the small ones, at a third of the cost.
SMALL = ((80, 64), (64, 80))
FULL = ((128, 128), (144, 112), (112, 144), (160, 96))
LARGE = ((256, 256), (320, 208))

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (200, 48, 42),
    "orange": (236, 134, 40),
    "yellow": (240, 206, 70),
    "green": (70, 170, 80),
    "blue": (46, 104, 190),
    "purple": (138, 74, 172),
    "white": (244, 240, 230),
    "black": (46, 44, 52),
}
WOOD = "brown"
T = TypeVar("T")
_GROWTH, _STEP = 1.4, 0.16


class Time(Enum):
    """The light."""

    DAY = "day"
    EVENING = "evening"
    NIGHT = "night"


class Weather(Enum):
    """The sky."""

    CLEAR = "clear"
    STORM = "stormy"


class Season(Enum):
    """What grows, and whether snow lies on it."""

    SUMMER = "summer"
    AUTUMN = "autumn"
    WINTER = "winter"


@dataclass(frozen=True)
class Thing:
    """Something in a scene: its middle in x, its foot (things on the ground) or middle (in the sky) in y, its size.

    colour and accent: keys of COLOURS where it can be painted; a boat's sails, a house's roof are the accents.
    grown and moved: how often it was made larger (or smaller, below 0), and moved towards the lake's side. Whole
    numbers, so that an edit and its undoing give back exactly what there was.
    """

    x: float
    y: float
    size: float
    colour: str = ""
    accent: str = ""
    grown: int = 0
    moved: int = 0

    @property
    def across(self) -> float:
        """Where its middle is drawn, a share of the width."""
        return self.x + _STEP * self.moved

    @property
    def extent(self) -> float:
        """How large it is drawn, a share of the shorter side."""
        return self.size * _GROWTH**self.grown


@dataclass(frozen=True)
class Scene:
    """All that is drawn. A thing that is None is not there. ridges: heights of two rows of hills, shares of the sky.

    lanterns: a string of them over the water, which no instruction brings: only a LoRA does.
    """

    width: int
    height: int
    mirrored: bool
    time: Time
    season: Season
    horizon: float
    shore: float
    ridges: tuple[tuple[float, ...], tuple[float, ...]]
    house: Thing | None = None
    trees: Thing | None = None
    sheep: Thing | None = None
    boat: Thing | None = None
    jetty: Thing | None = None
    balloon: Thing | None = None
    birds: Thing | None = None
    cloud: Thing | None = None
    sun: Thing | None = None
    second: Thing | None = None
    weather: Weather = Weather.CLEAR
    lanterns: bool = False

    def thing(self, name: str) -> Thing | None:
        """The thing of that name, if it is there."""
        found: Thing | None = getattr(self, name)
        return found

    def having(self, name: str, thing: Thing | None) -> Scene:
        """The scene with that thing in the place of the one it had."""
        changes: dict[str, Thing | None] = {name: thing}
        return replace(self, **changes)  # type: ignore[arg-type]


# `second` is a second boat, smaller and farther away.
THINGS = ("house", "trees", "sheep", "boat", "jetty", "balloon", "birds", "cloud", "sun", "second")
IN_THE_SKY = ("balloon", "birds", "cloud", "sun")
COLOURED = ("house", "boat", "balloon", "second")
ACCENTED = ("house", "boat", "second")
_COLUMNS = (0.14, 0.38, 0.62, 0.86)
_SIZES = {
    "house": 0.30,
    "trees": 0.26,
    "sheep": 0.15,
    "boat": 0.34,
    "jetty": 0.24,
    "balloon": 0.22,
    "birds": 0.16,
    "cloud": 0.24,
    "sun": 0.13,
    "second": 0.18,
}


def usual(scene: Scene, name: str) -> Thing:
    """Where that thing belongs in a scene, uncoloured: an added one can be foreseen from the picture.

    In the sky that is the first of four columns, counted from the land's side, that is free.
    """
    size = _SIZES[name]
    if name in IN_THE_SKY:
        others = [thing.across for other in IN_THE_SKY if other != name and (thing := scene.thing(other)) is not None]
        free = [x for x in _COLUMNS if all(abs(x - other) > 0.12 for other in others)]
        low = {"sun": 0.44, "cloud": 0.3, "birds": 0.4, "balloon": 0.42}[name]
        return Thing(free[0], scene.horizon * low, size)
    land, depth = scene.shore, 1 - scene.horizon
    x, y = {
        "house": (0.50 * land, 0.42),
        "trees": (0.12 * land, 0.50),
        "sheep": (0.40 * land, 0.80),
        "boat": ((land + 1) / 2 + 0.03, 0.48),
        "jetty": (land - 0.02, 0.80),
        "second": (land + 0.04, 0.13),
    }[name]
    return Thing(x, scene.horizon + y * depth, size)


def random_scene(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """A scene with some of the things, each near its usual place, in random light and colours."""
    horizon, shore = rng.uniform(0.44, 0.56), rng.uniform(0.46, 0.58)
    far = tuple(float(h) for h in rng.uniform(0.12, 0.5, 7))
    near = tuple(float(h) for h in rng.uniform(0.04, 0.24, 7))
    scene = Scene(
        *size,
        mirrored=bool(rng.random() < 0.5),
        time=_any(rng, list(Time)),
        season=_any(rng, list(Season)),
        horizon=float(horizon),
        shore=float(shore),
        ridges=(far, near),
        weather=Weather.STORM if rng.random() < 0.15 else Weather.CLEAR,
    )
    chances = {name: 0.7 if name in ("house", "boat") else 0.5 for name in THINGS} | {"second": 0.12}
    for name in rng.permutation(list(THINGS)):
        if rng.random() < chances[name]:
            scene = scene.having(name, _placed(rng, scene, str(name)))
    return scene


# Neither cut by the picture's edge nor one behind the other.
_EXAMPLE = {"trees": (0.095, 0.22), "house": (0.3, _SIZES["house"])}


def example(size: tuple[int, int]) -> Scene:
    """The pack's example picture: cabin, firs, jetty, sailing boat, birds, sun and cloud, on a summer's day."""
    ridges = ((0.24, 0.46, 0.22, 0.36, 0.18, 0.34, 0.46), (0.10, 0.04, 0.16, 0.08, 0.18, 0.06, 0.14))
    scene = Scene(*size, mirrored=False, time=Time.DAY, season=Season.SUMMER, horizon=0.5, shore=0.54, ridges=ridges)
    looks = {"house": (WOOD, "red"), "boat": ("blue", "white")}
    for name in ("cloud", "birds", "sun", "trees", "house", "jetty", "boat"):
        thing = usual(scene, name)
        x, size_of = _EXAMPLE.get(name, (thing.x, thing.size))
        thing = replace(thing, x=x, size=size_of)
        scene = scene.having(name, painted(name, thing, *looks.get(name, ("", ""))))
    return scene


def painted(name: str, thing: Thing, colour: str, accent: str) -> Thing:
    """The thing in these colours, so far as it has any."""
    return replace(thing, colour=colour if name in COLOURED else "", accent=accent if name in ACCENTED else "")


def _placed(rng: np.random.Generator, scene: Scene, name: str) -> Thing:
    thing = usual(scene, name)
    if name in IN_THE_SKY:
        others = [other.across for one in IN_THE_SKY if one != name and (other := scene.thing(one)) is not None]
        free = [x for x in _COLUMNS if all(abs(x - other) > 0.12 for other in others)]
        thing = replace(thing, x=_any(rng, free))
    across, down, grown = rng.uniform(-0.035, 0.035), rng.uniform(-0.03, 0.03), rng.uniform(0.85, 1.15)
    thing = replace(thing, x=thing.x + across, y=thing.y + down, size=thing.size * grown)
    colour, accent = random_colours(rng, name)
    return painted(name, thing, colour, accent)


def random_colours(rng: np.random.Generator, name: str) -> tuple[str, str]:
    """Two different colours; houses are often of wood and sails often white, as in the example picture."""
    colour, accent = (str(one) for one in rng.choice(list(COLOURS), 2, replace=False))
    if name == "house" and rng.random() < 0.4:
        colour = WOOD
    if name in ("boat", "second") and rng.random() < 0.5 and colour != "white":
        accent = "white"
    return colour, accent


def _any(rng: np.random.Generator, options: list[T]) -> T:
    return options[int(rng.integers(len(options)))]
