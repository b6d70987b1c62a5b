"""Makes the demo model from a seed, or goes on with what the work folder holds.

python -m kontext_bridge.training FOLDER [--seconds N] [--autoencoder-steps N] [--threads N]
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import torch

from .autoencoder import AutoencoderTraining, decibels
from .export import export
from .train import Teacher, TrainingPlan

logger = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m kontext_bridge.training", description=__doc__)
    parser.add_argument("folder", type=Path, help="where everything is kept; the same again goes on")
    parser.add_argument("--seconds", type=float, default=3 * 3600, help="stop after this long")
    parser.add_argument("--autoencoder-steps", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(given.threads)
    given.folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    autoencoder = _autoencoder(given.folder, given.autoencoder_steps, given.seconds)
    if autoencoder is not None:
        teacher = Teacher(given.folder, autoencoder, TrainingPlan())
        teacher.run(given.seconds - (time.monotonic() - begun))
        export(teacher.average, autoencoder.state_dict(), teacher.network.size, given.folder / "model")


def _autoencoder(folder: Path, steps: int, seconds: float) -> Any:
    """The trained VAE; None if the time is up before it is."""
    path, begun = folder / "autoencoder.pt", time.monotonic()
    training = AutoencoderTraining()
    if path.is_file():
        training.resume(torch.load(path, weights_only=True))
    saved, errors = time.monotonic(), []
    while training.step < steps:
        rate = min(1.0, (training.step + 1) / 50, max(0.02, 1.4 * (1 - training.step / steps)))
        errors.append(training.train_step(training.pictures(), rate))
        if training.step % 100 == 0:
            logger.info("autoencoder %d: squared error %.5f, %.0f s", training.step, sum(errors) / len(errors),
                        time.monotonic() - begun)  # fmt: skip
            errors = []
        if training.step % 500 == 0:
            logger.info("autoencoder %d: %s", training.step, decibels(training.model))
        if training.step == steps or time.monotonic() - saved > 120 or time.monotonic() - begun > seconds:
            torch.save(training.state(), path)
            saved = time.monotonic()
        if time.monotonic() - begun > seconds:
            return None
    return training.model.eval().requires_grad_(False)


if __name__ == "__main__":
    main()
