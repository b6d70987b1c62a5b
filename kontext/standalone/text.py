"""The prompt's encoding for edits outside ComfyUI: CLIP-L's pooled state and T5-XXL's states, by transformers.

The demo model has an encoder of its own, which needs nothing but its file.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from ..demo.shipped import encoder_of, read_words
from ..errors import DamagedFile, NonFinite
from ..fp8.failures import is_out_of_memory
from . import optional
from .denoiser import Conditioning
from .memory import free_bytes

logger = logging.getLogger(__name__)

# As in BFL's own sampling code for Kontext and in diffusers; ComfyUI pads to 256, which gives other pictures.
T5_TOKENS = 512
_CLIP_TOKENS = 77
# Bytes beside the weights.
_BESIDE = 500_000_000
_CPU = torch.device("cpu")
_PARTS = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")


def encode_prompts(
    folder: Path, prompts: list[str], device: torch.device, dtype: torch.dtype, tokens: int = T5_TOKENS
) -> list[Conditioning]:
    """The encodings of prompts, on the CPU. The encoders are gone from the device when this returns.

    One without room there runs on the CPU in float32: T5-XXL takes 9.5 GB in 16 bits.
    folder: with tokenizer, text_encoder (CLIP-L), tokenizer_2 and text_encoder_2 (T5-XXL), as in
    black-forest-labs/FLUX.1-Kontext-dev. Raises DamagedFile naming what is missing, NonFinite.
    """
    missing = [part for part in _PARTS if not (folder / part).is_dir()]
    if missing:
        raise DamagedFile(
            f"{folder} lacks {', '.join(missing)}. The text encoders are the folders {', '.join(_PARTS)} of "
            "black-forest-labs/FLUX.1-Kontext-dev; download them into one folder."
        )
    transformers = optional.load("transformers")
    with torch.inference_mode():
        ids = _ids(transformers, folder / _PARTS[0], prompts, _CLIP_TOKENS)
        pooled = _run(transformers, "CLIPTextModel", folder / _PARTS[1], ids, device, dtype).pooler_output
        ids = _ids(transformers, folder / _PARTS[2], prompts, tokens)
        text = _run(transformers, "T5EncoderModel", folder / _PARTS[3], ids, device, dtype).last_hidden_state
        text, pooled = text.float().cpu(), pooled.float().cpu()
    for prompt, *encoded in zip(prompts, text, pooled, strict=True):
        if not all(bool(torch.isfinite(tensor).all()) for tensor in encoded):
            raise NonFinite(
                f"The text encoders gave NaN or infinity for the prompt {prompt!r}: their files are damaged."
            )
    return [Conditioning(text[i : i + 1], pooled[i : i + 1]) for i in range(len(prompts))]


@torch.inference_mode()
def encode_words(file: Path, prompts: list[str]) -> list[Conditioning]:
    """The encodings of prompts by the demo model's text encoder, on the CPU; raises WrongModel or DamagedFile."""
    words = read_words(file)
    encoder = encoder_of(words)
    encoded = [encoder(torch.tensor([words.vocabulary.numbers(prompt)])) for prompt in prompts]
    return [Conditioning(text, pooled) for text, pooled in encoded]


def _run(
    transformers: Any, kind: str, folder: Path, ids: torch.Tensor, device: torch.device, dtype: torch.dtype
) -> Any:
    """What an encoder makes of the ids; it is gone when this returns."""
    model = _load(transformers, kind, folder, dtype)
    size = sum(parameter.nbytes for parameter in model.parameters())
    free = None if device == _CPU else free_bytes(device)
    if free is None or size + _BESIDE <= free:
        try:
            return model.to(device)(ids.to(device))
        except RuntimeError as error:
            if device == _CPU or not is_out_of_memory(error):
                raise
    logger.warning(
        "The text encoder in %s takes %.1f GB, for which %s has no room: it runs on the CPU.",
        folder.name,
        size / 1e9,
        device,
    )
    del model
    return _load(transformers, kind, folder, torch.float32)(ids)


def _load(transformers: Any, kind: str, folder: Path, dtype: torch.dtype) -> Any:
    name = "dtype" if int(transformers.__version__.partition(".")[0]) >= 5 else "torch_dtype"
    try:
        model = getattr(transformers, kind).from_pretrained(folder, local_files_only=True, **{name: dtype})
    except optional.UNREADABLE as error:
        raise DamagedFile(f"The text encoder in {folder} cannot be read: {error}") from error
    return model.eval()


def _ids(transformers: Any, folder: Path, prompts: list[str], length: int) -> torch.Tensor:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        encoded = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    except optional.UNREADABLE as error:
        raise DamagedFile(f"The tokenizer in {folder} cannot be read: {error}") from error
    ids: torch.Tensor = encoded.input_ids
    return ids
