"""The stand-in's edit as the demo model makes it, where torch and the model's files are there.

Nothing heavy is loaded until a painter is asked for.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .parameters import AskedEdit
from .picture import BadPicture

if TYPE_CHECKING:
    import torch

_MULTIPLE = 16
_SEEDS = 2**32


class NoPainter(Exception):
    """The demo model cannot be had; the text says why, in a sentence or two."""


class Painter:
    """Edits pictures with the demo model on the CPU, one at a time, from whichever thread. Raises NoPainter."""

    def __init__(self) -> None:
        try:
            import torch

            from ..kontext.checkpoint.reading import read_checkpoint
            from ..kontext.demo.shipped import demo_files
            from ..kontext.errors import KontextError
            from ..kontext.standalone.mount import mount
            from ..kontext.standalone.text import encode_words
            from ..kontext.standalone.vae import Autoencoder
        except ModuleNotFoundError as missing:
            raise NoPainter(f"{missing.name} is not installed.") from missing
        try:
            files = demo_files()
            checkpoint = read_checkpoint(files.transformer)
            self._model = mount(checkpoint, dtype=torch.float32, device=torch.device("cpu"))
            self._autoencoder = Autoencoder(files.vae, torch.device("cpu"), torch.float32)
            # a file that cannot be read is found out now, not by the first edit
            encode_words(files.text, ["paint"])
        except KontextError as error:
            raise NoPainter(str(error)) from error
        self._words, self._pixels = files.text, checkpoint.purpose.pixels
        self._turn = threading.Lock()

    def __call__(self, picture: Image.Image, edit: AskedEdit) -> Image.Image:
        """The edit of an RGB picture at the picture's own size; raises BadPicture where there is none."""
        from ..kontext.errors import KontextError

        small = picture.resize(self._size(picture), Image.Resampling.LANCZOS)
        try:
            with self._turn:
                made = self._edited(small, edit)
        except KontextError as error:
            raise BadPicture(str(error)) from error
        pixels = (made[0].clamp(0, 1) * 255).round().byte().numpy()
        return Image.fromarray(pixels).resize(picture.size, Image.Resampling.BICUBIC)

    def _edited(self, picture: Image.Image, edit: AskedEdit) -> torch.Tensor:
        import torch

        from ..kontext.edit import LatentEdit
        from ..kontext.standalone.sampler import sample
        from ..kontext.standalone.text import encode_words

        wanted = LatentEdit(*picture.size, edit.steps, edit.guidance, edit.seed % _SEEDS)
        (said,) = encode_words(self._words, [edit.prompt])
        reference = self._autoencoder.encode(torch.from_numpy(np.array(picture, np.float32) / 255)[None])
        return self._autoencoder.decode(sample(self._model, wanted, said, [reference]))

    def _size(self, picture: Image.Image) -> tuple[int, int]:
        """About as many pixels as the model was made for, in the picture's shape."""
        by = (self._pixels / (picture.width * picture.height)) ** 0.5
        width, height = (max(1, round(side * by / _MULTIPLE)) * _MULTIPLE for side in picture.size)
        return width, height
