"""What the local side raises; every text says what happened, to which file, layer or step, and what to do.

KontextError
├── CheckpointError      a file that cannot be read as a model
│   ├── DamagedFile      truncated, malformed, or not a safetensors file at all
│   ├── UnknownLayout    well-formed, but stored in a way this pack does not know
│   └── WrongModel       another model than FLUX.1 Kontext
├── LoraError            a LoRA that does not fit this model
├── NonFinite            NaN or infinity in a scale, a weight or a latent
├── BadRequest           an edit that cannot be carried out as asked (also a ValueError)
├── OutOfMemory          more memory than the device has left
├── UnsupportedDevice    FP8 arithmetic asked for where there is none
├── MissingPackage       an optional package is not installed (also an ImportError)
└── Stopped              the edit was stopped between two steps
"""

from __future__ import annotations

# ComfyUI shows `__module__` beside the message, and a module loaded by path has the path for its name.
_SHOWN_AS = "kontext_bridge"


class KontextError(Exception):
    """Anything that went wrong on the local side."""

    __module__ = _SHOWN_AS


class CheckpointError(KontextError):
    """A model file that cannot be used."""

    __module__ = _SHOWN_AS


class DamagedFile(CheckpointError):
    """The file is cut short, malformed, or no safetensors file."""

    __module__ = _SHOWN_AS


class UnknownLayout(CheckpointError):
    """The file stores its weights in a way that is not known here, so nothing is guessed."""

    __module__ = _SHOWN_AS


class WrongModel(CheckpointError):
    """The file holds another model than FLUX.1 Kontext [dev]."""

    __module__ = _SHOWN_AS


class LoraError(KontextError):
    """A LoRA file that is damaged, of another kind, or made for another model."""

    __module__ = _SHOWN_AS


class NonFinite(KontextError):
    """NaN or infinity where a number must be."""

    __module__ = _SHOWN_AS


class BadRequest(KontextError, ValueError):
    """An edit that cannot be carried out as asked."""

    __module__ = _SHOWN_AS


class OutOfMemory(KontextError):
    """The device lacks memory.

    needed, free: bytes.
    """

    __module__ = _SHOWN_AS

    def __init__(self, message: str, needed: int, free: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.free = free


class UnsupportedDevice(KontextError):
    """FP8 arithmetic was asked for on a device that has none."""

    __module__ = _SHOWN_AS


class MissingPackage(KontextError, ImportError):
    """An optional package is needed here and is not installed."""

    __module__ = _SHOWN_AS

    def __init__(self, package: str) -> None:
        super().__init__(
            f"Local edits outside ComfyUI need the Python package {package!r}, which is not installed. "
            "Install it: python -m pip install 'diffusers>=0.35' 'transformers>=4.45'"
        )


class Stopped(KontextError):
    """The edit was stopped between two steps; there is no picture.

    step: how many steps had been finished.
    """

    __module__ = _SHOWN_AS

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"Stopped after step {step} of {steps}.")
        self.step = step
