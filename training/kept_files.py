"""The files of a work folder: written whole or not at all, and read with a word on what is amiss."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ..kontext.errors import DamagedFile, KontextError

_UNREADABLE = (OSError, SafetensorError, RuntimeError, ValueError)


def put_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a .safetensors file; what was there stays whole until the new one is. Raises KontextError."""
    _put(path, lambda fresh: save_file(dict(tensors), fresh, metadata=metadata))


def put_state(state: Any, path: Path) -> None:
    """Writes a state as torch does; what was there stays whole until the new one is. Raises KontextError."""
    packed = io.BytesIO()
    torch.save(state, packed)
    _put(path, lambda fresh: fresh.write_bytes(packed.getbuffer()))


def tensors_of(path: Path, remedy: str, device: str | torch.device = "cpu") -> dict[str, torch.Tensor]:
    """What a .safetensors file holds. remedy: what to do where it is missing or damaged; raises DamagedFile with it."""
    if not path.is_file():
        raise DamagedFile(f"There is no {path}. {remedy}")
    try:
        return load_file(path, device=str(device))
    except _UNREADABLE as error:
        raise DamagedFile(f"{path} cannot be read. {remedy}") from error


def state_of(path: Path, device: str | torch.device, remedy: str) -> Any:
    """What `put_state` wrote; raises DamagedFile as `tensors_of` does."""
    try:
        return torch.load(path, weights_only=True, map_location=device)
    # A damaged archive comes to torch's own unpickler, which raises whatever it stumbles over.
    except Exception as error:
        raise DamagedFile(f"{path} cannot be read. {remedy}") from error


def metadata_of(path: Path) -> dict[str, str]:
    """What a .safetensors file tells beside its tensors; nothing of one that is missing or cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except _UNREADABLE:
        return {}


def digest(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _put(path: Path, write: Callable[[Path], object]) -> None:
    fresh = path.with_name(f"{path.name}.new")
    try:
        write(fresh)
        fresh.replace(path)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise KontextError(f"{path} could not be written: {error}. What was there before is as it was.") from error
    finally:
        fresh.unlink(missing_ok=True)
