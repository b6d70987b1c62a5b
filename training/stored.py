"""The files that users load as a work folder has them: a model is taught further without what it was made from."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from ..kontext.demo.shipped import DemoFiles
from .autoencoder import WEIGHTS as AUTOENCODER_WEIGHTS
from .autoencoder import new_autoencoder, released_names
from .kept_files import put_tensors
from .train import WEIGHTS as NETWORK_WEIGHTS

_SCALE = "scale_weight"


def laid_out(files: DemoFiles, folder: Path) -> None:
    """Writes the weights of a network and of its VAE into a work folder, each as exact as its file has it."""
    stored = load_file(files.vae)
    blank = new_autoencoder().state_dict()
    renamed = dict(zip(blank, (name for name, _ in released_names(blank)), strict=True))
    vae = {name: stored[renamed[name]].float().reshape(tensor.shape) for name, tensor in blank.items()}
    put_tensors(vae, folder / AUTOENCODER_WEIGHTS)
    # Last, for by it a folder is known to have both.
    put_tensors(_network(files), folder / NETWORK_WEIGHTS)


def _network(files: DemoFiles) -> dict[str, torch.Tensor]:
    stored = load_file(files.transformer)
    found = {f"words.{name}": tensor.float() for name, tensor in load_file(files.text).items()}
    for name, tensor in stored.items():
        if name == "scaled_fp8" or name.endswith(_SCALE):
            continue
        scale = stored.get(f"{name.removesuffix('weight')}{_SCALE}")
        found[f"flux.{name}"] = tensor.float() * (1.0 if scale is None else scale)
    return found
