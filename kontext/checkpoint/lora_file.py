"""A LoRA file that has just been downloaded: whether it is whole, a safetensors file, and of a spelling known here."""

from __future__ import annotations

from pathlib import Path

from ..errors import LoraError
from .files import open_tensors
from .lora_keys import by_layer


def remark_on(path: Path) -> str:
    """What there is to say of a file against its use as a LoRA of the transformer; empty where there is nothing.

    Raises DamagedFile for what is cut short, or no safetensors file: a pickle, an archive, a web page.
    """
    file = open_tensors(path, read_only=True)
    try:
        layers, _ = by_layer(file, path.name)
    except LoraError as error:
        return f"Kontext LoRA does not know its form: {error}"
    return "" if layers else "It changes nothing in the transformer, so that Kontext LoRA has no use for it."
