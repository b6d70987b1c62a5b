"""Text encoder and transformer together: what is trained, and how an edit is sampled from it."""

from __future__ import annotations

import functools

import torch
from torch import nn

from ..kontext.checkpoint.layers import Size
from ..kontext.latents import noise, pack, positions, unpack
from ..kontext.schedule import schedule
from .pool import LessonBatch
from .transformer import DEMO, FluxInTraining, rotary_table
from .vocabulary import PLACES, new_encoder, numbers

GUIDANCE = 2.5


class DemoNetwork(nn.Module):
    """The velocity of a noisy picture's tokens, given its reference's tokens and the sentence's words."""

    def __init__(self, size: Size = DEMO) -> None:
        super().__init__()
        self.size = size
        self.words = new_encoder()
        self.flux = FluxInTraining(size)

    def forward(
        self,
        noisy: torch.Tensor,
        reference: torch.Tensor,
        words: torch.Tensor,
        time: torch.Tensor,
        guidance: torch.Tensor,
        rotary: torch.Tensor,
    ) -> torch.Tensor:
        text, pooled = self.words(words)
        out: torch.Tensor = self.flux(noisy, reference, time, guidance, text, pooled, rotary)
        return out


@functools.cache
def rotary_for(width: int, height: int, references: int = 1) -> torch.Tensor:
    """The table for a picture of these pixels and references of the same size."""
    with torch.inference_mode(False):  # whoever asks first, training can use it
        return rotary_table(positions(height // 8, width // 8, [(height // 8, width // 8)] * references), PLACES)


def lesson_loss(network: DemoNetwork, batch: LessonBatch, rotary: torch.Tensor, half: bool = False) -> torch.Tensor:
    """Flow matching: how far the velocity is from the one that leads to each target, at a random moment.

    half: products in bfloat16, as always on a GPU.
    """
    device = batch.target.device
    noise = torch.randn_like(batch.target)
    # Most of what is hard is decided while there is much noise.
    moment = torch.sigmoid(torch.randn(len(noise), device=device) * 1.1 + 0.5)
    at = moment[:, None, None]
    noisy = (1 - at) * batch.target + at * noise
    with torch.autocast(device.type, torch.bfloat16, enabled=half or device.type == "cuda", cache_enabled=False):
        velocity = network(noisy, batch.references, batch.words, moment, batch.guidance, rotary)
    loss: torch.Tensor = (batch.weight * (velocity.float() - (noise - batch.target)).square()).mean()
    return loss


@torch.inference_mode()
def edits(
    network: DemoNetwork,
    source: torch.Tensor,
    sentences: list[str],
    steps: int = 10,
    seed: int = 0,
    second: torch.Tensor | None = None,
) -> torch.Tensor:
    """Edited latents [B, 16, h, w] of source latents, one sentence each, picture k from the noise of seed + k.

    second: latents of second pictures, as many and as large.
    """
    count, _, height, width = source.shape
    device = source.device
    reference, words = pack(source), torch.tensor([numbers(one) for one in sentences], device=device)
    if second is not None:
        reference = torch.cat([reference, pack(second)], 1)
    x = pack(noise(seed, count, height, width)).to(device)
    sigmas = schedule(steps, height * width // 4)
    guidance = torch.full((count,), GUIDANCE, device=device)
    rotary = rotary_for(width * 8, height * 8, 1 if second is None else 2).to(device)
    for now, then in zip(sigmas.tolist(), sigmas[1:].tolist(), strict=False):
        velocity = network(x, reference, words, torch.full((count,), now, device=device), guidance, rotary)
        x = x + (then - now) * velocity
    return unpack(x, height, width)
