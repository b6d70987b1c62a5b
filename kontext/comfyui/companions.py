"""The demo model's text encoder and VAE as ComfyUI's own CLIP and VAE objects.

ComfyUI's loaders build neither: they know no encoder of words, and for every VAE of FLUX's kind an encoder of FLUX's
own widths (comfy/sd.py reads only the decoder's from the file). Given the networks, the classes are ComfyUI's, and so
are memory management, patches and every node that takes them.

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management  # type: ignore[import-not-found]
import comfy.ops  # type: ignore[import-not-found]
import comfy.sd  # type: ignore[import-not-found]
import torch
from torch import nn

from ..checkpoint.files import open_tensors
from ..checkpoint.layers import LATENT_CHANNELS
from ..demo.encoder import WordEncoder
from ..demo.sentences import Vocabulary
from ..demo.shipped import WordFile, read_words
from ..errors import DamagedFile, NonFinite

# As the nodes for FLUX call what CLIP-L and T5 read; the summary is of the one, the states are of the other.
_SUMMARY, _STATES = "l", "t5xxl"


def clip(path: Path, disable_dynamic: bool = False) -> Any:
    """The demo's text encoder as a CLIP; raises WrongModel or DamagedFile.

    disable_dynamic: without ComfyUI's dynamic VRAM.
    """
    file = read_words(path)
    target = SimpleNamespace(
        clip=partial(_TextModel, file=file), tokenizer=partial(_Tokenizer, file.vocabulary), params={}
    )
    parameters = sum(tensor.numel() for tensor in file.tensors.values())
    state = {f"encoder.{name}": tensor for name, tensor in file.tensors.items()}
    made = comfy.sd.CLIP(target, parameters=parameters, state_dict=state, disable_dynamic=disable_dynamic)
    made.patcher.cached_patcher_init = (_clip_again, (path,))
    return made


def _clip_again(path: Path, disable_dynamic: bool = False) -> Any:
    """The same once more, for ComfyUI: on another GPU, or without dynamic VRAM."""
    return clip(path, disable_dynamic).patcher


class _Tokenizer:
    """Sentences as tokens the way ComfyUI passes them on: lists of numbers with their weights, which all are 1."""

    def __init__(self, vocabulary: Vocabulary, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
        self._vocabulary = vocabulary

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: Any) -> dict[str, Any]:
        numbers = self._vocabulary.numbers(text)
        one = [(number, 1.0, place) if return_word_ids else (number, 1.0) for place, number in enumerate(numbers)]
        return {_SUMMARY: [one], _STATES: [list(one)]}

    def untokenize(self, tokens: list[Any]) -> list[Any]:
        words = self._vocabulary.words
        return [(token, words[token[0]]) for token in tokens]

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}


class _TextModel(nn.Module):
    """What a CLIP of ComfyUI holds. Weights stay in the file's 16 bits, and are computed with in 32."""

    def __init__(
        self, file: WordFile, dtype: torch.dtype | None = None, device: Any = "cpu", model_options: Any = None
    ) -> None:
        super().__init__()
        stored = file.tensors["words.weight"].dtype
        places = file.vocabulary.places
        self.encoder = WordEncoder(file.rows, places, file.width, comfy.ops.manual_cast, stored, device)
        self.dtypes = {stored}
        self._device: torch.device | None = None

    def set_clip_options(self, options: dict[str, Any]) -> None:
        # There is one layer to take and one summary; of the options only the place counts.
        self._device = options.get("execution_device", self._device)

    def reset_clip_options(self) -> None:
        self._device = None

    def encode_token_weights(self, tokens: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        read = [tokens[name][0] for name in (_STATES, _SUMMARY)]
        numbers = torch.tensor([[token[0] for token in sentence] for sentence in read], device=self._device)
        states, summaries = self.encoder(numbers)
        home = comfy.model_management.intermediate_device()
        return states[:1].to(home), summaries[1:].to(home)

    def load_sd(self, state: dict[str, torch.Tensor]) -> Any:
        return self.load_state_dict(state, strict=False, assign=getattr(self, "can_assign_sd", False))


def vae(path: Path) -> Any:
    """A small VAE of FLUX's kind, in a file under FLUX's names, as a VAE; raises DamagedFile or NonFinite."""
    file = open_tensors(path)
    state = {name: file[name].clone() for name in file}
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise NonFinite(f"{path.name}: {name!r} holds NaN or infinity: the file is damaged.")
    config = _network(state, path)
    # ComfyUI's class for networks of one's own has two convolutions that FLUX's has not: these change nothing.
    for name, channels in (("quant_conv", 2 * LATENT_CHANNELS), ("post_quant_conv", LATENT_CHANNELS)):
        state |= {f"{name}.weight": torch.eye(channels)[:, :, None, None], f"{name}.bias": torch.zeros(channels)}
    made = comfy.sd.VAE(sd=state, config={"params": {"ddconfig": config, "embed_dim": LATENT_CHANNELS}})
    # ComfyUI takes what it is told the network of for Stable Diffusion's.
    made.latent_channels = LATENT_CHANNELS
    _refuse_other_tensors(made.first_stage_model, state, path)
    made.patcher.cached_patcher_init = (_vae_again, (path,))
    return made


def _vae_again(path: Path, disable_dynamic: bool = False) -> Any:
    # ComfyUI's VAE cannot be told, and its own loader passes over this, too.
    return vae(path).patcher


def _network(state: dict[str, torch.Tensor], path: Path) -> dict[str, Any]:
    """The network's widths and depths, in ComfyUI's words, from the tensors of its encoder."""
    widths = _first_axis(state, r"encoder\.down\.(\d+)\.block\.0\.conv2\.weight")
    blocks = _first_axis(state, r"encoder\.down\.0\.block\.(\d+)\.conv2\.weight")
    entry = state.get("encoder.conv_in.weight")
    if not widths or not blocks or entry is None or any(width % len(entry) for width in widths):
        raise DamagedFile(f"{path.name} is no VAE of FLUX's kind, or not a whole one.")
    return {
        "double_z": True,
        "z_channels": LATENT_CHANNELS,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": len(entry),
        "ch_mult": [width // len(entry) for width in widths],
        "num_res_blocks": len(blocks),
        "attn_resolutions": [],
        "dropout": 0.0,
    }


def _first_axis(state: dict[str, torch.Tensor], pattern: str) -> list[int]:
    found = {int(match.group(1)): len(state[name]) for name in state if (match := re.fullmatch(pattern, name))}
    return [found[place] for place in sorted(found)]


def _refuse_other_tensors(network: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """ComfyUI only logs what is missing, and would decode with random numbers in its place."""
    wrong = sorted(set(network.state_dict()) ^ set(state))
    if wrong:
        raise DamagedFile(f"{path.name} is no VAE of FLUX's kind, or not a whole one: {wrong[0]!r} is amiss.")
