"""Folders that a node names, below ComfyUI's own."""

from __future__ import annotations

from pathlib import Path

from .. import host
from ..oxen.errors import InvalidParameters, Misconfigured
from . import checks


def found_folders() -> host.MediaFolders:
    """The folders that pictures come from and go to; raises Misconfigured where there is neither ComfyUI nor a run."""
    folders = host.media_folders()
    if folders is None:
        raise Misconfigured(
            "There is no ComfyUI whose input and output folders could be used. Nothing was sent. Use "
            "python -m kontext_bridge.batch for folders of your own."
        )
    return folders


def folder_to_read(name: object, what: str) -> Path:
    """The folder of this name below ComfyUI's input; raises InvalidParameters where there is none."""
    root = found_folders().source
    path = _below(root, checks.text(name, what), what)
    if not checks.text(name, what).strip():
        raise InvalidParameters(
            f"{what} is empty. Nothing was sent. Name a folder below {root}; there are: {host.folders_in(root)}."
        )
    if not path.is_dir():
        raise InvalidParameters(
            f"There is no folder {str(name)[:80]!r} below {root}. Nothing was sent. There are: {host.folders_in(root)}."
        )
    return path


def folder_to_write(name: str, what: str) -> Path:
    """The folder of this name below ComfyUI's output, whether or not it is there; raises InvalidParameters."""
    return _below(found_folders().output, checks.text(name, what), what)


def wrong_with_folders(folder: str | None, output: str | None) -> str | None:
    """What is wrong with the names before anything runs; None where nothing is, or where they come over a link."""
    folders = host.media_folders()
    if folders is None:
        return None
    for root, name, what in ((folders.source, folder, "folder"), (folders.output, output, "output")):
        try:
            if isinstance(name, str):
                host.below(root, name, what)
        except host.Outside as error:
            return f"{error} Nothing was sent."
    return None


def _below(root: Path, name: str, what: str) -> Path:
    try:
        return host.below(root, name, what)
    except host.Outside as error:
        raise InvalidParameters(f"{error} Nothing was sent.") from None
