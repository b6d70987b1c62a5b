"""A LoRA file put on a MODEL of ComfyUI through ComfyUI's own patches, read and checked by this pack.

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import comfy.ldm.flux.model  # type: ignore[import-not-found]
import comfy.weight_adapter  # type: ignore[import-not-found]

from .errors import BadRequest, LoraError
from .layers import Size
from .lora import Patch, read_lora

_PREFIX = "diffusion_model."
_Key = tuple[str, tuple[int, int, int]]


def with_lora(model: Any, path: Path | str, strength: float) -> Any:
    """A clone of the MODEL with the LoRA; on FP8 layers of this pack it is computed beside them, never merged.

    strength: any finite number, 1 as trained, 0 leaves it out. Raises BadRequest for a MODEL that is no FLUX.1,
    LoraError as `read_lora` does.
    """
    if not math.isfinite(strength):
        raise BadRequest(f"The strength of the LoRA is {strength}; it must be a number.")
    lora = read_lora(path, size_of(model))
    patched = model.clone()
    if strength == 0:
        return patched
    for patches in _rounds(lora.patches):
        refused = set(patches) - set(patched.add_patches(patches, strength))
        if refused:
            raise LoraError(f"{Path(path).name} changes {sorted(refused)[0][0]!r}, which this MODEL does not have.")
    return patched


def size_of(model: Any) -> Size:
    """The sizes of a MODEL that is FLUX.1. Raises BadRequest for any other."""
    flux = model.model.diffusion_model
    if not isinstance(flux, comfy.ldm.flux.model.Flux) or flux.params.vec_in_dim is None:
        raise BadRequest(f"This MODEL is {type(model.model).__name__}, not FLUX.1. Connect Load Kontext (FP8).")
    params = flux.params
    return Size(
        hidden=params.hidden_size,
        doubles=params.depth,
        singles=params.depth_single_blocks,
        context=params.context_in_dim,
        pooled=params.vec_in_dim,
    )


def _rounds(patches: tuple[Patch, ...]) -> list[dict[_Key, Any]]:
    """The patches by ComfyUI's keys; a second one of the same rows needs a round of its own."""
    rounds: list[dict[_Key, Any]] = []
    for patch in patches:
        rows, rank = patch.up.shape
        key = (f"{_PREFIX}{patch.layer}.weight", (0, patch.offset, rows))
        # ComfyUI divides what it calls alpha by the rank.
        adapter = comfy.weight_adapter.LoRAAdapter(set(), (patch.up, patch.down, patch.scale * rank, None, None, None))
        place = next((taken for taken in rounds if key not in taken), None)
        if place is None:
            place = {}
            rounds.append(place)
        place[key] = adapter
    return rounds
