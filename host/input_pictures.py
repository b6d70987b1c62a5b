"""The pictures that the pack's templates open with, brought into ComfyUI's input folder while it starts.

The front end shows a template whose picture is not there with an error in red, before anything was run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

_logger = logging.getLogger(__name__)


def bring_pictures(source: Path) -> None:
    """Copy the .png files of `source`, and of folders in it, to where LoadImage looks, those that are not there under
    that name.

    What the artist has under such a name stays as it is. Where the folder takes no file, nothing is lost but the
    pictures of the templates; off ComfyUI there is no such folder.
    """
    if "folder_paths" not in sys.modules:
        return
    target = Path(sys.modules["folder_paths"].get_input_directory())
    for picture in sorted((*source.glob("*.png"), *source.glob("*/*.png"))):
        place = target / picture.relative_to(source)
        try:
            if place.parent != target and target.is_dir():
                place.parent.mkdir(exist_ok=True)
            _copy(picture, place)
        except OSError as error:
            if place.parent != target:
                with contextlib.suppress(OSError):  # it is not empty, or was not made
                    place.parent.rmdir()
            _logger.warning("The example picture %s was not put into %s: %s", picture.name, target, error)


def _copy(picture: Path, place: Path) -> None:
    """Whole or not at all, and never over a file, a folder or a link that is there."""
    if os.path.lexists(place):
        return
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        part.write_bytes(picture.read_bytes())
        try:
            os.link(part, place)  # fails where another was quicker, which renaming would overwrite
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not os.path.lexists(place):
                part.rename(place)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
