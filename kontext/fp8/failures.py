"""What an error of a device tells: that it cannot do a thing, or that there is no room for it just now."""

from __future__ import annotations

import torch

# What torch raises, by version, for what a device has not.
REFUSALS = (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError)
# Which of a GPU's own errors say that it cannot do this one thing, most often since its torch was built without it
# (https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html). After any other, such as an illegal
# address, it does nothing any more until ComfyUI is started again.
_CANNOT = (
    "no kernel image is available",
    "invalid device function",
    "kernel image is invalid",
    "operation not supported",
    "invalid configuration argument",
    "invalid argument",
    "too many resources requested",
    "ptx",
)
# GPUs; cuBLAS and cuDNN, for themselves, when they start and later; and the computer's memory.
_FULL = ("out of memory", "cublas_status_not_initialized", "alloc_failed", "defaultcpuallocator")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory is full, of the device or the computer."""
    # Torch before 2.5, which DirectML stays with, has it for CUDA alone.
    return isinstance(error, getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)) or _says(error, _FULL)


def is_about_the_machine(error: BaseException) -> bool:
    """Whether it is no refusal: memory is full, or the GPU has failed as a whole."""
    # Newer torch raises it for whatever a GPU reports by itself.
    reported = isinstance(error, getattr(torch, "AcceleratorError", ()))
    return is_out_of_memory(error) or (reported and not _says(error, _CANNOT))


def first_line(error: BaseException) -> str:
    """What an error says first, without a full stop; of one that a compiler has wrapped, what is inside."""
    error = getattr(error, "inner_exception", None) or error
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    told = str(error).lower()
    return any(word in told for word in words)
