"""The folders that pictures come from and go to: ComfyUI's, or those that a run without it was given."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

_NAMED = 12


@dataclass(frozen=True)
class MediaFolders:
    """source: where pictures lie that are named. output: results. temp: what a node only shows."""

    source: Path
    output: Path
    temp: Path


class Outside(ValueError):
    """A name that leads out of the folder that it is to be below; the text says which, and what to name."""

    __module__ = "kontext_bridge"


_local: ContextVar[MediaFolders | None] = ContextVar("media", default=None)


def set_local_media(folders: MediaFolders) -> None:
    """What `media_folders` gives in this context, for a run without ComfyUI."""
    _local.set(folders)


def media_folders() -> MediaFolders | None:
    """The folders; None where nobody has said any."""
    paths = sys.modules.get("folder_paths")
    if paths is None or _local.get() is not None:
        return _local.get()
    return MediaFolders(
        Path(paths.get_input_directory()), Path(paths.get_output_directory()), Path(paths.get_temp_directory())
    )


def below(root: Path, name: str, what: str) -> Path:
    """The folder of this name below `root`, whether or not it is there; raises Outside. what: of whom, for people.

    A workflow may come from anywhere: it names no folder of the machine but those that ComfyUI shows.
    """
    path = name.strip().replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    climbs = path.startswith(("/", "~")) or re.match(r"[A-Za-z]:", path) or ".." in parts or "\0" in path
    if climbs:
        raise Outside(f"{what} is {name[:80]!r}, which leads out of {root}. Name a folder below it.")
    found = root.joinpath(*parts)
    if not Path(os.path.realpath(found)).is_relative_to(os.path.realpath(root)):
        raise Outside(f"{what} is {name[:80]!r}, a link that leads out of {root}. Name a folder below it.")
    return found


def folders_in(root: Path) -> str:
    """Some of the folders in a folder, for people."""
    names: list[str] = []
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith("."):
                names.append(entry.name)
            if len(names) > _NAMED:
                return ", ".join(sorted(names)[:_NAMED]) + " and more"
    return ", ".join(sorted(names)) or "none yet"
