"""A paid edit whose bytes came and cannot be read as a picture: they are kept, and the error says where."""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from http import HTTPStatus

from ..errors import ResultUnavailable, ResultUnreadable
from .ledger import Ledger
from .record import Record
from .results import ANEW

logger = logging.getLogger(__name__)

_AGAIN = f"To try once more at no cost run again, or {ANEW}."
_OR = f"Or {ANEW}."
# The names by which other programs know a file, by what it begins with.
_SUFFIXES = {
    "png": rb"\x89PNG",
    "jpg": rb"\xff\xd8\xff",
    "gif": rb"GIF8",
    "webp": rb"RIFF....WEBP",
    "avif": rb"....ftypavi",
    "heic": rb"....ftyp(hei|hev|mif)",
    "jxl": rb"\xff\x0a|\0\0\0\x0cJXL",
    "jp2": rb"\0\0\0\x0cjP",
    "tif": rb"II\*\0|MM\0\*",
    "bmp": rb"BM",
}


def keep(ledger: Ledger, record: Record, came: ResultUnreadable) -> ResultUnavailable:
    """Keep what came in a file of the record's, and give the error that says where; the artist is told by it."""
    try:
        record = ledger.done(record, came.data, _suffix_of(came.data))
    except (OSError, sqlite3.Error) as error:
        logger.warning("What came for edit %d could not be kept on this machine: %s", record.id, error)
        told = _error(came, f"It could not be kept on this machine ({error}). {_AGAIN}")
    else:
        told = error_of(ledger, record, came)
    with contextlib.suppress(sqlite3.Error):
        ledger.told(record)
    return told


def error_of(ledger: Ledger, record: Record, came: ResultUnreadable) -> ResultUnavailable:
    """The error for a record whose file is here, and is no picture that can be read."""
    return _error(
        came,
        f"What came is kept as {ledger.path(record)}, and is not paid a second time by itself. Another program may "
        f"open it and make a PNG of it for Load Image. {_AGAIN if came.may_pass else _OR}",
    )


def _error(came: ResultUnreadable, words: str) -> ResultUnavailable:
    return ResultUnavailable(
        f"{came.message} {words}", status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE, generation_id=came.generation_id
    )


def _suffix_of(data: bytes) -> str:
    """What the name of a file with these bytes ends in."""
    return next((suffix for suffix, start in _SUFFIXES.items() if re.match(start, data, re.DOTALL)), "bin")
