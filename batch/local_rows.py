"""Rows on this machine: one after the other, by a model that is loaded once."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..imaging.canvas import at_its_scale, pick_size, prepare, restore
from ..imaging.codec import DecodedImage
from ..imaging.png import with_text
from ..kontext.checkpoint.lora import read_lora
from ..kontext.checkpoint.reading import read_checkpoint
from ..kontext.demo.shipped import demo_files
from ..kontext.edit import LatentEdit
from ..kontext.errors import BadRequest
from ..kontext.fp8.compute import Compute
from ..kontext.standalone.workshop import Workshop, usable_device
from ..oxen.api.models import DEFAULT
from .columns import KEEP, keeps
from .made import PlannedRow, RowResult
from .pictures import (
    RowPicture,
    as_file,
    facts_of_keep,
    health,
    laid_back,
    measured,
    noted,
    read_picture,
    size_of,
    tensor_of,
)

_MATCH = "match_input_image"
# Prompts whose encodings are kept at once, 8 MB each: the text encoders are loaded once for so many rows.
AHEAD = 64


@dataclass(frozen=True)
class LocalModel:
    """Which model edits. transformer None: the demo model that comes with the pack. loras: files with strengths."""

    transformer: Path | None = None
    text_encoders: Path = Path()
    vae: Path = Path()
    loras: tuple[tuple[Path, float], ...] = ()
    device: str | None = None
    compute: Compute = Compute.AUTO


class LocalRows:
    """Makes rows on this machine; a context manager. Raises KontextError for a model that cannot be used."""

    width = 1
    price = None

    def __init__(self, model: LocalModel, *, measures: bool = False) -> None:
        demo = demo_files() if model.transformer is None else None
        transformer = model.transformer if demo is None else demo.transformer
        assert transformer is not None
        self._checkpoint = read_checkpoint(transformer)
        self._workshop = Workshop(
            self._checkpoint,
            model.text_encoders if demo is None else demo.text,
            model.vae if demo is None else demo.vae,
            device=usable_device(model.device or ("cuda" if torch.cuda.is_available() else "cpu")),
            compute=model.compute,
            loras=[(read_lora(file, self._checkpoint.size), strength) for file, strength in model.loras],
        )
        self._measures = measures
        self._stopped = threading.Event()

    def __enter__(self) -> LocalRows:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stopped.set()

    def stop(self) -> None:
        self._stopped.set()

    def arrange(self, rows: Iterator[PlannedRow]) -> Iterator[PlannedRow]:
        """The rows in their order, each some of them ahead with all their prompts encoded at once."""
        while some := list(itertools.islice(rows, AHEAD)):
            self.learn([str(row.values["prompt"]) for row in some if row.problem is None])
            yield from some

    def learn(self, prompts: Sequence[str]) -> None:
        """Encode these prompts together, and forget those before."""
        with contextlib.suppress(BadRequest):  # told again by the row whose prompt it is
            self._workshop.learn(prompts)

    def knows(self, prompt: str) -> bool:
        return self._workshop.knows(prompt)

    def make(self, row: PlannedRow) -> RowResult:
        """A row's result; raises KontextError, ImageError, OSError."""
        return RowResult(*self.made(read_picture(row.path), row.values))

    def made(self, given: RowPicture, values: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """The file of a picture's edit with these values, and what the report says; raises KontextError, ImageError."""
        before = given.picture
        asked = DEFAULT.read({name: value for name, value in values.items() if name != KEEP.name})
        edited, at_scale = self._edited(tensor_of(before), asked)
        facts: dict[str, Any] = {"seed": asked["seed"], "size_before": size_of(before), "how": "new"}
        image, told = edited, None
        if keeps(values):
            image, told = laid_back(before, at_scale, edited)
            facts |= facts_of_keep(told)
        elif self._measures:
            facts |= facts_of_keep(measured(before, at_scale))
        data = as_file(image[0], asked["output_format"], asked["output_quality"])
        if (called := self._checkpoint.purpose.called) is not None:
            data = with_text(data, "Software", f"Kontext Bridge, {called}")
        facts |= {"size": f"{image.shape[2]}x{image.shape[1]}", "health": _health(before, image) or None}
        return noted(data, given.notes, image, told), facts

    def _edited(self, image: torch.Tensor, asked: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """The edit [1,h,w,3] as it is handed on, and as it is compared with its picture."""
        height, width = image.shape[1:3]
        megapixels = self._checkpoint.purpose.megapixels
        canvas = prepare(image, size=pick_size(_MATCH, width, height, megapixels))
        across, down = pick_size(asked["aspect_ratio"], width, height, megapixels)
        edit = LatentEdit(across, down, asked["steps"], asked["guidance"], asked["seed"])
        made = self._workshop.edit(canvas.prepared, asked["prompt"], edit, should_stop=self._stopped.is_set)
        if asked["aspect_ratio"] != _MATCH:
            return made, made
        restored = restore(made, canvas)
        return restored, at_its_scale(restored, canvas)


def _health(before: DecodedImage, image: torch.Tensor) -> list[str]:
    pixels = image[0, ..., :3].mul(255).round().clamp(0, 255).to(torch.uint8).numpy()
    return health(before, DecodedImage(pixels, None, ""))
