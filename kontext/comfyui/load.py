"""A Kontext checkpoint as an ordinary MODEL of ComfyUI, in FP8.

ComfyUI builds its own Flux around the layers of ops.py, so that text encoders, conditioning, samplers,
previews, ControlNets and the memory manager are ComfyUI's own. The file is read here, since ComfyUI's loader takes
any file and says nothing of what it leaves out.

Only for a running ComfyUI: importing this imports comfy. Call it on ComfyUI's worker thread: tensors made elsewhere
are no inference tensors, and the two do not mix.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management  # type: ignore[import-not-found]
import comfy.sd  # type: ignore[import-not-found]
import torch
from comfy.patcher_extension import CallbacksMP  # type: ignore[import-not-found]
from comfy_api.torch_helpers import set_torch_compile_wrapper  # type: ignore[import-not-found]

from ..checkpoint.bfl import bfl_layers, bfl_norms
from ..checkpoint.layers import Role, Size, layers
from ..checkpoint.reading import Checkpoint, Weights, read_checkpoint
from ..errors import CheckpointError
from ..fp8.compilers import require_compiler
from ..fp8.compute import Compute, require_finite
from ..fp8.devices import holds_fp8
from ..fp8.failures import first_line, is_out_of_memory
from ..fp8.formats import E4M3, FORMATS, quantise_rows
from ..fp8.quantising import join_on
from .attention import let_torch_choose
from .belonging import refuse_other_encoders
from .carried import carry
from .disk import comfyui_reads_files, given_by_comfyui, take_out_of_files
from .numbers import answer_with_numbers
from .ops import Operations, Plan, fp8_on
from .patches import follow_patches, layers_of
from .saving import save_as_fp8
from .steps import foresee_steps
from .uncompiled import sample_uncompiled

logger = logging.getLogger(__name__)

_PREFIX = "diffusion_model."
_KEY = "kontext_bridge_products"


@dataclass(frozen=True)
class Loaded:
    """A MODEL, and what there is to know about it, a fact a line."""

    model: Any
    description: str


def load(path: Path | str, compute: Compute = Compute.AUTO, *, compiled: bool = False, pruned: bool = False) -> Loaded:
    """The Kontext model in a file, as ComfyUI's ModelPatcher.

    compute: Compute.FP8 multiplies in FP8, Compute.STORAGE only stores in FP8, AUTO picks what the device can.
    compiled: each block goes through torch.compile, without dynamic VRAM, which a compiler cannot follow. 16- and
    32-bit files become FP8 with a scale a row, where the device has 8-bit floats. Raises CheckpointError for a file
    that is no Kontext model, NonFinite naming a damaged layer, UnsupportedDevice where FP8 arithmetic is demanded and
    there is none, and for an FP8 file where there are no 8-bit floats; BadRequest where it cannot be compiled.
    """
    device = comfy.model_management.get_torch_device()
    checkpoint = _checked(path, pruned, disable_dynamic=compiled).kept_on(device)
    if compiled:
        require_compiler(device)
    if compute is Compute.FP8:
        fp8_on(device).required()
    patcher = _build(checkpoint, compute, compiled=compiled, disable_dynamic=compiled)
    patcher.cached_patcher_init = (_rebuild, (path, compute, compiled, pruned))
    # Compiled blocks were not tried with it.
    attention = "" if compiled else let_torch_choose(patcher, device)
    doubts = checkpoint.doubts()
    if doubts:
        logger.warning("%s", doubts)
    return Loaded(
        patcher, "\n".join(filter(None, (_describe(checkpoint, patcher, compute, device), attention, doubts)))
    )


def _rebuild(path: Path | str, compute: Compute, compiled: bool, pruned: bool, disable_dynamic: bool = False) -> Any:
    """The same model once more, for ComfyUI: on another GPU, or without dynamic VRAM."""
    disable_dynamic = disable_dynamic or compiled
    checkpoint = _checked(path, pruned, disable_dynamic=disable_dynamic)
    checkpoint = checkpoint.kept_on(comfy.model_management.get_torch_device())
    return _build(checkpoint, compute, compiled=compiled, disable_dynamic=disable_dynamic)


def _checked(path: Path | str, pruned: bool, *, disable_dynamic: bool) -> Checkpoint:
    # Dynamic VRAM pins copies, and not what is mapped.
    return read_checkpoint(path, pruned=pruned, read_only=comfyui_reads_files() and not disable_dynamic)


def _build(checkpoint: Checkpoint, compute: Compute, *, compiled: bool, disable_dynamic: bool) -> Any:
    state: dict[str, torch.Tensor] = {}
    plans: dict[str, Plan] = {}
    always_read = {} if compiled else _always_read(checkpoint.size)
    among_fp8 = compute is not Compute.STORAGE and _may_be_multiplied(checkpoint)
    for name, weights in _placed(checkpoint):
        state[f"{name}.weight"] = weights.weight
        state[f"{name}.bias"] = weights.bias
        if weights.scale is not None:
            state[f"{name}.weight_scale"] = weights.scale
        # Modulation is one row a step: a quantised input would cost accuracy and win no time.
        exact = weights.full_precision or not weights.role.in_block
        plans[_PREFIX + name] = Plan(
            Compute.STORAGE if exact else compute,
            full_precision=weights.full_precision,
            centred=weights.role is Role.NORMED,
            number=None if weights.scale is None or weights.scale.ndim else weights.scale.item(),
            among_fp8=among_fp8,
            compiled=compiled,
            always_read=always_read.get(name),
        )
    for name, norm in bfl_norms(checkpoint):
        state[f"{name}.scale"] = _vector(require_finite(norm, f"{checkpoint.path.name}: {name}"))
    if not disable_dynamic:
        state = given_by_comfyui(state, checkpoint)
    take_out_of_files(state, checkpoint)
    options = {"custom_operations": Operations, "dtype": torch.bfloat16}
    patcher = comfy.sd.load_diffusion_model_state_dict(state, model_options=options, disable_dynamic=disable_dynamic)
    if patcher is None:
        raise CheckpointError(f"This ComfyUI cannot build the model in {checkpoint.path.name}. Update ComfyUI.")
    named = dict(layers_of(patcher))
    modulation = [named[_PREFIX + layer.bfl] for layer in layers(checkpoint.size) if layer.role is Role.MODULATION]
    steps = None if compiled else foresee_steps(patcher, [*modulation])
    for name, layer in named.items():
        is_foreseen = layer in modulation or plans[name].always_read is not None
        layer.begin(plans[name], steps if is_foreseen else None)
    if compute is not Compute.STORAGE:
        patcher.add_callback_with_key(CallbacksMP.ON_LOAD, _KEY, _loaded)
    sample_uncompiled(patcher)
    refuse_other_encoders(patcher)
    follow_patches(patcher)
    answer_with_numbers(patcher)
    save_as_fp8(patcher, checkpoint.purpose)
    carry(patcher, checkpoint.purpose)
    if compiled:
        _compile(patcher, checkpoint.size)
    return patcher


def _loaded(patcher: Any, device: torch.device, *_: Any) -> None:
    # A model may be sent to another GPU than it was loaded for, and inside a compiled graph none can be tried.
    if fp8_on(device).product is not None and device.type == "cuda":
        # Settled already, unless there was no room for it with an earlier model.
        join_on(device)


def _always_read(size: Size) -> dict[str, int]:
    """The layers of the last block, with the number of outputs that are read of every row."""
    if not size.singles:
        return {}
    last = f"single_blocks.{size.singles - 1}"
    # The first layer gives query, key and value, which attention mixes, and then what only its own row needs.
    return {f"{last}.linear1": 3 * size.hidden, f"{last}.linear2": 0}


def _may_be_multiplied(checkpoint: Checkpoint) -> bool:
    """Whether any layer's weight is one that FP8 products take."""
    blocks = [weights for weights in checkpoint.linears.values() if weights.role.in_block]
    return not checkpoint.is_fp8 or any(one.weight.dtype == E4M3 and not one.full_precision for one in blocks)


def _compile(patcher: Any, size: Size) -> None:
    blocks = [f"{_PREFIX}double_blocks.{i}" for i in range(size.doubles)]
    blocks += [f"{_PREFIX}single_blocks.{i}" for i in range(size.singles)]
    set_torch_compile_wrapper(patcher, backend="inductor", keys=blocks)


def _placed(checkpoint: Checkpoint) -> Iterator[tuple[str, Weights]]:
    """Every layer, checked; the block layers of a wide file in FP8."""
    for name, weights in bfl_layers(checkpoint):
        what = f"{checkpoint.path.name}: {name}"
        weight, scale = require_finite(weights.weight, f"{what}.weight"), weights.scale
        device = comfy.model_management.get_torch_device()
        if scale is None and weights.role.in_block and not checkpoint.is_fp8 and holds_fp8(device):
            quantised, by_row = _quantised(weight, device)
            weight, scale = quantised.to(weight.device), by_row[:, 0].to(weight.device)
            checkpoint.release(name)
        bias = _vector(require_finite(weights.bias, f"{what}.bias"))
        yield name, Weights(weight, scale, bias, weights.role, weights.full_precision)


def _quantised(weight: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight in FP8 with a scale a row, made on the device if it has room."""
    try:
        return quantise_rows(weight.to(device))
    # Other models may fill it.
    except RuntimeError as error:
        if device == weight.device or not is_out_of_memory(error):
            raise
        logger.info("There is no room on %s to quantise a layer: %s", device, first_line(error))
    return quantise_rows(weight)


def _vector(tensor: torch.Tensor) -> torch.Tensor:
    """A bias or a norm in a type that it can be computed with: FP8 files may hold these in FP8, too."""
    return tensor.to(torch.bfloat16) if tensor.dtype in FORMATS else tensor


def _describe(checkpoint: Checkpoint, patcher: Any, compute: Compute, device: torch.device) -> str:
    held = sum(p.nbytes for p in patcher.model.diffusion_model.parameters())
    return f"{checkpoint.describe()}\n{held / 1e9:.2f} GB in memory, {_product(compute, device)}"


def _product(compute: Compute, device: torch.device) -> str:
    name = comfy.model_management.get_torch_device_name(device)
    if not holds_fp8(device):
        return f"in 16 or 32 bits on {name}, which has no 8-bit floats"
    widened = f"stored in FP8, multiplied in wider numbers on {name}"
    if compute is Compute.STORAGE:
        return widened
    found = fp8_on(device)
    if found.product is None:
        return f"{widened}\nNo FP8 arithmetic: {found.why}"
    return f"multiplied in FP8 on {name}\nFP8 product: {found.why}"
