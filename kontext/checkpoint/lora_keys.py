"""What each tensor of a LoRA file is: the layer it belongs to, and its part in the change of that layer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch

from ..errors import LoraError
from .lora_names import unwrapped

# Parts for text encoders, VAEs and embeddings, and notes of trainers: none of them belongs to the transformer.
_ELSEWHERE = re.compile(
    r"^(base_model\.model\.)?("
    r"(lora|lycoris)_(prior_)?(te\d*|t5\w*?|clip\w*?|text_encoders?(_\d)?|vae)_"
    r"|te\d*[._]|text_encoders?(_\d)?[._]|text_model\.|clip(_[lgh])?\.|t5(xxl)?[._]"
    r"|bundle_emb\.|embeddings?\.|emb_params$|string_to_(param|token)"
    r"|vae\.|first_stage_model\.|cond_stage_model\.|conditioner\."
    r"|(global_)?step$|epoch$|iteration$)"
)
_FACTORS = r"(?:\.(?!(?:weight|bias)$)[\w-]+)?(?:\.weight)?$"
# A tensor's part in the change of a layer; LyCORIS' own parts go by the ends of their names, such as `lokr_w1`.
DOWN, UP, MID, ALPHA = "down", "up", "mid", "alpha"
DORA, MAGNITUDE, RESHAPE = "dora_scale", "lora_magnitude_vector", "reshape_weight"
DIFF, SET, BIAS, UP_BIAS = "diff", "set_weight", "diff_b", "lora_B.bias"
_LYCORIS = r"\.(hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)|oft_blocks|oft_diag|rescale|[ab][12]\.weight)$"
_PARTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(.+?){pattern}"), part)
    for pattern, part in (
        (rf"(?:\.lora_down|[._]lora\.down|\.lora_linear_layer\.down|\.lora_A){_FACTORS}", DOWN),
        (r"\.lora_B(?:\.[\w-]+)?\.bias$", UP_BIAS),
        (rf"(?:\.lora_up|[._]lora\.up|\.lora_linear_layer\.up|\.lora_B){_FACTORS}", UP),
        (r"\.lora_mid(?:\.weight)?$", MID),
        (r"(?:[._]lora|\.lora_linear_layer)?\.alpha$", ALPHA),
        (r"\.dora_scale$", DORA),
        (r"\.reshape_weight$", RESHAPE),
        (rf"\.lora_magnitude_vector{_FACTORS}", MAGNITUDE),
        (r"(?:\.bias\.diff|\.diff_b|\.b_norm)$", BIAS),
        (r"(?:\.diff|\.w_norm)$", DIFF),
        # Black Forest Labs' own LoRA hold the norms whole, under their names in a model.
        (r"(?:\.set_weight|(?<=_norm)\.scale)$", SET),
        (_LYCORIS, ""),
    )
)


def by_layer(file: Mapping[str, torch.Tensor], file_name: str) -> tuple[dict[str, dict[str, str]], int]:
    """The names of the file's tensors by the layer's name in the file and then by part.

    Also how many tensors were left out, being for other models than the transformer. Raises LoraError for a tensor
    that is no part of an adapter, and for two of the same part.
    """
    found: dict[str, dict[str, str]] = {}
    left_out = 0
    for name in file:
        if _ELSEWHERE.match(name):
            left_out += 1
            continue
        layer, part = _part(name, file_name)
        parts = found.setdefault(layer, {})
        if part in parts:
            raise LoraError(f"{file_name} has two matrices for {layer!r}. Get the file again.")
        parts[part] = name
    return found, left_out


def layer_names(file: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """The names of the layers that a file changes, of whatever model."""
    for name in file:
        match = next((m for pattern, _ in _PARTS if (m := pattern.match(unwrapped(name)))), None)
        yield match[1] if match else name


def _part(name: str, file_name: str) -> tuple[str, str]:
    plain = unwrapped(name)
    for pattern, part in _PARTS:
        match = pattern.match(plain)
        if match:
            return match[1], part or match[2]
    raise LoraError(f"{file_name} holds {name!r}, which is no part of a LoRA known here.")
