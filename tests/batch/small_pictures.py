"""Pictures that are quickly made and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 24, 3), np.uint8)
    Image.fromarray(pixels).save(path, lossless=True) if path.suffix == ".webp" else Image.fromarray(pixels).save(path)
    return path
