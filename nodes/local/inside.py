"""Work that needs ComfyUI around it, with a word for those who run a workflow without."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ...kontext.errors import KontextError

T = TypeVar("T")


def inside_comfyui(work: Callable[[], T]) -> T:
    """What the work gives; raises KontextError where there is no ComfyUI."""
    try:
        return work()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"comfy", "latent_preview"}:
            raise
        raise KontextError(
            "The local nodes sample inside ComfyUI, and this is a run without it. Run the workflow in ComfyUI, or use "
            "Kontext Edit (Oxen) in its place."
        ) from error
