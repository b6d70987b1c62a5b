"""The trained demo as files: the transformer as Kontext's own is laid out, the VAE as FLUX's, and the word encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..kontext.checkpoint.layers import Naming, Size, roles_by_name
from ..kontext.fp8.formats import E4M3
from ..kontext.fp8.quantising import MAX_E4M3
from .autoencoder import released_names
from .vocabulary import PLACES, WORDS

TRANSFORMER, VAE, TEXT = (
    "kontext_demo_fp8_scaled.safetensors",
    "kontext_demo_vae.safetensors",
    "kontext_demo_words.safetensors",
)
# About this many pixels are what the demo was taught on; the real Kontext has a megapixel.
WORKING_PIXELS = 128 * 128

_LABELS = {
    "modelspec.sai_model_spec": "1.0.0",
    "modelspec.architecture": "flux-1-kontext-demo",
    "modelspec.title": "Kontext Bridge demo model",
    "modelspec.description": "A demonstration taught on drawn scenes, in FLUX.1 Kontext's layout. It is not Kontext.",
    "modelspec.license": "MIT",
}


def export(average: Mapping[str, torch.Tensor], autoencoder: Mapping[str, torch.Tensor], size: Size, to: Path) -> None:
    """Writes the three files.

    average: the network's averaged weights, by DemoNetwork's names. autoencoder: the VAE's, by diffusers'.
    """
    to.mkdir(parents=True, exist_ok=True)
    flux = {name.removeprefix("flux."): tensor for name, tensor in average.items() if name.startswith("flux.")}
    save_file(
        scaled_fp8(flux, size), to / TRANSFORMER, metadata=_LABELS | {"kontext_bridge.pixels": str(WORKING_PIXELS)}
    )
    vae = {name: tensor.half().contiguous() for name, tensor in released_names(dict(autoencoder))}
    save_file(vae, to / VAE, metadata=_LABELS)
    words = {name.removeprefix("words."): t.half() for name, t in average.items() if name.startswith("words.")}
    told = {"kontext_bridge.words": json.dumps(WORDS), "kontext_bridge.places": str(PLACES)}
    save_file(words, to / TEXT, metadata=_LABELS | told)


def scaled_fp8(flux: Mapping[str, torch.Tensor], size: Size) -> dict[str, torch.Tensor]:
    """The transformer's tensors in ComfyUI's older layout for scaled FP8, which the released file has.

    Only layers within blocks are quantised. Modulation is a seventh of the bytes, and is worth its 16 bits.
    """
    roles = roles_by_name(size, Naming.BFL)
    found = {"scaled_fp8": torch.zeros(0, dtype=E4M3)}
    for name, tensor in flux.items():
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and layer in roles and roles[layer].in_block:
            scale = tensor.abs().max().float() / MAX_E4M3
            found[name] = (tensor / scale).to(E4M3)
            found[f"{layer}.scale_weight"] = scale
        else:
            found[name] = tensor.to(torch.bfloat16)
    return found
