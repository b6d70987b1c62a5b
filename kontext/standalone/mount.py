"""A checkpoint mounted into diffusers' FluxTransformer2DModel, with this pack's linear in every place of nn.Linear.

The model is built without weights and gets the file's tensors one layer at a time: FP8 bytes go to the device as
they are (on a CPU they stay the file's memory map), wide block layers are quantised on the way, and nothing is
ever held twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..checkpoint.bfl import stacked
from ..checkpoint.layers import AXES, HEAD, PATCHED_CHANNELS, Naming, Role, Size, layers, norms
from ..checkpoint.reading import Checkpoint, Weights
from ..errors import BadRequest
from ..fp8.compute import Compute, Linear, require_finite
from ..fp8.devices import holds_fp8
from ..fp8.formats import quantise_rows
from . import optional
from .memory import reported, require

logger = logging.getLogger(__name__)

COMPUTE_TYPES = (torch.bfloat16, torch.float32)
_REMEDY = "Close other programs that use this device, use an FP8 file, or keep the modulation layers on the CPU."


def mount(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    modulation_device: torch.device | str | None = None,
    compute: Compute = Compute.AUTO,
    quantise: bool = True,
) -> Any:
    """A FluxTransformer2DModel on `device` that computes in `dtype` (bfloat16 or float32).

    modulation_device: where the modulation layers stay, 27 % of all parameters, which an edit needs only before
    its first step; by default the same device. compute: how FP8 weights are multiplied. quantise: whether the
    block layers of a 16- or 32-bit file become FP8, with a scale a row, where the device has 8-bit floats.
    Raises NonFinite naming a damaged layer, OutOfMemory, MissingPackage without diffusers, UnsupportedDevice for FP8
    weights on a device without 8-bit floats.
    """
    if dtype not in COMPUTE_TYPES:
        raise BadRequest(f"FLUX.1 Kontext is computed in bfloat16 or float32, not in {dtype}.")
    device = torch.device(device)
    places = dict.fromkeys(Role, device)
    places[Role.MODULATION] = device if modulation_device is None else torch.device(modulation_device)
    checkpoint, quantise = checkpoint.kept_on(device), quantise and holds_fp8(device)
    needed = device, _needed(checkpoint, places, device, quantise), f"load {checkpoint.path.name}", _REMEDY
    if device.type != "cpu":
        require(*needed)
    with reported(*needed):
        model = _filled(checkpoint, places, dtype, compute, quantise)
    for name, scale in _diffusers_norms(checkpoint):
        norm = model.get_submodule(name)
        norm.weight = nn.Parameter(require_finite(scale.to(device, dtype), name), requires_grad=False)
    if doubts := checkpoint.doubts():
        logger.warning("%s", doubts)
    logger.info("Mounted %s on %s", checkpoint.describe(), device)
    return model.eval()


def _filled(
    checkpoint: Checkpoint,
    places: dict[Role, torch.device],
    dtype: torch.dtype,
    compute: Compute,
    quantise: bool,
) -> Any:
    """The model with all its linear layers."""
    model = _empty(checkpoint.size)
    for name, weights in _diffusers_layers(checkpoint, places, quantise):
        # Modulation is one row a step: a quantised input would cost accuracy and win no time.
        exact = not weights.role.in_block or weights.full_precision
        mode = Compute.STORAGE if exact and compute is not Compute.REFERENCE else compute
        bias = weights.bias.to(weights.weight.device, dtype)
        weight = weights.weight
        if weights.scale is None and weights.role is not Role.MODULATION:
            weight = weight.to(dtype)
        _replace(model, name, Linear(weight, weights.scale, bias, mode, centred=weights.role is Role.NORMED))
    return model


def _empty(size: Size) -> Any:
    diffusers = optional.load("diffusers")
    with torch.device("meta"):
        return diffusers.FluxTransformer2DModel(
            in_channels=PATCHED_CHANNELS,
            num_layers=size.doubles,
            num_single_layers=size.singles,
            attention_head_dim=HEAD,
            num_attention_heads=size.heads,
            joint_attention_dim=size.context,
            pooled_projection_dim=size.pooled,
            guidance_embeds=True,
            axes_dims_rope=AXES,
        )


def _needed(checkpoint: Checkpoint, places: dict[Role, torch.device], device: torch.device, quantise: bool) -> int:
    return sum(
        weights.weight.numel() if quantise and weights.role.in_block else weights.weight.nbytes
        for weights in checkpoint.linears.values()
        if places[weights.role] == device
    )


def _diffusers_layers(
    checkpoint: Checkpoint, places: dict[Role, torch.device], quantise: bool
) -> Iterator[tuple[str, Weights]]:
    """Every layer by its diffusers name, on its device; BFL's fused ones cut into row slices, which share memory."""
    if checkpoint.naming is Naming.DIFFUSERS:
        for name, weights in checkpoint.linears.items():
            yield name, _placed(checkpoint, name, weights, places[weights.role], quantise)
        return
    for layer in layers(checkpoint.size):
        weights = checkpoint.linears[layer.bfl]
        placed = _placed(checkpoint, layer.bfl, weights, places[weights.role], quantise)
        slices: dict[str, dict[int, Weights]] = {}
        for start, part in layer.placed_parts():
            slices.setdefault(part.name, {})[part.offset] = placed.rows(start, part.rows)
        for name, pieces in slices.items():
            yield name, stacked([pieces[offset] for offset in sorted(pieces)])


def _placed(checkpoint: Checkpoint, name: str, weights: Weights, device: torch.device, quantise: bool) -> Weights:
    weight = require_finite(weights.weight.to(device), f"{checkpoint.path.name}: {name}.weight")
    bias = require_finite(weights.bias.to(device), f"{checkpoint.path.name}: {name}.bias")
    scale = None if weights.scale is None else weights.scale.to(device)
    if scale is None and quantise and weights.role.in_block and not checkpoint.is_fp8:
        weight, by_row = quantise_rows(weight)
        scale = by_row[:, 0].contiguous()
    if weight is not weights.weight:
        checkpoint.release(name)
    return Weights(weight, scale, bias, weights.role, weights.full_precision)


def _diffusers_norms(checkpoint: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:
    for norm in norms(checkpoint.size):
        name = norm.diffusers if checkpoint.naming is Naming.DIFFUSERS else norm.bfl
        yield norm.diffusers, checkpoint.norms[name]


def _replace(model: nn.Module, name: str, linear: Linear) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, linear)
