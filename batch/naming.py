"""What a result is called below the folder of results, and where it may not lie."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from pathlib import Path, PurePosixPath

from .source_rows import RowError, SourceError, SourceRow

# The batch's own folder for what is not whole yet.
WORK = ".kontext-batch"
SUFFIX_OF = {"png": ".png", "webp": ".webp", "jpg": ".jpg"}
FORMAT_OF = {".png": "png", ".webp": "webp", ".jpg": "jpg", ".jpeg": "jpg"}
# Of a name between two slashes, in bytes; nearly every file system's.
LONGEST_PART = 255
_LONGEST = 2000
_WINDOWS = sys.platform == "win32"
_FOLDS = _WINDOWS or sys.platform == "darwin"
_NO_NAME = re.compile(r'[<>:"|?*]|[. ]$|^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)', re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")


def format_asked(row: SourceRow) -> str | None:
    """The file format that the ending of a row's own result name asks for."""
    return None if row.output is None else FORMAT_OF.get(PurePosixPath(row.output).suffix.lower())


def result_name(row: SourceRow, output_format: str, *, whole: bool) -> str:
    """The result's path below the folder of results, with slashes.

    A row's own name is kept, with the format's ending where it has none; otherwise folder and name are the image's.
    whole: the image's ending stays before the new one, so that a.jpg and a.png do not meet. Raises SourceError for a
    name that leads out of the folder, RowError for one that no file can have.
    """
    suffix = SUFFIX_OF[output_format]
    if row.output is not None:
        path = row.output
        own = FORMAT_OF.get(PurePosixPath(path).suffix.lower())
        if own is not None and own != output_format:
            raise RowError(f"Its result is to be {row.output}, and output_format is {output_format}; they must agree.")
        name = path if own is not None else f"{path}{suffix}"
    else:
        image = PurePosixPath(row.image)
        # what a path begins with, such as / or C:, is no folder of the results
        image = PurePosixPath(*[part for part in image.parts if part not in ("/", "..") and not _DRIVE.fullmatch(part)])
        if not image.name:
            raise RowError("It names no image.")
        name = f"{image}{suffix}" if whole else str(image.with_suffix(suffix))
    if row.output is not None and _DRIVE.match(name):
        raise _outside(name, row.where)
    return _checked(name, row.where)


def folds_names(work: Path) -> bool:
    """Whether names of upper and lower case are one file beside a folder of the batch's own.

    They are on Windows and macOS, and on Linux where the results lie on a stick or a share of theirs.
    """
    return _FOLDS or work.with_name(work.name.upper()).exists()


def key_of(name: str, *, folds: bool) -> str:
    """By what two names are the same file."""
    return unicodedata.normalize("NFC", name).casefold() if folds else name


def inside(root: Path, image: str) -> Path:
    """The file that a list names, from root; raises RowError where it lies outside of it.

    A list may come from anywhere: without this it could have any picture of the machine sent away. Letters such as é
    are written in two ways, of which a list may have one and the disk the other.
    """
    if "\0" in image:
        raise RowError("The image's name has a NUL in it.")
    # absolute, as a path such as ../a.png is relative to nothing
    path = Path(os.path.abspath(root / image))  # noqa: PTH100 - links stay as they are
    if not path.is_relative_to(os.path.abspath(root)):  # noqa: PTH100
        raise RowError(
            f"{image} lies outside {root}, where the list's pictures are looked for. Name their folder with --images."
        )
    if not image.isascii() and not os.path.lexists(path):
        below = os.path.relpath(path, os.path.abspath(root))  # noqa: PTH100
        written = (root / unicodedata.normalize(form, below) for form in ("NFC", "NFD"))
        return next(filter(os.path.lexists, written), path)
    return path


def _checked(name: str, where: str) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        raise _outside(name, where)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or parts[-1] in FORMAT_OF or len(name.encode("utf-8", "replace")) > _LONGEST:
        raise RowError(f"The result's name {name[:80]!r} is empty or too long.")
    for part in parts:
        if len(part.encode("utf-8", "replace")) > LONGEST_PART or any(
            unicodedata.category(c) in ("Cc", "Cs") for c in part
        ):
            raise RowError(f"No file can be called {part[:80]!r}: it is too long, or holds what is no character.")
        if _WINDOWS and _NO_NAME.search(part):
            raise RowError(f"No file can be called {part!r} on Windows.")
    if parts[0].lower().startswith(WORK):
        raise SourceError(f"{where}: {WORK} in the folder of results is the batch's own. Name another folder.")
    return "/".join(parts)


def _outside(name: str, where: str) -> SourceError:
    return SourceError(f"{where}: the result {name!r} would lie outside the folder of results. Name one inside it.")
