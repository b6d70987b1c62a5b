"""Whether torch.compile works on a device: found out by compiling, before minutes are spent on a model."""

from __future__ import annotations

import logging

import torch

from ..errors import BadRequest
from .devices import name_of
from .failures import first_line, is_about_the_machine
from .quantising import has_triton

logger = logging.getLogger(__name__)

_MISSING: dict[torch.device, str | None] = {}


def require_compiler(device: torch.device) -> None:
    """Raises BadRequest, which says what to install, where torch.compile does not work on the device."""
    if device not in _MISSING:
        _MISSING[device] = _missing(device)
    why = _MISSING[device]
    if why is None:
        return
    if device.type == "cuda":
        needed = (
            "It needs Triton, which comes with torch on Linux; on Windows install the Python package triton-windows, "
            f"in the version that its page names for torch {torch.__version__}"
        )
    else:
        needed = "It needs a C++ compiler that Python finds"
    raise BadRequest(
        f"The model is to be compiled, and torch.compile does not work on {name_of(device)}: {why}. {needed}, and "
        "restart ComfyUI. Or switch compile off: the edit is the same, only slower."
    )


def _missing(device: torch.device) -> str | None:
    if device.type == "cuda" and not has_triton():
        return "Triton is not installed"
    try:
        torch.compile(_smallest, dynamic=False, options={"compile_threads": 1})(torch.zeros(64, device=device))
    # Compilers of two languages, their caches and drivers take part, and each raises what it likes.
    except Exception as error:
        if is_about_the_machine(error):
            raise
        logger.info("torch.compile does not work on %s: %s", device, error)
        return first_line(error)
    return None


def _smallest(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x) + 1
