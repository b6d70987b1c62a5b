"""What leaves this MODEL when ComfyUI saves it: the file's own FP8 numbers, described so that any loader reads them.

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

import json
import weakref
from typing import Any

import torch

from ..checkpoint.purpose import PURPOSE, Purpose, as_tensor
from ..errors import BadRequest
from ..fp8.formats import FORMATS
from .ops import UNSAVEABLE, ComfyLinear


def save_as_fp8(patcher: Any, purpose: Purpose) -> None:
    """Have the ModelPatcher's model described when it is saved, and refused with what FP8 weights cannot hold.

    purpose: told of a model that is no Kontext, which would be taken for one.
    """
    # The model holds the function: a plain reference back would keep it alive until the next garbage collection.
    known = weakref.ref(patcher.model)

    def state_dict_for_saving(state: dict[str, Any], *others: Any, **named_others: Any) -> Any:
        model: Any = known()
        _describe(model.diffusion_model, state)
        if purpose != Purpose():
            state[PURPOSE] = as_tensor(purpose)
        return type(model).state_dict_for_saving(model, state, *others, **named_others)

    patcher.model.state_dict_for_saving = state_dict_for_saving


def _describe(flux: Any, state: dict[str, Any]) -> None:
    """Adds what ComfyUI's loaders ask of FP8 layers. Raises BadRequest for a model with a LoRA or a merge."""
    layers = {name: layer for name, layer in flux.named_modules() if isinstance(layer, ComfyLinear)}
    # ComfyUI loads a model before it saves it, so the layers have what the patcher has.
    if any(layer.patches for layer in layers.values()):
        raise BadRequest(UNSAVEABLE)
    for name, layer in layers.items():
        if layer.weight_scale is None:
            continue
        # Read out for saving, a weight would be the number it stands for.
        state[f"{name}.weight"] = layer.weight
        if layer.weight_scale.ndim:
            state[f"{name}.weight_scale"] = layer.weight_scale[:, None]
        hint: dict[str, Any] = {"format": FORMATS[layer.weight.dtype]}
        if layer.plan.full_precision:
            hint["full_precision_matrix_mult"] = True
        state[f"{name}.comfy_quant"] = torch.tensor(list(json.dumps(hint).encode()), dtype=torch.uint8)
