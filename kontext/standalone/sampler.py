"""An edit in latent space: flow-matching Euler from noise to a picture, over one schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..checkpoint.layers import LATENT_CHANNELS
from ..edit import MULTIPLE, LatentEdit
from ..errors import BadRequest, NonFinite, Stopped
from ..fast.evaluations import Run
from ..fast.measured import Clock
from ..fast.tally import Tally
from ..fast.wishes import Wishes
from ..fp8.compute import Linear
from ..goes_with import other_encoder
from ..latents import noise, pack, unpack
from ..schedule import schedule
from .denoiser import Conditioning, Denoiser, Exact, placement
from .memory import reported

_PIXELS = 8
_REMEDY = "Choose a smaller size, fewer references or a batch of one, or keep the modulation layers on the CPU."
# Peak memory of one step in units of tokens * width * bytes, generously: the widest rows (5 H in, 7 H out) and the
# float32 copies that the rotary embedding makes.
_ACTIVATIONS = 32


@dataclass(frozen=True)
class Step:
    """What a step has done. number: from 1. latent: after it. preview: the finished picture as foreseen now.

    Both are [B, 16, h, w] float32 in the transformer's scale.
    """

    number: int
    steps: int
    sigma: float
    latent: torch.Tensor
    preview: torch.Tensor


def sample(
    model: Any,
    edit: LatentEdit,
    positive: Conditioning,
    references: Sequence[torch.Tensor] = (),
    *,
    negative: Conditioning | None = None,
    on_step: Callable[[Step], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    start: torch.Tensor | None = None,
    sigmas: torch.Tensor | None = None,
    exact: Exact | None = None,
    compiled: bool = False,
    fast: Wishes | None = None,
    tally: Tally | None = None,
    clock: Clock | None = None,
) -> torch.Tensor:
    """The edited latent [batch, 16, height/8, width/8], float32, on the model's device.

    references: latents [1 or batch, 16, h, w], h and w even. on_step is called after each step, and may raise to
    end the edit; should_stop is asked before each. start: noise instead of the seed's. sigmas: [steps + 1] instead
    of Kontext's schedule. fast: what may be approximated; tally: where what is left out is
    counted. clock: has each call's seconds. Raises BadRequest, NonFinite naming the step, Stopped, OutOfMemory.
    """
    height, width = edit.height // _PIXELS, edit.width // _PIXELS
    sigmas = schedule(edit.steps, height * width // 4) if sigmas is None else _own_schedule(sigmas, edit.steps)
    latent = noise(edit.seed, edit.batch, height, width) if start is None else start.float()
    for prompt in (positive, negative):
        if prompt is not None and prompt.text.shape[-1] != model.context_embedder.in_features:
            raise other_encoder(prompt.text.shape[-1], model.context_embedder.in_features)
    _check(edit, latent, positive, negative, references, (height, width))
    tokens = sum(r.shape[2] * r.shape[3] for r in references) // 4 + height * width // 4 + positive.text.shape[1]
    device, dtype = placement(model)
    peak = edit.batch * tokens * model.inner_dim * dtype.itemsize * _ACTIVATIONS
    with torch.inference_mode(), reported(device, peak, f"edit at {edit.width}x{edit.height}", _REMEDY):
        common = (references, height, width, sigmas, edit.guidance)
        run = Run(fast, height, width, tally or Tally()) if fast else None
        options: dict[str, Any] = {"method": edit.method, "exact": exact, "compiled": compiled, "fast": run}
        predict = Denoiser(model, positive, *common, **options)
        against = None
        if negative is not None and edit.true_cfg != 1:
            against = Denoiser(model, negative, *common, **options)
        x = pack(latent.to(device))
        for number, (sigma, following) in enumerate(zip(sigmas.tolist(), sigmas[1:].tolist(), strict=False)):
            if should_stop is not None and should_stop():
                raise Stopped(number, edit.steps)
            take = partial(_guided, predict, against, edit.true_cfg, x, number)
            velocity = take() if clock is None else clock.timed(device, take)
            if not bool(torch.isfinite(velocity).all()):
                raise NonFinite(_blame(model, predict, x, number, edit.steps))
            foreseen = x - sigma * velocity
            x = x + (following - sigma) * velocity
            if on_step is not None:
                shown = [unpack(tensor, height, width) for tensor in (x, foreseen)]
                on_step(Step(number + 1, edit.steps, following, *shown))
        return unpack(x, height, width)


def _guided(predict: Denoiser, against: Denoiser | None, strength: float, x: torch.Tensor, step: int) -> torch.Tensor:
    velocity = predict(x, step)
    if against is None:
        return velocity
    other = against(x, step)
    return other + strength * (velocity - other)


def _own_schedule(sigmas: torch.Tensor, steps: int) -> torch.Tensor:
    if sigmas.ndim != 1 or len(sigmas) != steps + 1 or not bool((sigmas.diff() < 0).all()) or sigmas[-1] < 0:
        raise BadRequest(f"A schedule of {steps} steps is {steps + 1} falling noise levels, the last at least 0.")
    return sigmas.float().cpu()


def _check(
    edit: LatentEdit,
    latent: torch.Tensor,
    positive: Conditioning,
    negative: Conditioning | None,
    references: Sequence[torch.Tensor],
    size: tuple[int, int],
) -> None:
    if latent.shape != (edit.batch, LATENT_CHANNELS, *size):
        raise BadRequest(f"The starting noise has the shape {list(latent.shape)}, which is not that of the edit.")
    if edit.true_cfg != 1 and negative is None:
        raise BadRequest("True CFG compares with a negative prompt, and there is none. Give one, or set it to 1.")
    for number, reference in enumerate(references, start=1):
        if reference.ndim != 4 or reference.shape[1] != LATENT_CHANNELS or any(n % 2 for n in reference.shape[2:]):
            raise BadRequest(
                f"Reference {number} has the latent shape {list(reference.shape)}; it must be [batch, "
                f"{LATENT_CHANNELS}, even, even]. Fit the picture to a multiple of {MULTIPLE} pixels first."
            )
        if reference.shape[0] not in (1, edit.batch):
            raise BadRequest(f"Reference {number} has {reference.shape[0]} pictures for a batch of {edit.batch}.")
    named = [("the starting noise", latent), ("the prompt's encoding", positive.text), ("its summary", positive.pooled)]
    named += [(f"the latent of reference {number}", reference) for number, reference in enumerate(references, start=1)]
    if negative is not None:
        named += [("the negative prompt's encoding", negative.text), ("its summary", negative.pooled)]
    for what, tensor in named:
        if not bool(torch.isfinite(tensor).all()):
            raise NonFinite(f"NaN or infinity before the first step, in {what}. Whatever made it is at fault.")


def _blame(model: Any, predict: Denoiser, x: torch.Tensor, step: int, steps: int) -> str:
    """Which layer is the first to give something that is no number; found by taking the step once more."""
    culprits: list[str] = []

    def watch(name: str) -> Callable[[Any, Any, torch.Tensor], None]:
        def hook(module: Any, inputs: Any, out: torch.Tensor) -> None:
            if not culprits and not bool(torch.isfinite(out).all()):
                culprits.append(name)

        return hook

    hooks = [
        module.register_forward_hook(watch(name))
        for name, module in model.named_modules()
        if isinstance(module, Linear)
    ]
    try:
        predict(x, step)
    finally:
        for hook in hooks:
            hook.remove()
    where = f"first in {culprits[0]}" if culprits else "outside the linear layers"
    return (
        f"NaN or infinity at step {step + 1} of {steps}, {where}. The model file or a LoRA is likely damaged, or a "
        "LoRA's strength far too high."
    )
