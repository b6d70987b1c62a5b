"""An edit sampled inside ComfyUI: its sampler, previews and interruption, on Kontext's own schedule.

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import comfy.model_management  # type: ignore[import-not-found]
import comfy.sample  # type: ignore[import-not-found]
import comfy.samplers  # type: ignore[import-not-found]
import latent_preview  # type: ignore[import-not-found]
import torch

from ..checkpoint.layers import LATENT_CHANNELS
from ..edit import LatentEdit
from ..errors import BadRequest, NonFinite, OutOfMemory
from ..fp8.failures import is_out_of_memory
from ..goes_with import vae_of
from ..latents import noise
from ..schedule import schedule
from .belonging import check_encodings
from .carried import purpose_of

ComfyConditioning: TypeAlias = list[Any]
Callback: TypeAlias = Callable[[int, torch.Tensor, torch.Tensor, int], None]

_SEEDS = 2**64
_MEGAPIXEL = 1024 * 1024
_PIXELS = 8


def sample(
    model: Any,
    edit: LatentEdit,
    positive: ComfyConditioning,
    references: Sequence[torch.Tensor],
    *,
    seed: int,
    negative: ComfyConditioning | None = None,
    callback: Callback | None = None,
) -> torch.Tensor:
    """The edited latent [edit.batch, 16, height/8, width/8], in the VAE's scale, as ComfyUI hands LATENT on.

    positive, negative: CONDITIONING. references: latents [1 or batch, 16, h, w] in the VAE's scale. seed: 0 to
    2^64 - 1 in place of edit.seed; picture k of the batch uses seed + k. callback: for progress, ComfyUI's own with
    preview by default. Raises BadRequest, NonFinite, OutOfMemory saying what would fit.
    """
    if edit.true_cfg != 1 and negative is None:
        raise BadRequest("cfg compares with a negative prompt, and there is none. Connect one, or set cfg to 1.")
    check_encodings(model, positive, negative)
    _check(references, edit, vae_of(purpose_of(model)))
    height, width = edit.height // _PIXELS, edit.width // _PIXELS
    start = torch.cat([noise((seed + k) % _SEEDS, 1, height, width) for k in range(edit.batch)])
    extra = {"guidance": edit.guidance, "reference_latents": list(references)}
    conditions = [_with(condition, extra) for condition in (positive, negative or positive)]
    with _memory_errors_explained(model, edit, references):
        latent: torch.Tensor = comfy.sample.sample_custom(
            model,
            start,
            edit.true_cfg,
            comfy.samplers.sampler_object("euler"),
            schedule(edit.steps, height * width // 4),
            *conditions,
            torch.zeros_like(start, device=comfy.model_management.intermediate_device()),
            callback=callback or latent_preview.prepare_callback(model, edit.steps),
            seed=seed,
        )
    if not bool(torch.isfinite(latent).all()):
        raise NonFinite(
            f"Sampling gave NaN or infinity for seed {seed}. The model file or a LoRA is likely damaged, or a LoRA's "
            "strength far too high."
        )
    return latent


def _with(conditioning: ComfyConditioning, extra: dict[str, Any]) -> ComfyConditioning:
    """The conditioning with these values; references come after those it has."""
    changed = []
    for states, options in conditioning:
        earlier = options.get("reference_latents", [])
        changed.append([states, {**options, **extra, "reference_latents": [*earlier, *extra["reference_latents"]]}])
    return changed


def _check(references: Sequence[torch.Tensor], edit: LatentEdit, vae: str) -> None:
    """vae: what encodes pictures for this model."""
    for number, reference in enumerate(references, start=1):
        if reference.ndim != 4 or reference.shape[1] != LATENT_CHANNELS:
            raise BadRequest(
                f"Reference {number} is a latent of shape {list(reference.shape)}, which FLUX.1 does not use. Encode "
                f"the picture with {vae}."
            )
        if not bool(torch.isfinite(reference).all()):
            raise NonFinite(
                f"Reference {number} holds NaN or infinity, so that nothing could come of it. Encode the picture anew, "
                f"with {vae}."
            )
        if reference.shape[0] not in (1, edit.batch):
            raise BadRequest(
                f"Reference {number} has {reference.shape[0]} pictures for a batch of {edit.batch}. Give one, or one "
                "for each."
            )


@contextmanager
def _memory_errors_explained(model: Any, edit: LatentEdit, references: Sequence[torch.Tensor]) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not _is_memory(error):
            raise
        device = model.load_device
        total = comfy.model_management.get_total_memory(device)
        needed = _needed(model, edit, references)
        # The frames of the failed step hold its activations.
        traceback.clear_frames(error.__traceback__)
        # What ComfyUI itself does after such an error, if it recognises it.
        comfy.model_management.unload_all_models()
        free = comfy.model_management.get_free_memory(device)
        raise OutOfMemory(_advice(edit, needed, min(free, total)), needed, int(free)) from error


def _is_memory(error: RuntimeError) -> bool:
    # ComfyUI also knows drivers that call it something else.
    judge = getattr(comfy.model_management, "is_oom", None)
    return is_out_of_memory(error) or (judge is not None and bool(judge(error)))


def _needed(model: Any, edit: LatentEdit, references: Sequence[torch.Tensor]) -> int:
    """ComfyUI's own estimate of what a step takes beside the weights, in bytes."""
    shape = [edit.batch, LATENT_CHANNELS, edit.height // _PIXELS, edit.width // _PIXELS]
    pixels = sum(math.prod(reference.shape[2:]) for reference in references)
    shapes = {"ref_latents": [[1, LATENT_CHANNELS, pixels]]} if references else {}
    return int(model.model.memory_required(shape, cond_shapes=shapes))


def _advice(edit: LatentEdit, needed: int, free: float) -> str:
    size = edit.width * edit.height / _MEGAPIXEL
    # The estimate grows with the number of pixels; a fifth is left for what it does not see.
    fits = math.floor(size * 0.8 * free / needed * 10) / 10 if needed > 0 else 0.0
    told = (
        f"Not enough memory to edit {edit.batch} picture(s) at {edit.width}x{edit.height} ({size:.1f} megapixels): a "
        f"step takes about {needed / 1e9:.1f} GB beside the model, and {free / 1e9:.1f} GB are free without it. "
    )
    if edit.batch > 1:
        return f"{told}Edit one picture at a time."
    if 0.1 <= fits < size:
        return f"{told}At {fits:.1f} megapixels it would fit: set that in Kontext Prepare."
    return f"{told}Close other programs that use the GPU, or start ComfyUI with --lowvram."
