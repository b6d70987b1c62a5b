"""What tells a file from another under the same name, without reading all of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

# Up to here a file is read whole.
_SMALL = 4 << 20
_PIECES = 128
_PIECE = 4096
_WEIGHTS = ("*.safetensors", "*.bin")


def likeness(paths: Iterable[Path]) -> str:
    """A digest of files; the same for copies of them, whatever their times say. Raises OSError.

    Of a large file: its size, and 128 pieces spread evenly over it, its first and its last bytes among them. A header
    alone would not tell two states of one training from each other, which have the same names and shapes; nearly all of
    their weights differ.
    """
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{size}\n".encode())
        with path.open("rb") as file:
            if size <= _SMALL:
                digest.update(hashlib.sha256(file.read()).digest())
                continue
            for number in range(_PIECES):
                file.seek(number * (size - _PIECE) // (_PIECES - 1))
                digest.update(file.read(_PIECE))
    return digest.hexdigest()[:16]


def weights_in(path: Path, parts: Sequence[str]) -> list[Path]:
    """The files with the weights of a model that is a file or a folder, in order.

    parts: the folders below it that are looked into where they are there, as in a diffusers folder; else it itself.
    """
    if path.is_file():
        return [path]
    folders = [path / part for part in parts if (path / part).is_dir()] or [path]
    found = []
    for folder in folders:
        of_a_kind = (sorted(folder.glob(pattern)) for pattern in _WEIGHTS)
        found += next(filter(None, of_a_kind), [])
    return [file for file in found if file.is_file()]
