"""Makes the demo model from a seed, or goes on with what the work folder holds.

python -m kontext_bridge.training FOLDER [--device cuda] [--seconds N --hurried] [--workers N] [--only autoencoder]
"""

from __future__ import annotations

import argparse
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from ..kontext.demo.shipped import demo_files
from ..kontext.errors import BadRequest
from ..kontext.standalone.workshop import usable_device
from .album import Sheet, Subject, sheets
from .asked_for import above_zero, carried_out, from_zero, some_time
from .autoencoder import STATE, WEIGHTS, AutoencoderTraining, decibels, encoded, trained_autoencoder
from .export import export
from .kept_files import digest, put_state, put_tensors, state_of
from .pool import Pool, ready
from .stored import laid_out
from .train import STATE as NETWORK_STATE
from .train import WEIGHTS as NETWORK_WEIGHTS
from .train import Teacher, TrainingPlan, further_plan, plan, trained_network

logger = logging.getLogger(__name__)
_TOLD_EVERY = 100
_AT_ONCE = 4
# So few pictures at once stay in a processor's cache: a third quicker than all of a sheet.
_IN_CACHE = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m kontext_bridge.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where everything is kept; the same again goes on")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=some_time, default=24 * 3600.0, help="stop after this long")
    parser.add_argument("--hurried", action="store_true", help="the plan is to fit into that time")
    parser.add_argument("--autoencoder-seconds", type=some_time, default=80.0, help="of a hurried plan")
    parser.add_argument("--workers", type=from_zero, default=0, help="processes that draw")
    parser.add_argument("--only", choices=("autoencoder", "network"))
    parser.add_argument(
        "--further", action="store_true", help="the second plan, for a folder with the weights of a network alone"
    )
    parser.add_argument("--steps", type=above_zero, help="of the network, if not as planned")
    parser.add_argument("--families", type=above_zero, help="of a subject, if not as planned")
    parser.add_argument("--rate", type=some_time, help="the highest rate of learning, as a share of the usual one")
    parser.add_argument(
        "--from-shipped", action="store_true", help="begin with the weights of the model that comes with the pack"
    )
    parser.add_argument("--compiled", action="store_true", help="fuse the blocks' kernels: half a minute to two first")
    parser.add_argument("--half", action="store_true", help="bfloat16 on a CPU that has products of it, twice as quick")
    given = parser.parse_args()
    if given.further and given.only == "autoencoder":
        parser.error("--further is no business of the autoencoder: leave one of the two out")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    gpu = usable_device(given.device).type == "cuda"
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high" if gpu else "highest")
    chosen = further_plan(gpu) if given.further else plan(gpu)
    chosen = replace(
        chosen,
        steps=given.steps or chosen.steps,
        families=given.families or chosen.families,
        rate=chosen.rate if given.rate is None else given.rate,
    )
    if given.from_shipped and not (given.folder / NETWORK_WEIGHTS).is_file():
        laid_out(demo_files(), given.folder)
    workers = ProcessPoolExecutor(given.workers, get_context("spawn")) if given.workers else None
    try:
        _make(given, chosen, gpu, workers)
    finally:
        # What failed or was stopped does not wait for all that is still to be drawn.
        if workers:
            workers.shutdown(cancel_futures=True)


def _make(given: argparse.Namespace, chosen: TrainingPlan, gpu: bool, workers: Executor | None) -> None:
    ends = time.monotonic() + given.seconds
    with_vae = given.only != "network" and not given.further and not _has_network(given)
    album = Album(chosen, workers, torch.device(given.device) if gpu and with_vae else None)
    if with_vae:
        _teach_autoencoder(given, album if gpu else None, gpu, ends)
    if given.only != "autoencoder" and time.monotonic() < ends:
        autoencoder = trained_autoencoder(given.folder, given.device)
        vae = digest(given.folder / WEIGHTS)

        def encode(pictures: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=given.half):
                some = torch.split(pictures, len(pictures) if gpu else _IN_CACHE)
                return torch.cat([encoded(autoencoder, one) for one in some])

        def pool(subject: Subject) -> Pool:
            made_of = f"{album.count(subject)} families by VAE {vae}"
            found = Pool.loaded(subject, given.folder, torch.device(given.device), made_of)
            if found is None:
                began = time.monotonic()
                found = Pool.made(subject, album.sheets(subject), encode, given.device)
                logger.info("%s: %d families in %.1f s", subject.size, len(found), time.monotonic() - began)
                if not gpu:
                    found.save(given.folder, made_of)
            return found

        teacher = Teacher(given.folder, chosen, pool, given.device, given.half)
        if given.compiled:
            teacher.compile()
        teacher.run(ends - time.monotonic(), given.hurried)
        weights = trained_network(given.folder).state_dict()
        export(weights, trained_autoencoder(given.folder).state_dict(), chosen.size, given.folder / "model")
    elif given.only != "autoencoder":
        logger.info("The time was up before the network's turn: the same again goes on.")


def _has_network(given: argparse.Namespace) -> bool:
    """Whether the folder has one, which reads this VAE's latents and no others: then the VAE stays as it is."""
    found = next((name for name in (NETWORK_STATE, NETWORK_WEIGHTS) if (given.folder / name).is_file()), None)
    if found and given.only == "autoencoder":
        raise BadRequest(
            f"{given.folder} has a network already ({found}), which reads what this VAE writes and would be lost with "
            "another. Name a new folder for a new VAE."
        )
    return found is not None


class Album:
    """The families of a plan, drawn in the background where there are workers, else when they are asked for."""

    def __init__(self, plan: TrainingPlan, workers: Executor | None, device: torch.device | None) -> None:
        """device: where the pictures are kept for the VAE; None: they are not kept."""
        # The large ones of the last course count most for the VAE, so they are drawn first.
        subjects = dict.fromkeys(subject for course in reversed(plan.courses) for subject, _ in course.subjects)
        self._plan, self._workers, self._device = plan, workers, device
        self._rng = np.random.default_rng([plan.seed, 4])
        self._kept: dict[Subject, list[Sheet]] = {subject: [] for subject in subjects}
        self._on_device: list[torch.Tensor] = []
        self._done = {subject: threading.Event() for subject in subjects}
        self._failed: BaseException | None = None
        if workers is not None:
            threading.Thread(target=self._draw, daemon=True).start()

    def sheets(self, subject: Subject) -> Iterator[Sheet]:
        """All of one subject."""
        if self._workers is None:
            yield from sheets(subject, self.count(subject), self._plan.seed)
            return
        self._done[subject].wait()
        self._check()
        yield from self._kept.pop(subject)

    def pictures(self, pixels: int) -> torch.Tensor:
        """Pictures [B, 3, H, W] of -1..1 of one size, about so many pixels in all, from what is drawn by now."""
        while len(self._on_device) < _AT_ONCE:
            self._check()
            time.sleep(0.1)
        first = self._on_device[int(self._rng.integers(len(self._on_device)))]
        like = [one for one in self._on_device if one.shape[1:] == first.shape[1:]]
        count = max(1, pixels // (_AT_ONCE * first.shape[1] * first.shape[2]))
        some = []
        for _ in range(_AT_ONCE):
            one = like[int(self._rng.integers(len(like)))]
            some.append(one[torch.from_numpy(self._rng.integers(len(one), size=count)).to(one.device)])
        return ready(torch.cat(some))

    def _check(self) -> None:
        if self._failed is not None:
            raise RuntimeError("Drawing failed.") from self._failed

    def count(self, subject: Subject) -> int:
        """How many families there are of a subject."""
        return max(1, self._plan.families // (3 if subject.size[0] > 200 else 1))

    def _draw(self) -> None:
        began = time.monotonic()
        try:
            coming = [(one, sheets(one, self.count(one), self._plan.seed, self._workers)) for one in self._kept]
            for subject, some in coming:
                for sheet in some:
                    self._kept[subject].append(sheet)
                    if self._device is not None:
                        self._on_device.append(torch.from_numpy(sheet.pictures).flatten(0, 1).to(self._device))
                self._done[subject].set()
                logger.info("drawn: %s, %.1f s", subject.size, time.monotonic() - began)
        except BaseException as error:
            self._failed = error
            if not isinstance(error, CancelledError):  # the run is over, and has said so
                raise
        finally:
            for event in self._done.values():
                event.set()


def _teach_autoencoder(given: argparse.Namespace, album: Album | None, gpu: bool, ends: float) -> None:
    """Goes on with what the folder holds, until all steps are done or the time is up."""
    training = AutoencoderTraining(device=given.device)
    path = given.folder / STATE
    if path.is_file():
        training.resume(state_of(path, given.device, "Take it away, and the VAE is begun anew."))
    steps, pixels = (4000, 2**19) if gpu else (8000, 10_000)
    begun = saved = time.monotonic()
    seconds = min(given.autoencoder_seconds, ends - begun) if given.hurried else ends - begun
    errors: list[torch.Tensor] = []
    while training.step < steps and time.monotonic() - begun < seconds:
        done = training.step / steps
        if given.hurried:
            done = max(done, (time.monotonic() - begun) / seconds)
        rate = min(1.0, (training.step + 1) / 50, max(0.02, 1.4 * (1 - done)))
        pictures = album.pictures(pixels) if album else training.pictures(pixels)
        errors.append(training.train_step(pictures, rate))
        if training.step % _TOLD_EVERY == 0:
            logger.info("VAE %d: squared error %.5f, %.0f s", training.step, float(torch.stack(errors).mean()),
                        time.monotonic() - begun)  # fmt: skip
            errors = []
        if time.monotonic() - saved > 120 and not given.hurried:
            _keep(training, given.folder)
            saved = time.monotonic()
    _keep(training, given.folder)
    logger.info("VAE %d: %s", training.step, decibels(training.model))


def _keep(training: AutoencoderTraining, folder: Path) -> None:
    put_state(training.state(), folder / STATE)
    put_tensors({name: t.contiguous() for name, t in training.model.state_dict().items()}, folder / WEIGHTS)


if __name__ == "__main__":
    carried_out(main)
