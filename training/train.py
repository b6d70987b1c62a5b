"""Teaches the demo network: flow matching, course after course, to be stopped and gone on with at any time.

All depends on how much of the plan is done: which course it is, and the rate of learning, which falls over the last
part only, for reading a sentence is learned late and all at once. On a GPU a step is one captured graph, from the
drawing of its lessons to the averaging of the weights, so that the processor has next to nothing to do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..kontext.checkpoint.layers import Size
from ..kontext.errors import BadRequest, DamagedFile
from .album import Subject
from .instructions import EditKind
from .kept_files import put_state, put_tensors, state_of, tensors_of
from .muon import BatchedMuon
from .network import DemoNetwork, lesson_loss, rotary_for
from .pool import Pool
from .scenes import FULL, LARGE, SMALL
from .transformer import DEMO, matrices
from .vocabulary import PLACES

logger = logging.getLogger(__name__)

# What a work folder keeps: all that is needed to go on, and the averaged weights alone.
STATE, WEIGHTS = "state.pt", "network.safetensors"
_NO_NETWORK = "Make one first: python -m kontext_bridge.training FOLDER, or --from-shipped."
_BEGIN_ANEW = f"Take {STATE} away, and training begins with the weights of {WEIGHTS} alone."
_EASY = frozenset({EditKind.RECOLOUR, EditKind.REMOVE, EditKind.TIME, EditKind.SEASON})
_ALONE = frozenset(EditKind) - {EditKind.BORROW}
_MATRIX_RATE, _OTHER_RATE = 0.02, 1.5e-3
_WARM_UP = 100
_EMA = 0.999
_SAVE_SECONDS = 170.0
_TOLD_EVERY = 100


@dataclass(frozen=True)
class Course:
    """What is taught at a time.

    until: the share of the plan after which the next one begins. subjects: each with the share of the steps that are
    of it. tokens: about so many a step, over all its lessons. doubles: the share of sentences with two edits.
    """

    name: str
    until: float
    subjects: tuple[tuple[Subject, float], ...]
    tokens: int
    doubles: float = 0.0


@dataclass(frozen=True)
class TrainingPlan:
    """steps: of all courses. families: how many of each subject are drawn (of large pictures a third).

    rate: the highest rate of learning, as a share of the usual one. falls_from: the share of the plan after which it
    falls.
    """

    courses: tuple[Course, ...]
    steps: int
    families: int
    size: Size = DEMO
    seed: int = 0
    rate: float = 1.0
    falls_from: float = 0.5

    @property
    def name(self) -> str:
        """By its courses, whatever else is asked for."""
        return ", ".join(course.name for course in self.courses)


def _of(
    sizes: tuple[tuple[int, int], ...], kinds: frozenset[EditKind], plain: bool = False, placing: bool = False
) -> list[Subject]:
    return [Subject(size, kinds, plain, placing) for size in sizes]


def _shared(*groups: tuple[list[Subject], float]) -> tuple[tuple[Subject, float], ...]:
    """Every group's share, divided among its subjects."""
    return tuple((subject, share / len(group)) for group, share in groups for subject in group)


def plan(gpu: bool) -> TrainingPlan:
    """Reading is learned at small pictures first, and with few kinds of edits. A CPU gets a twentieth of the work."""
    every = frozenset(EditKind)
    few = 1 if gpu else 4
    return TrainingPlan(
        (
            Course("first words", 0.08, _shared((_of(SMALL, _EASY, plain=True), 1)), 16000 // few),
            Course("all kinds", 0.3, _shared((_of(SMALL, _ALONE), 1)), 24000 // few, doubles=0.1),
            Course(
                "full size",
                0.72,
                _shared((_of(FULL, _ALONE), 0.8), (_of(FULL[:2], every), 0.2)),
                32000 // few,
                doubles=0.25,
            ),
            Course(
                "large, too",
                1.0,
                _shared(
                    (_of(FULL, _ALONE), 0.55), (_of(FULL[:2], every), 0.15), (_of(LARGE, _ALONE), 0.24),
                    (_of(LARGE[:1], every), 0.06),
                ),
                32000 // few,
                doubles=0.3,
            ),
        ),
        steps=22000 if gpu else 4000,
        families=3000 if gpu else 600,
    )  # fmt: skip


def further_plan(gpu: bool) -> TrainingPlan:
    """What a network that has been through all courses learns by more of the same: to put things into their places.

    It begins with the weights alone, at a lower rate, and with scenes that were not seen before. A CPU, which gets
    through a fortieth of the lessons, goes far more gently, and leaves out the large pictures: few lessons at a high
    rate do more harm than good, and so do few families.
    """
    every = frozenset(EditKind)
    if not gpu:
        subjects = _shared((_of(FULL, _ALONE, placing=True), 0.6), (_of(FULL, every, placing=True), 0.4))
        return TrainingPlan(
            (Course("further", 1.0, subjects, 20000, doubles=0.2),),
            steps=1500,
            families=1200,
            seed=2,
            rate=0.08,
            falls_from=0.0,
        )
    groups = (
        (_of(FULL, _ALONE, placing=True), 0.6),
        (_of(FULL, every, placing=True), 0.32),
        (_of(LARGE, _ALONE, placing=True), 0.08),
    )
    return TrainingPlan(
        (Course("further", 1.0, _shared(*groups), 32000, doubles=0.25),),
        steps=40000,
        families=5000,
        seed=1,
        rate=0.6,
        falls_from=0.2,
    )


class Teacher:
    """A network in training, with all that it takes to go on."""

    def __init__(
        self,
        folder: Path,
        plan: TrainingPlan,
        pool: Callable[[Subject], Pool],
        device: str | torch.device = "cpu",
        half: bool = False,
    ) -> None:
        """pool: gives the pool of a subject, which is asked for once. half: as in `lesson_loss`.

        A folder with all that a run keeps is gone on with; where there are weights alone, training begins with them.
        """
        torch.manual_seed(plan.seed)
        self.folder, self.plan, self._half = folder, plan, half
        self._device = torch.device(device)
        self.network = DemoNetwork(plan.size).to(self._device)
        if not (folder / STATE).is_file() and (folder / WEIGHTS).is_file():
            _fill(self.network, folder / WEIGHTS)
        self.average = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        chosen = matrices(self.network)
        held = {id(parameter) for parameter, _ in chosen}
        rest = [parameter for parameter in self.network.parameters() if id(parameter) not in held]
        self._on_gpu = self._device.type == "cuda"
        self._muon_rate, self._adam_rate, self._keep = (torch.zeros((), device=self._device) for _ in range(3))
        self._muon = BatchedMuon(chosen)
        self._adam = torch.optim.AdamW(
            rest,
            lr=self._adam_rate,
            betas=(0.9, 0.98),
            weight_decay=0.01,
            foreach=self._on_gpu,
            capturable=self._on_gpu,
        )
        self._rng = np.random.default_rng([plan.seed, 2])
        self._make_pool, self._pools = pool, dict[Subject, Pool]()
        self._graphs: dict[tuple[Subject, str], Callable[[], torch.Tensor]] = {}
        self._memory: Any = None
        self.step, self.seconds = 0, 0.0
        if (folder / STATE).is_file():
            self._resume()

    def compile(self) -> None:
        """Fuses what a block does; the same code serves all blocks and sizes.

        Half a minute on a GPU; one to two on a CPU with a compiler, where a step then takes three quarters of the time.
        """
        for block in (*self.network.flux.double_blocks, *self.network.flux.single_blocks):
            block.compile(dynamic=True)

    def run(self, seconds: float, hurried: bool = False) -> None:
        """Teaches to the end of the plan, or for so long. hurried: the whole plan is to fit into the time."""
        if self.step >= self.plan.steps:
            logger.info("All %d steps are done: with more --steps it would go on.", self.plan.steps)
        begun = saved = time.monotonic()
        losses: list[torch.Tensor] = []
        while self.step < self.plan.steps and time.monotonic() - begun < seconds:
            before = time.monotonic()
            share = self.step / self.plan.steps
            losses.append(self.lesson(max(share, (before - begun) / seconds) if hurried else share))
            if self.step % _TOLD_EVERY == 0:
                logger.info(
                    "%d loss %.4f, %.1f s", self.step, float(torch.stack(losses).mean()), time.monotonic() - begun
                )
                losses = []
            self.seconds += time.monotonic() - before
            if time.monotonic() - saved > _SAVE_SECONDS and not (hurried and self._on_gpu):
                self.save()
                saved = time.monotonic()
        self.save()

    def lesson(self, done: float | None = None) -> torch.Tensor:
        """One step on one batch; gives the loss. done: how much of the plan is, if not by steps."""
        share = self.step / self.plan.steps if done is None else done
        course = next((one for one in self.plan.courses if share < one.until), self.plan.courses[-1])
        shares = np.array([part for _, part in course.subjects])
        subject = course.subjects[int(self._rng.choice(len(shares), p=shares / shares.sum()))][0]
        falling = max(0.01, (1 - share) / (1 - self.plan.falls_from))
        rate = self.plan.rate * min(1.0, (self.step + 1) / _WARM_UP, falling)
        self._muon_rate.fill_(_MATRIX_RATE * rate)
        self._adam_rate.fill_(_OTHER_RATE * rate)
        self._keep.fill_(min(_EMA, (self.step + 1) / (self.step + 10)))
        loss = self._taught(subject, course)
        self.step += 1
        return loss

    def _taught(self, subject: Subject, course: Course) -> torch.Tensor:
        pool = self._pool(subject)
        tokens = PLACES + (3 if subject.borrows else 2) * subject.size[0] * subject.size[1] // 256
        count = max(1, course.tokens // tokens)
        rotary = rotary_for(*subject.size, 2 if subject.borrows else 1).to(self._device)

        def step() -> torch.Tensor:
            return self._step(pool, count, course.doubles, rotary)

        if not self._on_gpu:
            return step()
        if (subject, course.name) not in self._graphs:
            self._graphs[subject, course.name] = self._captured(step)
        return self._graphs[subject, course.name]()

    def _step(self, pool: Pool, count: int, doubles: float, rotary: torch.Tensor) -> torch.Tensor:
        batch = pool.batch(count, doubles)
        loss = lesson_loss(self.network, batch, rotary, self._half)
        self.network.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._adam.step()
        self._muon.step(self._muon_rate)
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                self.average[name].lerp_(tensor, 1 - self._keep)
        return loss.detach()

    def _captured(self, step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        """The step as a CUDA graph. It is done three times to get ready, which teach as any other."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        self._memory = self._memory or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            loss = step()

        def again() -> torch.Tensor:
            graph.replay()
            return loss.clone()

        return again

    def _pool(self, subject: Subject) -> Pool:
        if subject not in self._pools:
            self._pools[subject] = self._make_pool(subject)
        return self._pools[subject]

    def save(self) -> None:
        """Writes all state, and the averaged weights; what was there stays whole until the new is."""
        put_state(
            {
                "plan": self.plan.name,
                "network": self.network.state_dict(),
                "average": self.average,
                "muon": self._muon.state(),
                "adam": self._adam.state_dict(),
                "rng": self._rng.bit_generator.state,
                "torch": torch.get_rng_state(),
                "at": (self.step, self.seconds),
            },
            self.folder / STATE,
        )
        put_tensors(self.average, self.folder / WEIGHTS)

    def _resume(self) -> None:
        path = self.folder / STATE
        state = state_of(path, self._device, _BEGIN_ANEW)
        if state.get("plan", self.plan.name) != self.plan.name:
            raise BadRequest(f"{path} is of the plan {state['plan']!r}, and this is {self.plan.name!r}. {_BEGIN_ANEW}")
        self.step, self.seconds = state["at"]
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self._muon.resume(state["muon"])
        self._adam.load_state_dict(state["adam"])
        for group in self._adam.param_groups:
            group["lr"] = self._adam_rate
        self._rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch"].cpu())
        logger.info("Going on at step %d.", self.step)


def trained_network(folder: Path, size: Size = DEMO) -> DemoNetwork:
    """The network of averaged weights of a work folder, which is the one that is judged and exported."""
    network = DemoNetwork(size)
    _fill(network, folder / WEIGHTS)
    return network.eval()


def _fill(network: DemoNetwork, path: Path) -> None:
    tensors = tensors_of(path, _NO_NETWORK)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise DamagedFile(f"{path} holds another network than the demo model's. {_NO_NETWORK}") from error
