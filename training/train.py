"""Teaches the demo network: flow matching, course after course, to be stopped and gone on with at any time.

A course ends when its held-out instructions are done right. Later ones have more blocks: a new block's gates are zero,
so the net goes on where it was. The rate of learning falls only in the last course, for reading a sentence is learned
late and all at once. All state lies in the work folder: `state.pt` every three minutes,
the pools of encoded pictures, and `curve.jsonl` with a line for every judgement.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..kontext.checkpoint.layers import Size
from .autoencoder import encoded
from .evaluate import cases, figures, judge
from .instructions import EditKind
from .muon import BatchedMuon
from .network import DemoNetwork, rotary_for
from .pool import Course, Pool
from .scenes import FULL, MIDDLE, SMALL
from .transformer import DEMO, matrices

logger = logging.getLogger(__name__)

_EASY = frozenset({EditKind.RECOLOUR, EditKind.REMOVE, EditKind.TIME, EditKind.SEASON})
COURSES = (
    Course("first words", (2, 4), SMALL, _EASY, 96, plain=True),
    Course("all kinds", (3, 6), SMALL, frozenset(EditKind), 96, doubles=0.1),
    Course("larger", (3, 6), MIDDLE, frozenset(EditKind), 64, doubles=0.2),
    Course("full size", (3, 6), FULL, frozenset(EditKind), 48, doubles=0.25),
)
_MATRIX_RATE, _OTHER_RATE = 0.02, 1.5e-3
_WARM_UP = 100
_EMA = 0.999
# More cannot be asked of a small picture: it has 20 tokens, and a roof is a part of one.
_PASSED = 80.0
_JUDGE_EVERY = 500
_JUDGED_EACH = 16
_SAVE_SECONDS = 170.0


@dataclass(frozen=True)
class TrainingPlan:
    """start and most: families that a pool begins with and grows to. last: steps of the last course."""

    start: int = 150
    most: int = 2500
    last: int = 3000
    seed: int = 0
    courses: tuple[Course, ...] = COURSES


class Teacher:
    """A network in training, with all that it takes to go on."""

    def __init__(self, folder: Path, autoencoder: Any, plan: TrainingPlan) -> None:
        torch.manual_seed(plan.seed)
        self.folder, self.autoencoder, self.plan = folder, autoencoder, plan
        self._take(DemoNetwork(_size(plan.courses[0])))
        self.average = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self._rng = np.random.default_rng([plan.seed, 2])
        self._pools: dict[tuple[tuple[int, int], frozenset[EditKind]], Pool] = {}
        self.step, self.course, self.course_step, self.seconds = 0, 0, 0, 0.0
        self._warm_from = 0
        if (folder / "state.pt").is_file():
            self._resume()

    def run(self, seconds: float) -> None:
        """Teaches for so long, or to the end of the last course."""
        begun = saved = time.monotonic()
        losses: list[float] = []
        while not self.finished and time.monotonic() - begun < seconds:
            before = time.monotonic()
            losses.append(self.lesson())
            self.seconds += time.monotonic() - before
            if self.step % 50 == 0:
                logger.info("%s %d loss %.4f, %.0f s", self._now.name, self.step, np.mean(losses), self.seconds)
                losses = []
            if self.step % _JUDGE_EVERY == 0:
                self._judge()
            if time.monotonic() - saved > _SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()

    def _take(self, network: DemoNetwork) -> None:
        """A network to go on with, and fresh optimisers for it."""
        self.network = network
        chosen = matrices(network)
        held = {id(parameter) for parameter, _ in chosen}
        rest = [parameter for parameter in network.parameters() if id(parameter) not in held]
        self._muon = BatchedMuon(chosen)
        self._adam = torch.optim.AdamW(rest, lr=_OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.01)

    def _grow(self) -> None:
        """The net with as many blocks as the course has; the new ones change nothing at first."""
        grown = DemoNetwork(_size(self._now))
        grown.load_state_dict(self.network.state_dict(), strict=False)
        self.average = {**grown.state_dict(), **self.average}
        self.average = {name: tensor.detach().clone() for name, tensor in self.average.items()}
        self._take(grown)
        self._warm_from = self.step

    @property
    def finished(self) -> bool:
        return self.course == len(self.plan.courses) - 1 and self.course_step >= self.plan.last

    @property
    def _now(self) -> Course:
        return self.plan.courses[self.course]

    def lesson(self) -> float:
        """One step on one batch; gives the loss."""
        size = self._now.sizes[int(self._rng.integers(len(self._now.sizes)))]
        batch = self._pool(size).batch(self._rng, self._now)
        noise = torch.randn_like(batch.target)
        # Most of what is hard is decided while there is much noise.
        moment = torch.sigmoid(torch.randn(len(noise)) * 1.1 + 0.5)
        at = moment[:, None, None]
        noisy = (1 - at) * batch.target + at * noise
        velocity = self.network(noisy, batch.source, batch.words, moment, batch.guidance, rotary_for(*size))
        loss = (batch.weight * (velocity - (noise - batch.target)).square()).mean()
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        rate = self._rate()
        for group in self._adam.param_groups:
            group["lr"] = _OTHER_RATE * rate
        self._adam.step()
        self._muon.step(_MATRIX_RATE * rate)
        self.step += 1
        self.course_step += 1
        keep = min(_EMA, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                self.average[name].lerp_(tensor, 1 - keep)
        return float(loss.detach())

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1 - self._warm_from) / _WARM_UP)
        if self.course < len(self.plan.courses) - 1:
            return warm
        return warm * max(0.01, 1 - self.course_step / self.plan.last)

    def _pool(self, size: tuple[int, int]) -> Pool:
        """The pool of a size; it grows a little with every use, so that nothing is learned by heart."""
        key = (size, self._now.kinds)
        if key not in self._pools:
            self._pools[key] = Pool(*key, self.plan.seed)
            self._pools[key].load(self.folder)
        pool = self._pools[key]
        if len(pool) < self.plan.most:
            pool.grow(1 if len(pool) >= self.plan.start else self.plan.start - len(pool), self._encode)
        return pool

    def _encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return encoded(self.autoencoder, pictures)

    def _judge(self) -> None:
        course, before = self._now, time.monotonic()
        asked = cases(sorted(course.kinds, key=lambda kind: kind.value), course.sizes[0], _JUDGED_EACH, 1000,
                      2 * _JUDGED_EACH if course.doubles > 0.1 else 0)  # fmt: skip
        verdicts, shown = judge(self.averaged(), self.autoencoder, asked)
        found = figures(verdicts)
        line = {"step": self.step, "course": course.name, "seconds": round(self.seconds), **found,
                "judging": round(time.monotonic() - before)}  # fmt: skip
        logger.info("%s", line)
        with (self.folder / "curve.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        torch.save(shown.half(), self.folder / "shown.pt")
        if found["all"] >= _PASSED and self.course < len(self.plan.courses) - 1:
            self.advance()

    def advance(self) -> None:
        """On to the next course."""
        self.course, self.course_step = self.course + 1, 0
        logger.info("On to %r.", self._now.name)
        if _size(self._now) != self.network.size:
            self._grow()

    def averaged(self) -> DemoNetwork:
        """The network of averaged weights, which is the one that is judged and exported."""
        network = DemoNetwork(self.network.size)
        network.load_state_dict(self.average)
        return network.eval()

    def save(self) -> None:
        """Writes all state; what was there stays whole until the new is."""
        fresh = self.folder / "state.new"
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average,
                "muon": self._muon.state(),
                "adam": self._adam.state_dict(),
                "rng": self._rng.bit_generator.state,
                "torch": torch.get_rng_state(),
                "at": (self.step, self.course, self.course_step, self.seconds, self._warm_from),
            },
            fresh,
        )
        fresh.replace(self.folder / "state.pt")
        for pool in self._pools.values():
            pool.save(self.folder)

    def _resume(self) -> None:
        state = torch.load(self.folder / "state.pt", weights_only=True)
        self.step, self.course, self.course_step, self.seconds, self._warm_from = state["at"]
        self._take(DemoNetwork(_size(self._now)))
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self._muon.resume(state["muon"])
        self._adam.load_state_dict(state["adam"])
        self._rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch"])
        logger.info("Going on at step %d, course %r.", self.step, self._now.name)


def _size(course: Course) -> Size:
    return replace(DEMO, doubles=course.blocks[0], singles=course.blocks[1])
