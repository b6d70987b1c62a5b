"""What Keep found and did, in numbers and in a line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .bench import Bench
from .filters import pooled, scaled
from .look import Look
from .mapping import Mapping
from .measures import SAME, Distance, ciede2000, distance, lab
from .verdict import Verdict

_PIXEL = 0.15  # edit pixels: a smaller shift or bend is none
_SCALE = 0.0005
_TURN = 0.02  # degrees
_TINT = 0.5  # CIEDE2000: less cannot be seen
_ROWS = 128  # a band: memory beside the pictures stays small


@dataclass(frozen=True)
class KeepReport:
    """shift, bend: in the edit's pixels; scale: 1 is none; turn: degrees; drift: mean CIEDE2000 of what was not edited,
    before and after; changed, covered: shares of the picture; before, after: how far what was not edited is from the
    source, in the edit merely scaled and in the result (None where nothing is left)."""

    verdict: Verdict
    why: str
    shift: tuple[float, float]
    scale: float
    turn: float
    bend: float
    most_bend: float
    drift: tuple[float, float]
    changed: float
    covered: float
    noise: float
    before: Distance | None
    after: Distance | None

    @property
    def line(self) -> str:
        """What the artist reads on the node."""
        if self.verdict is Verdict.WHOLE:
            return f"the whole picture changed ({self.why}): the edit is handed on, nothing was kept"
        moved = "; ".join([*self._moved(), *self._tinted()])
        begin = f"{moved}; " if moved else ""
        rest = "" if self.covered > 0.999 else f"; {1 - self.covered:.1%} of the picture lies beyond the edit"
        if self.verdict is Verdict.NONE:
            return f"{begin}nothing was edited: every pixel is your own{rest}"
        return f"{begin}{_share(self.changed)} changed; the rest is your own pixels{rest}"

    def numbers(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "verdict": self.verdict.value, "says": self.line}

    def _moved(self) -> list[str]:
        far = (self.shift[0] ** 2 + self.shift[1] ** 2) ** 0.5
        size = f"{abs(self.scale - 1):.1%} {'larger' if self.scale > 1 else 'smaller'}"
        parts = [
            f"shifted {far:.1f} px" * (far > _PIXEL),
            size * (abs(self.scale - 1) > _SCALE),
            f"turned {abs(self.turn):.2f}°" * (abs(self.turn) > _TURN),
            f"bent {self.bend:.1f} px" * (self.bend > _PIXEL),
        ]
        moved = ", ".join(part for part in parts if part)
        return [moved] if moved else []

    def _tinted(self) -> list[str]:
        return ["tint corrected"] if self.drift[0] - self.drift[1] > _TINT else []


def report_of(
    bench: Bench,
    mapping: Mapping,
    seen: Look | None,
    verdict: Verdict,
    why: str,
    source: Tensor,
    picture: Tensor,
    weight: Tensor,
) -> KeepReport:
    """source, picture [H,W,C], weight [H,W]: given and made. seen: None where source and edit are the same."""
    height, width = bench.source.shape[1:]
    shift, scale, turn = mapping.motion()
    bend, most = mapping.bend()
    outside = (_smaller(weight[None], height, width) == 0)[0]
    before = distance(bench.source, bench.edited, outside)
    after = before and SAME
    if not _untouched(source, picture, weight):
        result = _smaller(picture[..., :3].permute(2, 0, 1), height, width).clamp(0, 1)
        after = distance(bench.source, result, outside)
    return KeepReport(
        verdict=verdict,
        why=why,
        shift=shift,
        scale=scale,
        turn=turn,
        bend=bend,
        most_bend=most,
        drift=(0.0, 0.0) if seen is None else _drifts(seen),
        changed=float(weight.mean()),
        covered=1.0 if seen is None else float(seen.covered.float().mean()),
        noise=1.0 if seen is None else seen.noise,
        before=before,
        after=after,
    )


def _untouched(source: Tensor, picture: Tensor, weight: Tensor) -> bool:
    """Whether what took nothing from the edit is the source's, bit for bit: that is quicker asked than measured."""
    for start in range(0, len(weight), _ROWS):
        given, made, taken = (p[start : start + _ROWS] for p in (source[..., :3], picture[..., :3], weight))
        if not torch.equal(given, made) and not bool(((given == made).all(-1) | (taken > 0)).all()):
            return False
    return True


def _smaller(planes: Tensor, height: int, width: int) -> Tensor:
    return scaled(planes.float(), height, width)


def _drifts(seen: Look) -> tuple[float, float]:
    """The mean difference of colour outside the change, texture averaged out, before and after the correction."""
    free = seen.free.float()[None]
    height, width = (max(1, n // 4) for n in free.shape[1:])
    share = pooled(free, height, width)
    sure = share[0] > 0.9
    if not sure.any():
        return 0.0, 0.0
    wanted, *found = (
        lab(pooled(p * free, height, width)[:, sure] / share[:, sure]) for p in (seen.source, seen.aligned, seen.corrected)
    )
    before, after = (float(ciede2000(wanted, one).mean()) for one in found)
    return before, after


def _share(part: float) -> str:
    return f"{part:.0%}" if part >= 0.01 else f"{part:.1%}" if part >= 0.001 else "less than 0.1%"
