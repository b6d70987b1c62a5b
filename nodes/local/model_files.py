"""Model files as ComfyUI lists them, by kind, by the names its widgets show; after them the demo model's own LoRA."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ...kontext.errors import BadRequest


def names(kind: str) -> list[str]:
    """The files of a kind, for example "loras"; none outside ComfyUI."""
    folders = _folders()
    if folders is None:
        return []
    found = list(folders.get_filename_list(kind))
    return found + [name for name in _own(kind) if name not in found]


def path(kind: str, name: str) -> Path:
    """Where a file is. Raises BadRequest if it is not there any more, or there is no ComfyUI."""
    found = _found(kind, name)
    if found is None:
        raise BadRequest(
            f"{name} is not in ComfyUI's folder {kind!r} any more. Put it back, or choose another file."
            f"{_too_long(kind, name)}"
        )
    return found


def state(kind: str, name: str) -> tuple[int, int] | None:
    """What changes when a file is replaced: its size and time. None if there is no such file."""
    found = _found(kind, name)
    if found is None:
        return None
    about = found.stat()
    return about.st_size, about.st_mtime_ns


def _found(kind: str, name: str) -> Path | None:
    """ComfyUI's own file of that name comes before one of the pack's."""
    folders = _folders()
    if folders is None:
        return None
    found = folders.get_full_path(kind, name)
    return _own(kind).get(name) if found is None else Path(found)


def _too_long(kind: str, name: str) -> str:
    """What to say more of a file that Windows lists and does not open; else nothing."""
    from ...kontext.checkpoint.files import too_long  # loads torch

    folders = _folders()
    places = [] if folders is None else [Path(folder) / name for folder in folders.get_folder_paths(kind)]
    return next(filter(None, map(too_long, places)), "")


def _own(kind: str) -> dict[str, Path]:
    from ...kontext.demo.shipped import demo_loras

    return demo_loras() if kind == "loras" else {}


def _folders() -> Any:
    return sys.modules.get("folder_paths")
