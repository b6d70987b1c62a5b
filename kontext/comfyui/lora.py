"""A LoRA file put on a MODEL of ComfyUI through ComfyUI's own patches, read and checked by this pack.

Plain LoRA are computed beside the FP8 weights. Other kinds become ComfyUI's own adapters, which change the written-out
weight at each use (patches.py).

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.ldm.flux.model  # type: ignore[import-not-found]
import comfy.utils  # type: ignore[import-not-found]
import comfy.weight_adapter  # type: ignore[import-not-found]

from ..checkpoint.layers import Size
from ..checkpoint.lora import read_lora
from ..checkpoint.lora_keys import BIAS, DIFF, DORA, DOWN, SET, UP
from ..checkpoint.lora_kinds import AdapterKind, Change, Patch
from ..errors import BadRequest, LoraError

_PREFIX = "diffusion_model."
_ADAPTERS = {
    AdapterKind.DORA: comfy.weight_adapter.LoRAAdapter,
    AdapterKind.LOHA: comfy.weight_adapter.LoHaAdapter,
    AdapterKind.LOKR: comfy.weight_adapter.LoKrAdapter,
    AdapterKind.OFT: comfy.weight_adapter.OFTAdapter,
    AdapterKind.BOFT: comfy.weight_adapter.BOFTAdapter,
    AdapterKind.GLORA: comfy.weight_adapter.GLoRAAdapter,
}
_NAMES = {DOWN: "lora_down.weight", UP: "lora_up.weight"}
# ComfyUI's key: a name, or a name, a place and what is done to the difference.
_Key = Any


def with_lora(model: Any, path: Path | str, strength: float) -> Any:
    """A clone of the MODEL with the LoRA; on FP8 layers of this pack it is computed beside them, never merged.

    strength: any finite number, 1 as trained, 0 leaves it out. Raises BadRequest for a MODEL that is no FLUX.1,
    LoraError as `read_lora` does.
    """
    if not math.isfinite(strength):
        raise BadRequest(f"The strength of the LoRA is {strength}; it must be a number.")
    lora = read_lora(path, size_of(model), every_kind=True)
    patched = model.clone()
    if strength == 0:
        return patched
    norms = ".weight" if _has_norm_weights(model) else ".scale"
    changes = [*map(_plain, lora.patches), *(_changed(change, norms) for change in lora.changes)]
    for patches in _rounds(changes):
        refused = set(patches) - set(patched.add_patches(patches, strength))
        if refused:
            raise LoraError(f"{Path(path).name} changes {_name(refused.pop())!r}, which this MODEL does not have.")
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


def _has_norm_weights(model: Any) -> bool:
    # ComfyUI calls them so since 0.14.
    return any(name.endswith("key_norm.weight") for name, _ in model.model.diffusion_model.named_parameters())


def _plain(patch: Patch) -> tuple[_Key, Any]:
    rows, rank = patch.up.shape
    # ComfyUI divides what it calls alpha by the rank.
    adapter = comfy.weight_adapter.LoRAAdapter(set(), (patch.up, patch.down, patch.scale * rank, None, None, None))
    return (f"{_PREFIX}{patch.layer}.weight", (0, patch.offset, rows)), adapter


def _changed(change: Change, norms: str) -> tuple[_Key, Any]:
    name, rows = f"{_PREFIX}{change.layer}", (0, change.offset, change.rows)
    tensors = change.tensors
    if change.kind is AdapterKind.BIAS:
        return (f"{name}.bias", rows), ("diff", (tensors[BIAS].float() * change.scale,))
    if change.kind in (AdapterKind.NORM, AdapterKind.DIFF, AdapterKind.SET):
        what = ("diff", (tensors[DIFF],)) if DIFF in tensors else ("set", (tensors[SET],))
    else:
        # ComfyUI fails for a BOFT without alpha, which stands for no constraint.
        alpha = 0.0 if change.alpha is None and change.kind is AdapterKind.BOFT else change.alpha
        named = {f"x.{_NAMES.get(part, part)}": tensor for part, tensor in tensors.items()}
        what = _ADAPTERS[change.kind].load("x", named, alpha, tensors.get(DORA), set())
    if change.kind is AdapterKind.NORM:
        return f"{name}{norms}", what
    if change.swapped:
        return (f"{name}.weight", rows, comfy.utils.swap_scale_shift), what
    return (f"{name}.weight", rows), what


def _rounds(changes: list[tuple[_Key, Any]]) -> Iterator[dict[_Key, Any]]:
    """The patches by ComfyUI's keys; a second one of the same rows needs a round of its own."""
    rounds: list[dict[_Key, Any]] = []
    for key, patch in changes:
        place = next((taken for taken in rounds if key not in taken), None)
        if place is None:
            place = {}
            rounds.append(place)
        place[key] = patch
    yield from rounds


def _name(key: _Key) -> str:
    return key if isinstance(key, str) else str(key[0])
