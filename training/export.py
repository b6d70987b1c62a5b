"""The trained demo as files: the transformer as Kontext's own is laid out, the VAE as FLUX's, and the word encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from ..kontext.checkpoint.layers import Naming, Size, roles_by_name
from ..kontext.checkpoint.purpose import CALLED, PIXELS
from ..kontext.demo.shipped import PLACES as PLACES_ENTRY
from ..kontext.demo.shipped import TEXT, TRANSFORMER, VAE
from ..kontext.demo.shipped import WORDS as WORDS_ENTRY
from ..kontext.fp8.formats import E4M3
from ..kontext.fp8.quantising import MAX_E4M3
from .autoencoder import released_names
from .kept_files import put_tensors
from .network import DemoNetwork
from .vocabulary import PLACES, WORDS

# About this many pixels are what the demo was taught on; the real Kontext has a megapixel.
WORKING_PIXELS = 128 * 128
NAME = "demo model"

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
    purpose = {PIXELS: str(WORKING_PIXELS), CALLED: NAME}
    put_tensors(scaled_fp8(flux, size), to / TRANSFORMER, metadata=_LABELS | purpose)
    vae = {name: tensor.half().contiguous() for name, tensor in released_names(dict(autoencoder))}
    put_tensors(vae, to / VAE, metadata=_LABELS)
    words = {name.removeprefix("words."): t.half() for name, t in average.items() if name.startswith("words.")}
    told = {WORDS_ENTRY: json.dumps(WORDS), PLACES_ENTRY: str(PLACES)}
    put_tensors(words, to / TEXT, metadata=_LABELS | told)


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


def rounded_as_stored(network: DemoNetwork) -> None:
    """Gives a network the weights that the file of its transformer holds."""
    stored = scaled_fp8({name: tensor.detach() for name, tensor in network.flux.state_dict().items()}, network.size)
    kept = {}
    for name in network.flux.state_dict():
        scale = stored.get(f"{name.removesuffix('.weight')}.scale_weight")
        kept[name] = stored[name].float() * (1.0 if scale is None else scale)
    network.flux.load_state_dict(kept)
