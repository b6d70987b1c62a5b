"""The pack's own file for the key: private, written whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
from pathlib import Path

from .errors import Misconfigured
from .private_files import PART, PRIVATE_FILE, make_folder, replace_file, sync_if_possible

logger = logging.getLogger(__name__)

KEY_FILE = "oxen_api_key"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_guard = threading.Lock()


def read_key_file(path: Path) -> str | None:
    """The key in the file; None where there is no file, or nothing in it.

    Rights that let others in are taken back, with a line in the log. Raises Misconfigured where that is not possible,
    and for a file that cannot be read.
    """
    if not path.is_file():
        return None
    if os.name == "posix":
        _take_back_rights(path)
    try:
        # Windows' editors put a mark before the text
        return path.read_text(encoding="utf-8-sig").strip() or None
    except (OSError, UnicodeDecodeError):
        raise Misconfigured(
            f"The key file {path} cannot be read; write the key into it as plain text. Nothing was sent."
        ) from None


def write_key_file(path: Path, key: str) -> None:
    """Put a key into the file, in place of the one that was there; raises OSError, and then nothing has changed."""
    with _guard:
        make_folder(path.parent)
        _remove_torn(path)
        replace_file(path, key.encode("ascii") + b"\n")
        sync_if_possible(path.parent)


def remove_key_file(path: Path) -> None:
    """Remove the file, and what a writer that was killed left beside it; raises OSError."""
    with _guard:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _remove_torn(path)
            sync_if_possible(path.parent)


def _take_back_rights(path: Path) -> None:
    if not _open_to_others(path):
        return
    with contextlib.suppress(OSError):  # another user's file
        path.chmod(PRIVATE_FILE)
    if not _open_to_others(path):
        logger.warning(
            "The key file %s could be read by other users of this machine. Now only its owner can (chmod 600). If "
            "somebody else uses this machine, make a new key.",
            path,
        )
    elif _open_to_others(path.parent):
        raise Misconfigured(
            f"The key file {path} can be read by other users, and this user may not change that; run `chmod 600` on "
            "it as its owner. Nothing was sent."
        )


def _open_to_others(path: Path) -> bool:
    """Whether others have rights to a file, or may pass through a folder."""
    return bool(path.stat().st_mode & _OTHERS)


def _remove_torn(path: Path) -> None:
    for torn in path.parent.glob(f"{path.stem}.*{PART}"):
        torn.unlink(missing_ok=True)
