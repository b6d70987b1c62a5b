"""Pictures to FLUX latents and back for edits outside ComfyUI, by diffusers' AutoencoderKL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from ..checkpoint.files import open_tensors
from ..checkpoint.layers import LATENT_CHANNELS
from ..checkpoint.purpose import Purpose
from ..demo.shipped import VAE_WIDTHS
from ..errors import DamagedFile, NonFinite, WrongModel
from ..goes_with import other_vae
from . import optional
from .before_ampere import lacks_bfloat16
from .memory import reported

_SCALE, _SHIFT = 0.3611, 0.1159
_GET = "Get ae.safetensors of black-forest-labs/FLUX.1-Kontext-dev, or its vae folder."
_PREFIXES = ("first_stage_model.", "vae.", "")
_REMEDY = "Choose a smaller size."
# Peak memory of encoding or decoding, in bytes a pixel and byte of its number type; the widest rows have 512
# channels at half size, and a convolution holds its input, its output and a copy of one.
_BYTES_PER_PIXEL = 1024


class Autoencoder:
    """FLUX's VAE on a device. Latents are in the transformer's scale; pictures are IMAGEs [B, H, W, 3] of 0..1."""

    def __init__(self, path: Path, device: torch.device, dtype: torch.dtype) -> None:
        """Loads a .safetensors file (BFL's or diffusers' names) or a diffusers folder.

        Raises DamagedFile, WrongModel for the VAE of another model, MissingPackage.
        """
        if dtype == torch.bfloat16 and lacks_bfloat16(device):
            dtype = torch.float32
        diffusers = optional.load("diffusers")
        model = _from_folder(diffusers, path) if path.is_dir() else _from_file(diffusers, path)
        if model.config.latent_channels != LATENT_CHANNELS:
            raise WrongModel(f"{path.name} is a VAE of {model.config.latent_channels} channels, not FLUX's. {_GET}")
        # diffusers' own `to` warns of layers to keep in float32, of which this model has none.
        self._model = torch.nn.Module.to(model, device, dtype).eval()
        self._device, self._dtype = device, dtype

    def check(self, purpose: Purpose) -> None:
        """Raises BadRequest for the demo model's VAE with another model of this purpose, and for another with it."""
        is_demos = tuple(self._model.config.block_out_channels) == VAE_WIDTHS
        if is_demos != (purpose.called is not None):
            raise other_vae(purpose.called)

    @torch.inference_mode()
    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """The latent [B, 16, H/8, W/8], float32, of an IMAGE whose sides are multiples of 16."""
        with reported(self._device, self._peak(image.shape[1] * image.shape[2]), "encode the picture", _REMEDY):
            pixels = image.movedim(-1, 1).to(self._device, self._dtype) * 2 - 1
            latent: torch.Tensor = self._model.encode(pixels).latent_dist.mode().float()
        return _finite((latent - _SHIFT) * _SCALE, "encoding the picture")

    @torch.inference_mode()
    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """The IMAGE on the CPU, float32, of a latent; raises NonFinite rather than give a black picture."""
        with reported(self._device, self._peak(latent.shape[2] * latent.shape[3] * 64), "decode the edit", _REMEDY):
            z = (latent.to(self._device) / _SCALE + _SHIFT).to(self._dtype)
            pixels: torch.Tensor = self._model.decode(z).sample.float()
        return _finite(pixels, "decoding the edit").div(2).add(0.5).clamp(0, 1).movedim(1, -1).cpu()

    def _peak(self, pixels: int) -> int:
        return pixels * _BYTES_PER_PIXEL * self._dtype.itemsize


def _finite(tensor: torch.Tensor, doing: str) -> torch.Tensor:
    if not bool(torch.isfinite(tensor).all()):
        raise NonFinite(f"NaN or infinity while {doing}: the VAE's file is damaged, or its number type too narrow.")
    return tensor


def _from_folder(diffusers: Any, path: Path) -> Any:
    folder = path / "vae" if (path / "vae").is_dir() else path
    try:
        return diffusers.AutoencoderKL.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
    except optional.UNREADABLE as error:
        raise DamagedFile(f"The VAE in {folder} cannot be read: {error} {_GET}") from error


def _from_file(diffusers: Any, path: Path) -> Any:
    file = open_tensors(path)
    prefix = next((p for p in _PREFIXES if f"{p}decoder.conv_in.weight" in file), None)
    if prefix is None:
        raise WrongModel(f"{path.name} is no VAE: it has no decoder. {_GET}")
    tensors = {name.removeprefix(prefix): file[name] for name in file if name.startswith(prefix)}
    bfl = "encoder.down.0.block.0.conv1.weight" in tensors
    stage, block = ("down", "block") if bfl else ("down_blocks", "resnets")
    widths = _widths(tensors, rf"encoder\.{stage}\.(\d+)\.{block}\.0\.conv2\.weight", path)
    config: dict[str, Any] = {
        "block_out_channels": widths,
        "layers_per_block": len(_widths(tensors, rf"encoder\.{stage}\.0\.{block}\.(\d+)\.conv2\.weight", path)),
        "latent_channels": tensors["decoder.conv_in.weight"].shape[1],
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
    }
    config["down_block_types"] = ("DownEncoderBlock2D",) * len(widths)
    config["up_block_types"] = ("UpDecoderBlock2D",) * len(widths)
    model = diffusers.AutoencoderKL(**config)
    if bfl:
        convert = optional.load("diffusers.loaders.single_file_utils").convert_ldm_vae_checkpoint
        tensors = convert(dict(tensors), config)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise DamagedFile(f"{path.name} is no whole VAE of FLUX: {error} {_GET}") from error
    return model


def _widths(tensors: dict[str, torch.Tensor], pattern: str, path: Path) -> tuple[int, ...]:
    found = {int(m.group(1)): t.shape[0] for name, t in tensors.items() if (m := re.fullmatch(pattern, name))}
    if sorted(found) != list(range(len(found))) or not found:
        raise DamagedFile(f"{path.name} is no whole VAE: its encoder is incomplete. {_GET}")
    return tuple(found[i] for i in range(len(found)))
