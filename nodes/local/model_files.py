"""Model files as ComfyUI lists them: by kind, by the names its widgets show."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ...kontext.errors import BadRequest


def names(kind: str) -> list[str]:
    """The files of a kind, for example "loras"; none outside ComfyUI."""
    folders = _folders()
    return [] if folders is None else list(folders.get_filename_list(kind))


def path(kind: str, name: str) -> Path:
    """Where a file is. Raises BadRequest if it is not there any more, or there is no ComfyUI."""
    folders = _folders()
    found = None if folders is None else folders.get_full_path(kind, name)
    if found is None:
        raise BadRequest(f"{name} is not in ComfyUI's folder {kind!r} any more. Put it back, or choose another file.")
    return Path(found)


def state(kind: str, name: str) -> tuple[int, int] | None:
    """What changes when a file is replaced: its size and time. None if there is no such file."""
    folders = _folders()
    found = None if folders is None else folders.get_full_path(kind, name)
    if found is None:
        return None
    about = Path(found).stat()
    return about.st_size, about.st_mtime_ns


def _folders() -> Any:
    return sys.modules.get("folder_paths")
