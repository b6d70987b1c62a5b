"""The folders of a run: where pictures are read from and written to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from .. import host


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

    def shown(self, path: Path) -> dict[str, str]:
        """A saved file as a node's `ui` names it for the front end."""
        kind, root = ("temp", self.temp) if path.is_relative_to(self.temp) else ("output", self.output)
        subfolder = path.parent.relative_to(root)
        return {"filename": path.name, "subfolder": "" if subfolder == Path() else str(subfolder), "type": kind}

    def path_of(self, shown: dict[str, str]) -> Path:
        """The file that `shown` names."""
        root = self.temp if shown["type"] == "temp" else self.output
        return root / shown["subfolder"] / shown["filename"]


current: ContextVar[RunFolders] = ContextVar("current")


@contextmanager
def in_folders(folders: RunFolders) -> Iterator[None]:
    """Nodes read and write in `folders` while this is open."""
    token = current.set(folders)
    host.set_local_media(host.MediaFolders(folders.source, folders.output, folders.temp))
    try:
        yield
    finally:
        current.reset(token)
