"""Files that a command line names, looked at before anything is computed or paid for."""

from __future__ import annotations

import errno
import os
from pathlib import Path

# Of a name between two slashes, in bytes; nearly every file system's.
_LONGEST_NAME = 255
# Of a whole path; Linux's, less what a file in it may add.
_LONGEST_PATH = 4095 - _LONGEST_NAME
_SHOWN = 80


class WrongName(Exception):
    """A file that a command line names cannot be used; the text says why, and what to name."""


def path_of(text: str, what: str) -> Path:
    """The path in a text from the command line; what: the option or the argument.

    Raises WrongName for an empty text, which Python would take for the folder that the command runs in, and for one
    that no file system takes.
    """
    if not text.strip():
        raise WrongName(f"The name given for {what} is empty, so that it names no file. Name one, or leave it out.")
    if "\0" in text:
        raise WrongName(f"The name given for {what} has a NUL character in it. Type it anew.")
    longest = max(len(os.fsencode(part)) for part in Path(text).parts or ("",))
    if longest > _LONGEST_NAME:
        raise WrongName(
            f"The name given for {what}, {shown(text)}, is too long: a file system takes {_LONGEST_NAME} bytes between "
            f"two slashes, and it has {longest}. Name another."
        )
    if len(os.fsencode(text)) > _LONGEST_PATH:
        raise WrongName(
            f"The name given for {what}, {shown(text)}, is too long: a system takes {_LONGEST_PATH} bytes in all. Name "
            "another."
        )
    return Path(text)


def source(text: str, what: str, kind: str = "file", *, pipes: bool = False) -> Path:
    """The path of a file to read; raises WrongName where there is none. pipes: whether what is no real file will do."""
    path = path_of(text, what)
    found = _kind(path, what)
    if found is None or (found == "file" and not pipes and not path.is_file()):
        raise WrongName(f"There is no {kind} at {shown(path)}, which {what} names.")
    if found == "folder":
        raise WrongName(f"{shown(path)}, which {what} names, is a folder; name a file.")
    if not os.access(path, os.R_OK):
        raise WrongName(f"{shown(path)}, which {what} names, cannot be read: you lack the permission.")
    return path


def target(text: str, what: str) -> Path:
    """The path of a file to write; raises WrongName where it cannot be."""
    path = out = path_of(text, what)
    _kind(path.parent, what)
    if out.is_symlink():
        try:
            out = out.resolve(strict=False)
        except (OSError, RuntimeError):
            raise WrongName(f"{shown(out)} is a link that leads in a circle. Name another file.") from None
    if _kind(out.parent, what) != "folder":
        raise WrongName(f"There is no folder {shown(out.parent)} to write {shown(out.name)} into. Make it first.")
    found = _kind(out, what)
    if found == "folder":
        raise WrongName(f"{shown(out)} is a folder; name the file to write.")
    if not os.access(out if found else out.parent, os.W_OK):
        raise WrongName(f"{shown(out)} cannot be written: you lack the permission.")
    return path


def shown(path: Path | str) -> str:
    """A path for people, cut in the middle where it is long."""
    text = str(path)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]}"


def in_words(error: OSError) -> str:
    """What the system says of a file, without its number."""
    name = f"{shown(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
    return f"{name}{error.strerror or error}."


def _kind(path: Path, what: str) -> str | None:
    """ "file" or "folder", None where there is neither; raises WrongName where that cannot be told."""
    try:
        return "folder" if os.path.isdir(path) else "file" if path.stat() else None  # noqa: PTH112
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise WrongName(f"{shown(path)} is a link that leads in a circle. Name another file.") from None
        raise WrongName(
            f"{shown(path)}, which {what} names, cannot be reached: {error.strerror}. Name another."
        ) from None
