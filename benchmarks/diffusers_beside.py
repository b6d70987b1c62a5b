"""diffusers' own transformer with the numbers that a checkpoint of this pack stands for, and an edit with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from kontext_bridge.kontext.checkpoint.layers import Role
from kontext_bridge.kontext.checkpoint.reading import Checkpoint
from kontext_bridge.kontext.fp8.formats import dequantise
from kontext_bridge.kontext.latents import positions
from kontext_bridge.kontext.standalone import mount as mounting
from torch import nn


@torch.inference_mode(False)
@torch.no_grad()
def plain(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Any:
    """A FluxTransformer2DModel of plain layers in `dtype`, its weights those that the FP8 ones stand for."""
    model = mounting._empty(checkpoint.size).to(dtype).to_empty(device=device)
    places = dict.fromkeys(Role, device)
    for name, weights in mounting._diffusers_layers(checkpoint, places, quantise=False):
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        scaled = weights.scale is not None
        layer.weight.copy_(dequantise(weights.weight, weights.scale, dtype) if scaled else weights.weight)
        layer.bias.copy_(weights.bias)
    for name, scale in mounting._diffusers_norms(checkpoint):
        model.get_submodule(name).weight.copy_(scale)
    return model.eval()


class Beside:
    """The velocity at each step, by diffusers' forward: an edit of one reference, as its pipeline calls it."""

    def __init__(self, model: Any, edit: Any, dtype: torch.dtype) -> None:
        self._model, self._sigmas = model, edit.sigmas
        like = {"device": edit.device, "dtype": dtype}
        self._reference = edit.reference_tokens.to(**like)
        side = edit.latent
        self._given = {
            "encoder_hidden_states": edit.prompt.text.to(**like),
            "pooled_projections": edit.prompt.pooled.to(**like),
            "img_ids": positions(side, side, [(side, side)]).to(edit.device),
            "txt_ids": torch.zeros(edit.prompt.text.shape[1], 3, device=edit.device),
            "guidance": torch.tensor([2.5], device=edit.device),
        }

    def __call__(self, tokens: torch.Tensor, step: int) -> torch.Tensor:
        both = torch.cat([tokens.to(self._reference), self._reference], dim=1)
        time = self._sigmas[step].to(tokens.device).expand(len(tokens))
        (out,) = self._model(both, timestep=time, return_dict=False, **self._given)
        return out[:, : tokens.shape[1]].float()


def euler(velocity: Callable[[torch.Tensor, int], torch.Tensor], tokens: torch.Tensor, sigmas: torch.Tensor) -> Any:
    """The tokens after all steps."""
    for step in range(len(sigmas) - 1):
        tokens = tokens + float(sigmas[step + 1] - sigmas[step]) * velocity(tokens, step)
    return tokens
