"""The folders of a run: where pictures are read from and written to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolders:
    """`source` is where a relative path of LoadImage starts: the workflow's own folder."""

    source: Path
    output: Path

    @property
    def temp(self) -> Path:
        """Previews go here."""
        return self.output / "temp"

    def why_not(self) -> str | None:
        """Why nothing can be saved in `output`, None where it can be; nothing is made."""
        for folder in (self.output, *self.output.parents):
            # Path.is_dir raises where a folder above may not be entered
            if os.path.isdir(folder):  # noqa: PTH112
                return None if os.access(folder, os.W_OK | os.X_OK) else f"The folder {folder} cannot be written."
            if os.path.lexists(folder):
                return f"{folder} is no folder, so that pictures cannot be saved in {self.output}."
        return f"There is no {self.output.anchor} to save pictures in."

    def path_of(self, saved: dict[str, str]) -> Path:
        """The file that a `ui.SavedResult` speaks of."""
        root = self.temp if saved["type"] == "temp" else self.output
        return root / saved["subfolder"] / saved["filename"]


current: ContextVar[RunFolders] = ContextVar("current")


@contextmanager
def in_folders(folders: RunFolders) -> Iterator[None]:
    """Nodes read and write in `folders` while this is open."""
    token = current.set(folders)
    try:
        with _host_folders(folders):
            yield
    finally:
        current.reset(token)


@contextmanager
def _host_folders(folders: RunFolders) -> Iterator[None]:
    """Tells `comfy_api.latest.ui`, whichever it is, where to save."""
    try:
        from comfy_api.latest import _folders
    except ImportError:
        pass
    else:
        token = _folders.current.set(_folders.Folders(folders.output, folders.temp))
        try:
            yield
        finally:
            _folders.current.reset(token)
        return

    import folder_paths  # type: ignore[import-not-found]

    before = folder_paths.get_output_directory(), folder_paths.get_temp_directory()
    folder_paths.set_output_directory(str(folders.output))
    folder_paths.set_temp_directory(str(folders.temp))
    try:
        yield
    finally:
        folder_paths.set_output_directory(before[0])
        folder_paths.set_temp_directory(before[1])
