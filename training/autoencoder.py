"""The demo's VAE: FLUX's architecture, 16 channels at an eighth of the size, 64 wide instead of 128 to 512.

64 and not 32, because the last norm has 32 groups: with one channel in each, a picture's own brightness would be
divided away. Training mixes a little noise into the latents, so that the decoder forgives the transformer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..kontext.checkpoint.layers import LATENT_CHANNELS
from ..kontext.standalone import optional
from .drawing import Pixels, drawn, tensor_ready
from .kept_files import tensors_of
from .muon import BatchedMuon
from .scenes import FULL, LARGE, SMALL, random_scene

WIDTHS = (64, 64, 64, 64)
# What FLUX's latents are scaled by on the way to its transformer; ComfyUI does it for every model of the kind.
SCALE, SHIFT = 0.3611, 0.1159
_NOISE = 0.08
# What a work folder keeps: all that is needed to go on, and the weights alone.
STATE, WEIGHTS = "autoencoder.pt", "autoencoder.safetensors"
_NO_VAE = "The VAE comes first: python -m kontext_bridge.training FOLDER --only autoencoder, or --from-shipped."


def trained_autoencoder(folder: Path, device: str | torch.device = "cpu") -> Any:
    """The VAE of a work folder, as it is by now, to be used and not taught; raises DamagedFile where there is none."""
    model = new_autoencoder()
    model.load_state_dict(tensors_of(folder / WEIGHTS, _NO_VAE))
    model.to(device).eval().requires_grad_(False)
    return model


def new_autoencoder() -> Any:
    """diffusers' AutoencoderKL, untrained."""
    return optional.load("diffusers").AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(WIDTHS),
        up_block_types=("UpDecoderBlock2D",) * len(WIDTHS),
        block_out_channels=WIDTHS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=SCALE,
        shift_factor=SHIFT,
    )


def raw_latent(model: Any, pictures: torch.Tensor) -> torch.Tensor:
    """The mean [B, 16, H/8, W/8] of the encoding of pictures [B, 3, H, W] of -1..1, in the VAE's own scale."""
    mean: torch.Tensor = model.encoder(pictures)[:, :LATENT_CHANNELS]
    return mean


@torch.inference_mode()
def encoded(model: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Latents in the transformer's scale."""
    return (raw_latent(model, pictures) - SHIFT) * SCALE


@torch.inference_mode()
def decoded(model: Any, latent: torch.Tensor) -> torch.Tensor:
    """Pictures [B, 3, H, W] of -1..1 of latents in the transformer's scale."""
    pictures: torch.Tensor = model.decoder(latent / SCALE + SHIFT)
    return pictures.clamp(-1, 1)


class AutoencoderTraining:
    """Steps of training, from a seed or from where a saved state left off."""

    def __init__(self, seed: int = 0, device: str | torch.device = "cpu") -> None:
        torch.manual_seed(seed)
        self.step = 0
        self._rng = np.random.default_rng([seed, 1])
        self._device = torch.device(device)
        self.model = new_autoencoder()
        self._spread()
        self.model.to(self._device, memory_format=torch.channels_last)
        parameters = list(self.model.parameters())
        wide = [p for p in parameters if p.ndim >= 2 and p.shape[0] > 3 and p[0].numel() > 27]
        chosen = {id(p) for p in wide}
        self._muon = BatchedMuon([(p, (p.shape[0],)) for p in wide], weight_decay=0.0)
        self._adam = torch.optim.Adam([p for p in parameters if id(p) not in chosen], betas=(0.9, 0.98))

    @torch.no_grad()
    def _spread(self) -> None:
        """Latents of about the size they shall have from the first step, so that the noise does not drown them."""
        layer, entry = self.model.encoder.conv_out, self.model.decoder.conv_in
        latent = raw_latent(self.model, self.pictures())
        mean, deviation = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
        factor = 1 / (SCALE * deviation)
        layer.weight[:LATENT_CHANNELS] *= factor[:, None, None, None]
        layer.bias[:LATENT_CHANNELS] = (layer.bias[:LATENT_CHANNELS] - mean) * factor + SHIFT
        entry.weight *= SCALE

    def train_step(self, pictures: torch.Tensor, rate: float) -> torch.Tensor:
        """One step on pictures [B, 3, H, W]; rate: share of the full learning rates. Gives the mean squared error."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            latent = raw_latent(self.model, pictures)
            noisy = latent + torch.randn_like(latent) * (_NOISE / SCALE)
            shown = self.model.decoder(noisy)
        scaled = (latent.float() - SHIFT) * SCALE
        # Every channel about mean 0 and deviation 1, as the transformer likes them and as FLUX's are.
        mean, deviation = scaled.mean((0, 2, 3)), scaled.std((0, 2, 3))
        tidy = mean.square().mean() + (deviation - 1).square().mean()
        error = shown.float() - pictures
        squared: torch.Tensor = error.square().mean()
        loss = squared + 0.05 * error.abs().mean() + 0.003 * tidy
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self._adam.param_groups:
            group["lr"] = 3e-3 * rate
        self._adam.step()
        self._muon.step(0.04 * rate)
        self.step += 1
        return squared.detach()

    def state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {
            "model": self.model.state_dict(),
            "muon": self._muon.state(),
            "adam": self._adam.state_dict(),
            "step": self.step,
            "rng": self._rng.bit_generator.state,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.model.load_state_dict(state["model"])
        self._muon.resume(state["muon"])
        self._adam.load_state_dict(state["adam"])
        self.step = state["step"]
        self._rng.bit_generator.state = state["rng"]

    def pictures(self, pixels: int = 10_000) -> torch.Tensor:
        """Fresh scenes of one size, about so many pixels in all."""
        sizes = (*SMALL, *FULL)
        size = sizes[int(self._rng.integers(len(sizes)))]
        count = max(1, pixels // (size[0] * size[1]))
        return torch.from_numpy(tensor_ready([drawn(random_scene(self._rng, size)) for _ in range(count)]))


@torch.inference_mode()
def decibels(model: Any, count: int = 12, seed: int = 99) -> dict[str, float]:
    """Peak signal to noise of unseen scenes there and back, by size."""
    found = {}
    device = next(model.parameters()).device
    for size in (SMALL[0], FULL[0], LARGE[0]):
        rng = np.random.default_rng([seed, *size])
        pictures = torch.from_numpy(tensor_ready([drawn(random_scene(rng, size)) for _ in range(count)])).to(device)
        error = decoded(model, encoded(model, pictures)) - pictures
        found[f"{size[0]}x{size[1]}"] = float((10 * torch.log10(4 / error.square().mean((1, 2, 3)))).mean())
    return found


def pixels(picture: torch.Tensor) -> Pixels:
    """[3, H, W] of -1..1 as [H, W, 3] bytes."""
    whole = ((picture.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    found: Pixels = whole.permute(1, 2, 0).numpy()
    return found


def released_names(state: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """A VAE's tensors from diffusers' names to those of FLUX's ae.safetensors."""
    last = len(WIDTHS) - 1
    for name, tensor in state.items():
        parts = name.split(".")
        if "up_blocks" in parts:
            at = parts.index("up_blocks") + 1
            parts[at] = str(last - int(parts[at]))
        renamed = ".".join(parts)
        for old, new in _RENAMED:
            renamed = renamed.replace(old, new)
        kernel = "mid.attn_1" in renamed and tensor.ndim == 2
        yield renamed, tensor[:, :, None, None] if kernel else tensor


_RENAMED = (
    ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
    ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
    ("mid_block.attentions.0.to_", "mid.attn_1."),
    ("mid_block.resnets.0", "mid.block_1"),
    ("mid_block.resnets.1", "mid.block_2"),
    ("down_blocks", "down"),
    ("up_blocks", "up"),
    ("downsamplers.0", "downsample"),
    ("upsamplers.0", "upsample"),
    ("resnets", "block"),
    ("conv_shortcut", "nin_shortcut"),
    ("conv_norm_out", "norm_out"),
)
