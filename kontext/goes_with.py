"""What belongs to which model: text encoders and VAEs, of FLUX.1 Kontext and of the demo model, in words."""

from __future__ import annotations

from .checkpoint.purpose import Purpose
from .errors import BadRequest


def other_encoder(width: int, expected: int) -> BadRequest:
    """What to say of an encoding of the prompt that is `width` wide where the model reads `expected`."""
    return BadRequest(
        f"The prompt was encoded {width} numbers wide, and this model reads {expected}: the text encoder is another "
        "model's. With FLUX.1 Kontext goes DualCLIPLoader with clip_l and t5xxl, type flux; with the demo model the "
        "clip of Load Kontext Demo, kontext_demo_words.safetensors."
    )


def other_vae(called: str | None) -> BadRequest:
    """What to say of a VAE that is not the model's. called: the model's own name, None where it is FLUX.1 Kontext."""
    if called is not None:
        return BadRequest(
            f"The {called} has a VAE of its own, and with another its pictures would be nonsense. Take the vae of Load "
            "Kontext Demo, kontext_demo_vae.safetensors."
        )
    return BadRequest(
        "The VAE is the demo model's, and the model is not, or does not say so: its pictures would be nonsense. With "
        "FLUX.1 Kontext goes ae.safetensors; with this VAE the model of Load Kontext Demo."
    )


def vae_of(purpose: Purpose) -> str:
    """The VAE to encode and decode with for a model of this purpose."""
    return "FLUX's own VAE (ae.safetensors)" if purpose.called is None else "the vae of Load Kontext Demo"
