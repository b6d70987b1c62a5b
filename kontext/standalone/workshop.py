"""A model of this machine: on which device, in which numbers, mounted; and loaded once for many edits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..checkpoint.layers import Naming
from ..checkpoint.lora import Lora
from ..checkpoint.reading import Checkpoint
from ..edit import LatentEdit
from ..errors import BadRequest, OutOfMemory
from ..fp8.compute import Compute
from .denoiser import Conditioning
from .lora import attach, linears_of
from .mount import mount
from .sampler import Step, sample
from .text import encode_prompts, encode_words
from .vae import Autoencoder

logger = logging.getLogger(__name__)

_CPU = torch.device("cpu")


def usable_device(name: str) -> torch.device:
    """The device of that name; raises BadRequest where it cannot be used."""
    try:
        device = torch.device(name)
        # A device without memory, such as "meta", has no number to give back.
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadRequest(f"The device {name!r} cannot be used: {said}") from error
    return device


def dtype_on(device: torch.device) -> torch.dtype:
    """What to compute in: a CPU multiplies float32 faster than bfloat16."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def mounted(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    device: torch.device,
    compute: Compute,
    loras: Sequence[tuple[Lora, float]] = (),
) -> Any:
    """The transformer with its LoRAs, its modulation layers on the CPU where there is no room for them beside it."""
    transformer = None
    try:
        transformer = mount(checkpoint, dtype=dtype, device=device, compute=compute)
    except OutOfMemory as error:
        # As text: whoever keeps what is logged would keep what has come to the device.
        logger.warning("%s Trying with the modulation layers on the CPU.", str(error))
    # The error is gone by now, and with it its frames.
    if transformer is None:
        transformer = mount(checkpoint, dtype=dtype, device=device, compute=compute, modulation_device="cpu")
    for lora, strength in loras:
        attach(linears_of(transformer), Naming.DIFFUSERS, lora, strength)
    return transformer


class Workshop:
    """Edits pictures one after the other; the transformer is mounted at the first.

    text_encoders: as `encode_prompts` takes them, or the demo model's file of words. loras: each with its strength.
    Raises KontextError.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        text_encoders: Path,
        vae: Path,
        *,
        device: torch.device,
        compute: Compute = Compute.AUTO,
        loras: Sequence[tuple[Lora, float]] = (),
    ) -> None:
        self._dtype = dtype_on(device)
        self._checkpoint = checkpoint
        self._text_encoders = text_encoders
        self._device = device
        self._compute = compute
        self._loras = loras
        self._vae = Autoencoder(vae, device, self._dtype)
        self._vae.check(checkpoint.purpose)
        self._encoded: dict[str, Conditioning] = {}
        self._transformer: Any = None

    def learn(self, prompts: Sequence[str]) -> None:
        """Encode these prompts, together, and forget those before: large text encoders take long to load.

        Once the transformer is mounted there may be no room for them beside it, and they run on the CPU.
        """
        new = [one for one in dict.fromkeys(prompts) if one not in self._encoded]
        self._encoded = {one: self._encoded[one] for one in prompts if one in self._encoded}
        if not new:
            return
        if self._text_encoders.is_file():
            encoded = encode_words(self._text_encoders, new)
        elif self._transformer is None:
            encoded = encode_prompts(self._text_encoders, new, self._device, self._dtype)
        else:
            encoded = encode_prompts(self._text_encoders, new, _CPU, torch.float32)
        self._encoded.update(zip(new, encoded, strict=True))

    def knows(self, prompt: str) -> bool:
        """Whether a prompt is encoded."""
        return prompt in self._encoded

    def edit(
        self,
        reference: torch.Tensor,
        prompt: str,
        edit: LatentEdit,
        *,
        on_step: Callable[[Step], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> torch.Tensor:
        """The edit [1,h,w,3] of a reference picture [1,H,W,3], its sides multiples of 16."""
        if prompt not in self._encoded:
            self.learn([prompt])
        latent = self._vae.encode(reference)
        if self._transformer is None:
            self._transformer = mounted(
                self._checkpoint, dtype=self._dtype, device=self._device, compute=self._compute, loras=self._loras
            )
        done = sample(
            self._transformer, edit, self._encoded[prompt], [latent], on_step=on_step, should_stop=should_stop
        )
        return self._vae.decode(done)
