"""A LoRA file that fits a model, in any spelling that trainers use.

Read here: diffusers and PEFT (`lora_A`, alpha in the header), Black Forest Labs, kohya (`lora_unet_...`, `.alpha`),
LyCORIS, XLabs and USO, ai-toolkit and OneTrainer, on BFL's or diffusers' layer names: all that ComfyUI reads for
FLUX.1, and more.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from ..errors import LoraError
from .files import open_tensors
from .layers import Size
from .lora_keys import by_layer
from .lora_kinds import AdapterKind, Change, Patch
from .lora_reader import Reader

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lora:
    """A LoRA file that fits a model of `size`. name: the file's, without suffix.

    changes: what it does beside adding products. `attach` takes those of biases, comfyui/lora.py all.
    """

    name: str
    size: Size
    patches: tuple[Patch, ...]
    changes: tuple[Change, ...] = ()


def read_lora(path: Path | str, size: Size, *, every_kind: bool = False) -> Lora:
    """The LoRA in a .safetensors file, checked against a model's size.

    every_kind: also take what is no plain LoRA. Parts for other models than the transformer, such as text encoders,
    are left out with a warning; parts that are zero and change nothing, without one. Raises DamagedFile, NonFinite, or
    LoraError saying what the file is: made for another model, another kind of adapter, incomplete, or of ranks that
    do not match.
    """
    path = Path(path)
    # Trainers write over their own files, again and again, while the last one is at work.
    file = open_tensors(path, detached=True)
    found, left_out = by_layer(file, path.name)
    if left_out:
        logger.warning(
            "%s also has parts for other models, such as text encoders (%d tensors); those are left out.",
            path.name,
            left_out,
        )
    reader = Reader(file, path, size)
    # What reads a picture's channels says the most about what a file is for.
    for layer in sorted(found, key=lambda name: not name.endswith(("img_in", "x_embedder"))):
        reader.read(layer, found[layer])
    if not (reader.patches or reader.changes or reader.idle):
        raise LoraError(f"{path.name} changes nothing in the transformer.")
    other = next((change.kind for change in reader.changes if change.kind is not AdapterKind.BIAS), None)
    if other is not None and not every_kind:
        raise LoraError(
            f"{path.name} is {other.value}. Outside ComfyUI only plain LoRA are taken. Inside it Kontext LoRA takes "
            "it, and so does ComfyUI's own Load LoRA where it knows the names in the file."
        )
    return Lora(path.stem, size, reader.patches, reader.changes)
