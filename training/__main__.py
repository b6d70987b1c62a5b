"""Makes the demo model from a seed, or goes on with what the work folder holds.

python -m kontext_bridge.training FOLDER [--seconds N] [--only autoencoder|network] [--threads N]
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import torch

from .autoencoder import FIRST, SECOND, AutoencoderTraining, decibels, trained_autoencoder
from .export import export
from .train import Teacher, TrainingPlan

logger = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m kontext_bridge.training", description=__doc__)
    parser.add_argument("folder", type=Path, help="where everything is kept; the same again goes on")
    parser.add_argument("--seconds", type=float, default=3 * 3600, help="stop after this long")
    parser.add_argument("--autoencoder-steps", type=int, default=5000)
    parser.add_argument("--decoder-steps", type=int, default=6000, help="of the decoder alone, all blocks awake")
    parser.add_argument("--only", choices=("autoencoder", "network"), help="leave out what comes after, or before")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(given.threads)
    given.folder.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + given.seconds
    if given.only != "network":
        first = AutoencoderTraining()
        _taught(first, given.folder / FIRST, given.autoencoder_steps, ends)
        second = AutoencoderTraining(first=first.model.state_dict())
        _taught(second, given.folder / SECOND, given.decoder_steps, ends)
    if given.only != "autoencoder" and time.monotonic() < ends:
        autoencoder = trained_autoencoder(given.folder)
        teacher = Teacher(given.folder, autoencoder, TrainingPlan())
        teacher.run(ends - time.monotonic())
        export(teacher.average, autoencoder.state_dict(), teacher.network.size, given.folder / "model")


def _taught(training: AutoencoderTraining, path: Path, steps: int, ends: float) -> None:
    """Goes on with what `path` holds, until so many steps are done or the time is up."""
    if path.is_file():
        training.resume(torch.load(path, weights_only=True))
    begun = saved = time.monotonic()
    errors: list[float] = []
    while training.step < steps and time.monotonic() < ends:
        rate = min(1.0, (training.step + 1) / 50, max(0.02, 1.4 * (1 - training.step / steps)))
        errors.append(training.train_step(training.pictures(), rate))
        if training.step % 100 == 0:
            logger.info("%s %d: squared error %.5f, %.0f s", path.stem, training.step, sum(errors) / len(errors),
                        time.monotonic() - begun)  # fmt: skip
            errors = []
        if training.step % 500 == 0:
            logger.info("%s %d: %s", path.stem, training.step, decibels(training.model))
        if training.step == steps or time.monotonic() - saved > 120 or time.monotonic() > ends:
            torch.save(training.state(), path)
            saved = time.monotonic()


if __name__ == "__main__":
    main()
