"""The demo model's three files and its LoRA: where they lie, and what the text encoder's file holds beside weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoint.files import open_tensors
from ..errors import DamagedFile, WrongModel
from .encoder import WordEncoder
from .sentences import Vocabulary

TRANSFORMER, VAE, TEXT = (
    "kontext_demo_fp8_scaled.safetensors",
    "kontext_demo_vae.safetensors",
    "kontext_demo_words.safetensors",
)
# Of the VAE's levels; FLUX's own has 128 to 512.
VAE_WIDTHS = (64, 64, 64, 64)
LORAS = ("kontext_demo_lanterns_lora.safetensors",)
WORDS, PLACES = "kontext_bridge.words", "kontext_bridge.places"
FOLDER = Path(__file__).parent
# Far more than any sentence has; FLUX itself takes 512.
_MOST_PLACES = 512
_ANEW = "Install Kontext Bridge anew: they come with it."


@dataclass(frozen=True)
class DemoFiles:
    """The transformer in FLUX.1 Kontext's layout, the VAE in FLUX's, and the text encoder of words."""

    transformer: Path
    vae: Path
    text: Path


@dataclass(frozen=True)
class WordFile:
    """A text encoder's file: its vocabulary, and its weights by WordEncoder's names."""

    path: Path
    vocabulary: Vocabulary
    tensors: dict[str, torch.Tensor]

    @property
    def rows(self) -> int:
        """How many words the table has room for."""
        return self.tensors["words.weight"].shape[0]

    @property
    def width(self) -> int:
        return self.tensors["words.weight"].shape[1]


def demo_files(folder: Path | None = None) -> DemoFiles:
    """The demo's files in a folder, by default those that come with the pack; raises DamagedFile naming what lacks."""
    folder = FOLDER if folder is None else folder
    missing = [name for name in (TRANSFORMER, VAE, TEXT) if not (folder / name).is_file()]
    if missing:
        one = len(missing) == 1
        raise DamagedFile(
            f"The demo model is not whole: {', '.join(missing)} {'is' if one else 'are'} not in {folder}. {_ANEW}"
        )
    return DemoFiles(folder / TRANSFORMER, folder / VAE, folder / TEXT)


def demo_loras() -> dict[str, Path]:
    """The LoRA for the demo model that come with the pack, by name: those that are there."""
    return {name: FOLDER / name for name in LORAS if (FOLDER / name).is_file()}


def has_words(path: Path) -> bool:
    """Whether a file is the demo's text encoder, whole or not."""
    try:
        return WORDS in open_tensors(path).metadata
    except DamagedFile:
        return False


def read_words(path: Path) -> WordFile:
    """The text encoder in a file, copied into memory. Raises WrongModel for a file of another kind, DamagedFile."""
    file = open_tensors(path)
    if WORDS not in file.metadata or PLACES not in file.metadata:
        raise WrongModel(f"{path.name} is not the demo model's text encoder: it has no list of words.")
    try:
        words, places = json.loads(file.metadata[WORDS]), int(file.metadata[PLACES])
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path.name}: its list of words cannot be read. {_ANEW}") from error
    tensors = {name: file[name].clone() for name in file}
    table, rows = tensors.get("words.weight"), len(words) if isinstance(words, list) else -1
    if (
        table is None
        or table.ndim != 2
        or not 2 <= rows <= len(table)
        or not 1 <= places <= _MOST_PLACES
        or not all(isinstance(w, str) for w in words)
    ):
        raise DamagedFile(f"{path.name}: its list of words does not fit its table of them. {_ANEW}")
    found = WordFile(path, Vocabulary(tuple(words), places), tensors)
    with torch.device("meta"):
        expected = WordEncoder(found.rows, places, found.width).state_dict()
    if {name: tensor.shape for name, tensor in tensors.items()} != {name: t.shape for name, t in expected.items()}:
        raise DamagedFile(f"{path.name} does not hold what the demo model's text encoder is made of. {_ANEW}")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise DamagedFile(f"{path.name} holds NaN or infinity. {_ANEW}")
    return found


def encoder_of(file: WordFile) -> WordEncoder:
    """The text encoder with the file's weights, in float32 on the CPU."""
    encoder = WordEncoder(file.rows, file.vocabulary.places, file.width)
    encoder.load_state_dict(file.tensors)
    return encoder.requires_grad_(False).eval()


def stamps() -> list[tuple[int, int]]:
    """What changes when one of the files is replaced: sizes and times, of those that are there."""
    found = [(FOLDER / name).stat() for name in (TRANSFORMER, VAE, TEXT) if (FOLDER / name).is_file()]
    return [(about.st_size, about.st_mtime_ns) for about in found]
