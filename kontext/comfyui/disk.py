"""The file's tensors as ComfyUI's own loader gives them, where dynamic VRAM is on.

ComfyUI's dynamic VRAM reads what its own loader has given straight from the file into pinned memory, or onto the GPU
where no more may be pinned. Anything else it copies through ordinary memory, each time that a weight which had to make
room comes back. So tensors that are the file's, byte for byte, are exchanged for ComfyUI's of the same name, once
everything in the file has been checked. What was widened, quantised, joined or reordered on the way stays as it is.

Without dynamic VRAM nothing is exchanged: weights are pinned where they lie then, and ComfyUI's lie in memory that is
read only.

Only for a running ComfyUI: importing this imports comfy.
"""

from __future__ import annotations

import logging
from typing import Any

import comfy.utils  # type: ignore[import-not-found]
import torch

from ..checkpoint.files import TensorFile
from ..checkpoint.reading import Checkpoint

logger = logging.getLogger(__name__)

# By any other name ComfyUI takes a file for a pickle.
_SUFFIXES = (".safetensors", ".sft")


def comfyui_reads_files() -> bool:
    """Whether dynamic VRAM is on."""
    # Before there was any, there was no such module.
    return bool(getattr(getattr(comfy, "memory_management", None), "aimdo_enabled", False))


def given_by_comfyui(state: dict[str, torch.Tensor], checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The same tensors; with dynamic VRAM, those that the checkpoint's files hold as they are come from ComfyUI."""
    if not comfyui_reads_files():
        return state
    given = dict(state)
    for file in checkpoint.files:
        given |= _exchanged(file, state)
    exchanged = sum(tensor.nbytes for name, tensor in given.items() if tensor is not state[name])
    total = sum(tensor.nbytes for tensor in given.values())
    logger.info("ComfyUI reads %.2f of %.2f GB from the file by itself", exchanged / 1e9, total / 1e9)
    return given


def take_out_of_files(state: dict[str, torch.Tensor], checkpoint: Checkpoint) -> None:
    """With `--disable-mmap`, which dynamic VRAM passes over, copies in memory in place of what lies in the files."""
    if comfyui_reads_files() or not getattr(comfy.utils, "DISABLE_MMAP", False):
        return
    for file in checkpoint.files:
        for name, inside in file.whole(state).items():
            state[name] = state[name].clone()
            file.release(inside)


def _exchanged(file: TensorFile, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """ComfyUI's tensors in place of this file's."""
    names = file.whole(state)
    if not names or file.path.suffix.lower() not in _SUFFIXES:
        return {}
    try:
        theirs = _read_by_comfyui(file)
    # TypeError: it looks for words in the number of the system's error.
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        logger.warning(
            "ComfyUI cannot read %s by itself (%s): its weights come to the GPU more slowly", file.path, error
        )
        return {}
    return {
        name: theirs[inside]
        for name, inside in names.items()
        if inside in theirs and (theirs[inside].dtype, theirs[inside].shape) == (state[name].dtype, state[name].shape)
    }


def _read_by_comfyui(file: TensorFile) -> dict[str, Any]:
    theirs: dict[str, Any] = comfy.utils.load_torch_file(str(file.path), safe_load=True)
    if not file.is_unchanged():
        raise ValueError("it was written to while it was loaded")
    return theirs
