"""diffusers and transformers, imported when first needed; absent ones raise MissingPackage with the remedy."""

from __future__ import annotations

import importlib
from typing import Any

from safetensors import SafetensorError

from ..errors import MissingPackage

# What these packages raise for files that are missing, cut short, or of another model.
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError, SafetensorError)


def load(module: str) -> Any:
    """A package or a module of one."""
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != package:
            raise
        raise MissingPackage(package) from error
