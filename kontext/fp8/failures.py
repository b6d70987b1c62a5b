"""What an error of a device tells: that it cannot do a thing, or that there is no room for it just now."""

from __future__ import annotations

import torch

# What torch raises, by version, for what a device has not.
REFUSALS = (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError)


def is_about_the_machine(error: BaseException) -> bool:
    """Whether it is no refusal: memory is full, or the GPU has failed as a whole."""
    failed = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))
    return isinstance(error, failed) or "out of memory" in str(error).lower() or "ALLOC_FAILED" in str(error)


def first_line(error: BaseException) -> str:
    """What an error says first, without a full stop; of one that a compiler has wrapped, what is inside."""
    error = getattr(error, "inner_exception", None) or error
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
