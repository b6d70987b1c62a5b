"""A scene's description as pixels, in the manner of the pack's example picture: flat colours, two tones, some shading.

Drawn by Pillow at three times the size and averaged, which is quick: some milliseconds a picture. The light is a
tint on every colour; what shines by itself (windows, the moon) is left out of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .scenes import COLOURS, WOOD, Scene, Season, Thing, Time, Weather

Pixels = npt.NDArray[np.uint8]
Rgb = tuple[int, int, int]
Point = tuple[float, float]

_FINER = 3
_TINT: dict[Time, tuple[float, float, float]] = {
    Time.DAY: (1.0, 1.0, 1.0),
    Time.EVENING: (0.94, 0.72, 0.60),
    Time.NIGHT: (0.48, 0.52, 0.72),
}
_SKY: dict[Time, tuple[Rgb, Rgb]] = {
    Time.DAY: ((98, 150, 210), (196, 220, 226)),
    Time.EVENING: ((98, 84, 150), (248, 170, 110)),
    Time.NIGHT: ((18, 24, 56), (52, 66, 112)),
}
# A dark night's sky would hardly change, so that there is grey and no blue.
_STORM: dict[Time, tuple[Rgb, Rgb]] = {
    Time.DAY: ((58, 62, 74), (128, 132, 140)),
    Time.EVENING: ((54, 45, 44), (120, 95, 84)),
    Time.NIGHT: ((28, 29, 32), (92, 92, 94)),
}
_FAR: dict[Season, Rgb] = {
    Season.SUMMER: (136, 156, 184),
    Season.AUTUMN: (158, 148, 160),
    Season.WINTER: (204, 214, 230),
}
_NEAR: dict[Season, Rgb] = {
    Season.SUMMER: (76, 130, 96),
    Season.AUTUMN: (168, 126, 70),
    Season.WINTER: (228, 232, 240),
}
_LAND: dict[Season, Rgb] = {
    Season.SUMMER: (106, 148, 78),
    Season.AUTUMN: (188, 156, 84),
    Season.WINTER: (242, 244, 248),
}
_FIR: dict[Season, Rgb] = {Season.SUMMER: (54, 112, 72), Season.AUTUMN: (76, 104, 62), Season.WINTER: (120, 152, 148)}
_WATER: Rgb = (92, 140, 178)
_WOOD_RGB: Rgb = (164, 108, 70)


def drawn(scene: Scene) -> Pixels:
    """The picture [height, width, 3]."""
    return _Drawing(scene).finished()


def tensor_ready(pictures: Sequence[Pixels]) -> npt.NDArray[np.float32]:
    """Pictures [B, 3, H, W] of -1..1."""
    ready: npt.NDArray[np.float32] = (np.stack(pictures).astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
    return ready


class _Drawing:
    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._width, self._height = scene.width * _FINER, scene.height * _FINER
        self._unit = min(self._width, self._height)
        self._image = Image.new("RGB", (self._width, self._height))
        self._pen = ImageDraw.Draw(self._image)

    def finished(self) -> Pixels:
        scene = self._scene
        self._sky()
        if scene.sun is not None:
            self._sun(scene.sun)
        if scene.cloud is not None:
            self._cloud(scene.cloud)
        self._hills()
        self._lake()
        self._land()
        for thing, draw in (
            (scene.trees, self._trees),
            (scene.house, self._house),
            (scene.jetty, self._jetty),
            (scene.second, self._boat),
            (scene.boat, self._boat),
            (scene.sheep, self._sheep),
            (scene.birds, self._birds),
            (scene.balloon, self._balloon),
        ):
            if thing is not None:
                draw(thing)
        if scene.lanterns:
            self._lanterns()
        image = self._image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if scene.mirrored else self._image
        return np.asarray(image.reduce(_FINER))

    def _lit(self, colour: Rgb, shade: float = 1.0) -> Rgb:
        r, g, b = (min(255, round(value * tint * shade)) for value, tint in zip(colour, self._tint, strict=True))
        return r, g, b

    @property
    def _tint(self) -> tuple[float, float, float]:
        return _TINT[self._scene.time]

    def _paint(self, name: str, shade: float = 1.0) -> Rgb:
        return self._lit(_WOOD_RGB if name == WOOD else COLOURS[name], shade)

    def _at(self, thing: Thing, points: Sequence[Point]) -> list[Point]:
        """Points around a thing's place, in units of its size, y upwards."""
        size = thing.extent * self._unit
        x, y = thing.across * self._width, thing.y * self._height
        return [(x + across * size, y - up * size) for across, up in points]

    def _polygon(self, thing: Thing, points: Sequence[Point], colour: Rgb) -> None:
        self._pen.polygon(self._at(thing, points), fill=colour)

    def _box(self, thing: Thing, left: float, bottom: float, right: float, top: float, colour: Rgb) -> None:
        self._polygon(thing, [(left, bottom), (right, bottom), (right, top), (left, top)], colour)

    def _ellipse(self, thing: Thing, left: float, bottom: float, right: float, top: float, colour: Rgb) -> None:
        (x0, y0), (x1, y1) = self._at(thing, [(left, top), (right, bottom)])
        self._pen.ellipse((x0, y0, x1, y1), fill=colour)

    def _shaded(self, top: Rgb, bottom: Rgb, height: int) -> Image.Image:
        """A vertical gradient of the picture's width."""
        share = np.linspace(0, 1, max(height, 1))[:, None]
        column = np.array(top) * (1 - share) + np.array(bottom) * share
        strip = Image.fromarray(np.round(column).astype(np.uint8)[:, None, :])
        return strip.resize((self._width, max(height, 1)), Image.Resampling.NEAREST)

    def _sky(self) -> None:
        top, bottom = _SKY[self._scene.time]
        if self._scene.weather is Weather.STORM:
            top, bottom = _STORM[self._scene.time]
        self._image.paste(self._shaded(top, bottom, round(self._scene.horizon * self._height)), (0, 0))

    def _sun(self, sun: Thing) -> None:
        night, evening = self._scene.time is Time.NIGHT, self._scene.time is Time.EVENING
        colour = (226, 230, 240) if night else (255, 206, 120) if evening else (255, 244, 206)
        self._ellipse(sun, -0.5, -0.5, 0.5, 0.5, colour)

    def _cloud(self, cloud: Thing) -> None:
        storm = self._scene.weather is Weather.STORM
        colour = self._lit((92, 94, 104) if storm else (242, 242, 240), 1.0 if storm else 1.15)
        self._ellipse(cloud, -0.62, -0.20, -0.05, 0.22, colour)
        self._ellipse(cloud, 0.05, -0.20, 0.62, 0.20, colour)
        self._ellipse(cloud, -0.36, -0.16, 0.36, 0.44, colour)
        self._box(cloud, -0.36, -0.20, 0.36, 0.05, colour)

    def _hills(self) -> None:
        scene = self._scene
        ground = scene.horizon * self._height
        rows = ((scene.ridges[0], _FAR[scene.season]), (scene.ridges[1], _NEAR[scene.season]))
        for heights, colour in rows:
            tops = _smooth(heights, 60)
            xs = np.linspace(0, self._width, len(tops))
            line = [(float(x), float(ground * (1 - top))) for x, top in zip(xs, tops, strict=True)]
            self._pen.polygon([*line, (self._width, ground + 1), (0, ground + 1)], fill=self._lit(colour))

    def _lake(self) -> None:
        """Water with the hills and the sky in it, upside down and pale; sun, moon and clouds are left out."""
        scene = self._scene
        ground = round(scene.horizon * self._height)
        water = self._shaded(self._lit(_WATER, 1.05), self._lit(_WATER, 0.72), self._height - ground)
        self._image.paste(water, (0, ground))
        tops = _smooth(scene.ridges[1], 60)
        xs = np.linspace(0, self._width, len(tops))
        line = [(float(x), float(ground * (1 + 0.8 * top))) for x, top in zip(xs, tops, strict=True)]
        near, middle = _NEAR[scene.season], _WATER
        mixed = self._lit(((near[0] + middle[0]) // 2, (near[1] + middle[1]) // 2, (near[2] + middle[2]) // 2))
        self._pen.polygon([*line, (self._width, ground), (0, ground)], fill=mixed)

    def _land(self) -> None:
        scene = self._scene
        horizon, depth, shore = scene.horizon, 1 - scene.horizon, scene.shore
        corners = [
            (0, horizon + 0.20 * depth),
            (shore * 0.5, horizon + 0.17 * depth),
            (shore * 0.86, horizon + 0.24 * depth),
            (shore * 0.98, horizon + 0.5 * depth),
            (shore + 0.10, 1.01),
            (0, 1.01),
        ]
        land = _LAND[scene.season]
        self._pen.polygon([(x * self._width, y * self._height) for x, y in corners], fill=self._lit(land))
        front = [(0, 0.86), (shore * 0.6, 0.9), (shore + 0.02, 1.01), (0, 1.01)]
        lower = [(x, horizon + (y - 0.5) * 2 * depth) for x, y in front]
        self._pen.polygon([(x * self._width, y * self._height) for x, y in lower], fill=self._lit(land, 0.88))

    def _trees(self, trees: Thing) -> None:
        colour = _FIR[self._scene.season]
        snow = self._scene.season is Season.WINTER
        for across, up, size in ((0.42, 0.08, 0.8), (-0.38, 0.0, 0.9), (0.02, -0.14, 1.0)):
            w, x, y = 0.26 * size, across, up
            self._box(trees, x - 0.05, y - 0.06, x + 0.05, y + 0.06, self._lit((92, 64, 48)))
            for bottom, wide in ((0.02, 1.0), (0.34, 0.8), (0.64, 0.55)):
                top = (bottom + 0.5) * size
                left, right, base = x - w * wide, x + w * wide, y + bottom * size
                self._polygon(trees, [(left, base), (x, base), (x, y + top)], self._lit(colour, 0.85))
                self._polygon(trees, [(x, base), (right, base), (x, y + top)], self._lit(colour))
            if snow:
                peak = y + 1.14 * size
                self._polygon(
                    trees,
                    [(x - w * 0.3, peak - 0.28), (x + w * 0.3, peak - 0.28), (x, peak)],
                    self._lit((248, 248, 250)),
                )

    def _house(self, house: Thing) -> None:
        self._polygon(house, [(0.32, 0), (0.56, 0.06), (0.56, 0.44), (0.32, 0.5)], self._paint(house.colour, 0.78))
        self._box(house, -0.46, 0, 0.32, 0.5, self._paint(house.colour))
        self._box(house, -0.24, 0.7, -0.10, 1.0, self._lit((150, 138, 132)))
        self._polygon(house, [(0.22, 0.84), (0.38, 0.78), (0.64, 0.44), (0.36, 0.46)], self._paint(house.accent, 0.78))
        self._polygon(house, [(-0.54, 0.46), (0.37, 0.46), (0.22, 0.84), (-0.34, 0.84)], self._paint(house.accent))
        self._box(house, -0.10, 0, 0.08, 0.34, self._lit((84, 56, 44)))
        window = (255, 214, 120) if self._scene.time is not Time.DAY else (206, 226, 236)
        self._box(house, -0.38, 0.16, -0.19, 0.36, window)
        self._box(house, 0.14, 0.16, 0.26, 0.36, window)

    def _jetty(self, jetty: Thing) -> None:
        for x in (-0.3, 0.1, 0.5):
            self._box(jetty, x - 0.04, -0.26, x + 0.04, 0, self._lit((84, 62, 48)))
        self._box(jetty, -0.5, -0.05, 0.72, 0.06, self._lit((138, 102, 70)))
        self._box(jetty, -0.5, 0.05, 0.72, 0.14, self._lit((176, 136, 94)))

    def _boat(self, boat: Thing) -> None:
        self._polygon(boat, [(-0.5, 0.22), (0.5, 0.22), (0.34, 0), (-0.36, 0)], self._paint(boat.colour))
        self._polygon(boat, [(-0.54, 0.27), (0.54, 0.27), (0.5, 0.20), (-0.5, 0.20)], self._lit((244, 240, 230)))
        self._box(boat, -0.05, 0.27, 0.0, 1.0, self._lit((110, 80, 60)))
        self._polygon(boat, [(-0.09, 0.9), (-0.09, 0.34), (-0.42, 0.34)], self._paint(boat.accent, 0.86))
        self._polygon(boat, [(0.03, 0.98), (0.03, 0.34), (0.44, 0.34)], self._paint(boat.accent))

    def _sheep(self, sheep: Thing) -> None:
        dark = self._lit((58, 52, 56))
        for x in (-0.28, 0.18):
            self._box(sheep, x - 0.06, 0, x + 0.06, 0.25, dark)
        self._ellipse(sheep, -0.46, 0.16, 0.36, 0.68, self._lit((236, 230, 216)))
        self._ellipse(sheep, 0.24, 0.38, 0.56, 0.72, dark)

    def _birds(self, birds: Thing) -> None:
        colour = (128, 136, 160) if self._scene.time is Time.NIGHT else self._lit((52, 62, 92), 0.8)
        width = max(2, round(self._unit * 0.011))
        for x, y, size in ((-0.3, -0.02, 0.3), (0.14, 0.2, 0.24), (0.4, -0.12, 0.24)):
            for side in (-1, 1):
                middle = x + side * size / 2
                turn = [
                    (middle + size / 2 * math.cos(a), y + size / 2 * math.sin(a)) for a in np.linspace(0, math.pi, 9)
                ]
                self._pen.line(self._at(birds, turn), fill=colour, width=width, joint="curve")

    def _lanterns(self) -> None:
        """Seven on a line that hangs from one side of the picture to the other, above the water."""
        scene, radius = self._scene, 0.028 * self._unit
        line = [
            (x * self._width, (scene.horizon * 0.62 + 0.5 * (x - x * x)) * self._height) for x in np.linspace(0, 1, 25)
        ]
        self._pen.line(line, fill=self._lit((92, 84, 80)), width=max(1, round(self._unit * 0.006)), joint="curve")
        for place, (x, y) in enumerate(line[3::3]):
            for grown, colour in ((1.5, (226, 150, 60)), (1.0, (255, 226, 150))):
                r = radius * grown
                self._pen.ellipse((x - r, y, x + r, y + 2 * r), fill=colour if place % 2 else (255, 214, 120))

    def _balloon(self, balloon: Thing) -> None:
        self._ellipse(balloon, -0.42, -0.26, 0.42, 0.58, self._paint(balloon.colour))
        self._polygon(
            balloon, [(-0.36, -0.02), (0.36, -0.02), (0.10, -0.40), (-0.10, -0.40)], self._paint(balloon.colour)
        )
        self._ellipse(balloon, -0.15, -0.24, 0.15, 0.56, self._paint(balloon.colour, 0.82))
        self._box(balloon, -0.10, -0.64, 0.10, -0.46, self._lit((140, 98, 64)))


def _smooth(heights: Sequence[float], points: int) -> npt.NDArray[np.float64]:
    """A curve through the heights, rounded as by a cosine."""
    at = np.linspace(0, len(heights) - 1, points)
    low = np.minimum(at.astype(int), len(heights) - 2)
    share = (1 - np.cos((at - low) * math.pi)) / 2
    known = np.array(heights)
    smooth: npt.NDArray[np.float64] = known[low] * (1 - share) + known[low + 1] * share
    return smooth
