"""Attention by the kernel that torch chooses by itself, where that is clearly faster than ComfyUI's order of kernels.

ComfyUI has torch try its flash kernel first, and cuDNN's after it. On NVIDIA's Hopper and later data centre GPUs torch
itself takes cuDNN's, which on an H100 is about twice as fast at Kontext's size, where attention is a third of all
arithmetic. So each such GPU is tried once, and only where torch's choice is clearly faster, and gives the same numbers,
is a MODEL given it, by the option that ComfyUI has for this. Another node that sets the option has its way, and so has
whoever started ComfyUI with another attention.

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import Any

import comfy.ops  # type: ignore[import-not-found]
import torch
from comfy.ldm.modules import attention as theirs  # type: ignore[import-not-found]
from torch.nn import functional

from ..checkpoint.layers import HEAD
from ..fp8.devices import name_of
from ..fp8.failures import REFUSALS, first_line, is_about_the_machine, is_out_of_memory

logger = logging.getLogger(__name__)

_OPTION = "optimized_attention_override"
# Where cuDNN's kernel is no faster, on all that came before, a trial would only cost time.
_HOPPER = (9, 0)
# What is nearly alike would be told apart by chance, and each kernel rounds otherwise.
_CLEARLY_FASTER = 0.9
# The same attention by two kernels in 16 bits differs by their rounding, some thousandths.
_STRAYED = 0.02
_HEADS, _TOKENS, _TYPES = 24, 4096, (torch.bfloat16, torch.float16)
# What ComfyUI's own attention by torch is given and makes nothing of.
_IGNORED = {"attn_precision", "transformer_options", "_inside_attn_wrapper"}


@dataclass(frozen=True)
class Trial:
    """Seconds of one attention in ComfyUI's order of kernels and by torch's own choice, and whether they agree."""

    ordered: float
    chosen: float
    same: bool

    @property
    def won(self) -> bool:
        return self.same and self.chosen < _CLEARLY_FASTER * self.ordered


# None where there is nothing to choose, or the trial failed.
_TRIED: dict[torch.device, Trial | None] = {}


def let_torch_choose(patcher: Any, device: torch.device) -> str:
    """Have the MODEL's runs take torch's choice, where that won on the device. Gives what to say of it, or nothing."""
    if device not in _TRIED:
        try:
            _TRIED[device] = _tried(device) if _may_choose(device) else None
        # The trial is no need: whatever else is on the GPU, the model can be loaded, and be tried with the next.
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            logger.info("There is no room on %s to try attention: %s", name_of(device), first_line(error))
    trial = _TRIED.get(device)
    if trial is None or not trial.won:
        return ""
    ordered, chosen = trial.ordered * 1e3, trial.chosen * 1e3
    patcher.model_options.setdefault("transformer_options", {})[_OPTION] = _as_torch_chooses
    return f"Attention: torch's own choice of kernel, {chosen:.2f} ms in place of {ordered:.2f} ms in ComfyUI's order"


def _may_choose(device: torch.device) -> bool:
    """Whether ComfyUI orders torch's kernels there, and nobody asked for another attention."""
    return (
        device.type == "cuda"
        and torch.version.hip is None
        and hasattr(comfy.ops, "SDPA_BACKEND_PRIORITY")
        and theirs.optimized_attention is theirs.attention_pytorch
        and torch.cuda.get_device_capability(device) >= _HOPPER
    )


def _tried(device: torch.device) -> Trial | None:
    try:
        q, k, v = (_waves(number, device) for number in range(3))
        outs = [attend(q, k, v) for attend in (comfy.ops.scaled_dot_product_attention, _plainly)]
        one, other = (out.float() for out in outs)
        same = bool((one - other).norm() < _STRAYED * one.norm())
        trial = Trial(_seconds(comfy.ops.scaled_dot_product_attention, q, k, v), _seconds(_plainly, q, k, v), same)
    except REFUSALS as error:
        if is_about_the_machine(error):
            raise
        logger.info("Attention was not tried on %s: %s", name_of(device), first_line(error))
        return None
    logger.info("Attention on %s: %s", name_of(device), trial)
    return trial


def _plainly(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(q, k, v)


def _waves(number: int, device: torch.device) -> torch.Tensor:
    """Numbers of a size that attention sees, alike in every run."""
    waves = torch.arange(_HEADS * _TOKENS * HEAD, device=device, dtype=torch.float32).add_(number).mul_(math.e).sin_()
    return waves.view(1, _HEADS, _TOKENS, HEAD).to(torch.bfloat16)


def _seconds(attend: Any, *given: torch.Tensor) -> float:
    device, taken = given[0].device, []
    for _ in range(6):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        # One after the other, so that a GPU need not wait for the computer.
        for _ in range(4):
            attend(*given)
        torch.cuda.synchronize(device)
        taken.append((time.perf_counter() - start) / 4)
    return min(taken)


def _as_torch_chooses(function: Any, *given: Any, **named: Any) -> Any:
    """In place of `function`, which ComfyUI would have called with these: FLUX's plain attention, and no other.

    given: q, k, v [B, heads, tokens, HEAD] and heads. Gives [B, tokens, heads * HEAD], or as q where asked to.
    """
    q = given[0]
    trial = _TRIED.get(q.device)
    wanted = {name: value for name, value in named.items() if name not in _IGNORED}
    plain = len(given) == 4 and wanted.pop("mask", None) is None and wanted.pop("skip_reshape", False)
    as_q = wanted.pop("skip_output_reshape", False)
    # ComfyUI cuts larger batches up.
    small = len(q) <= theirs.SDP_BATCH_LIMIT and q.dtype in _TYPES
    if trial is None or not trial.won or not plain or wanted or not small:
        return function(*given, **named)
    out = _plainly(*given[:3])
    return out if as_q else out.transpose(1, 2).flatten(2)
