"""Which version of the pack this is: pyproject.toml's, the one place that says it."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

_NAME = "kontext-bridge"
_PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def version() -> str:
    """For example "0.1.0"; "unknown" where the pack was copied without the file that says it."""
    try:
        told = _PROJECT.read_text(encoding="utf-8")
    except OSError:  # pip installs the packages alone, and keeps what the file said
        told = ""
    found = re.search(r'^version = "([0-9A-Za-z.+-]+)"$', told, re.MULTILINE)
    if found is not None and f'name = "{_NAME}"' in told:
        return found[1]
    try:
        return importlib.metadata.version(_NAME)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
