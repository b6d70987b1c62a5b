"""How much memory a device has left, and an error that says how much is missing before the device runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..errors import OutOfMemory
from ..fp8.failures import is_out_of_memory

_MEMINFO = Path("/proc/meminfo")


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can still be allocated on the device, or None where the system does not say."""
    if device.type == "cuda":
        # What torch has cached and does not use counts as free: it is given out again.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "cpu" and _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def require(device: torch.device, needed: int, purpose: str, remedy: str) -> None:
    """Raise OutOfMemory, saying how much is missing and what to change, unless `needed` bytes are free."""
    free = free_bytes(device)
    if free is not None and needed > free:
        raise OutOfMemory(_text(purpose, needed, free, device, remedy), needed, free)


@contextmanager
def reported(device: torch.device, needed: int, purpose: str, remedy: str) -> Iterator[None]:
    """Turns the device's own out-of-memory error into OutOfMemory. needed: an estimate in bytes."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        free = free_bytes(device) or 0
        raise OutOfMemory(_text(purpose, needed, free, device, remedy), needed, free) from error


def _text(purpose: str, needed: int, free: int, device: torch.device, remedy: str) -> str:
    missing = f"{(needed - free) / 1e9:.1f} GB are missing. " if needed > free else "The memory is fragmented. "
    return (
        f"Not enough memory on {device} to {purpose}: about {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB "
        f"are free. {missing}{remedy}"
    )
