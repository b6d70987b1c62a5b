"""Data URIs (RFC 2397): encoded pictures as text, and back, as browsers read them."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from .codec import EncodedImage
from .errors import ImageError, ImageTooLarge
from .limits import MIB, Limits

_SCHEME = "data:"
_SHOWN = 40
# What cannot be seen and comes along when a text is copied, beside the blanks that `strip` knows.
_UNSEEN = "\ufeff\u200b\u2060"
# While base64 is made of one piece, no other thread of Python runs. A multiple of 3.
_PIECE = 3 << 16

# How the files of each format begin in base64, whose first letters tell the first bytes.
_STARTS = {"iVBORw0KGgo": "png", "/9j/": "jpeg", "R0lGOD": "gif", "UklGR": "webp"}
_BASE64 = re.compile(r"[A-Za-z0-9+/\-_]+={0,2}")
# A line of it may be percent-encoded.
_BASE64_LINE = re.compile(r"[A-Za-z0-9+/\-_%=\s]*")
# A data URI in a page, a style sheet or JSON, and how much of a text is looked through for one.
_WITHIN = re.compile(r"(?<=[^\w.+-])data:(?:[a-z]+/|[;,])", re.IGNORECASE)
_LOOKED_AT = 200
# Shorter texts of letters alone may be anything.
_LONG = 64


def to_data_uri(picture: EncodedImage) -> str:
    """The picture as `data:<media type>;base64,<data>`."""
    data = memoryview(picture.data)
    pieces = (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
    text = (binascii.b2a_base64(piece, newline=False).decode("ascii") for piece in pieces)
    return "".join((f"{_SCHEME}{picture.media_type};base64,", *text))


def is_data_uri(text: str) -> bool:
    """Whether the text is a data URI by its scheme (in any case, after blanks)."""
    return text[:64].lstrip()[: len(_SCHEME)].lower() == _SCHEME


def split_uris(text: str) -> list[str]:
    """The URIs of a text with one a line; base64 that was wrapped into several lines is one.

    A line goes on with the one before where that is a data URI or bare base64, and this could be more of it. Quotes
    around a line, as JSON has them, are no part of its URI.
    """
    uris: list[list[str]] = []
    goes_on = False
    for line in filter(None, map(_unquoted, text.splitlines())):
        begins = is_data_uri(line) or line.startswith(tuple(_STARTS))
        if goes_on and not begins and _BASE64_LINE.fullmatch(line):
            uris[-1].append(line)
            continue
        uris.append([line])
        goes_on = begins or names_base64(line) is not None
    return ["".join(lines) for lines in uris]


def _unquoted(line: str) -> str:
    line = line.strip().strip(_UNSEEN).strip()
    quoted = line.removesuffix(",").rstrip()
    if quoted[:1] in ("'", '"') and len(quoted) > 1 and quoted[-1] == quoted[0]:
        return quoted[1:-1].strip()
    return line


def names_base64(text: str) -> str | None:
    """What to say of a text that is a picture in base64, but no data URI; None for any other text."""
    start = text[:_SHOWN].strip()
    if (found := _WITHIN.search(text[:_LOOKED_AT])) and not is_data_uri(text):
        return f"There is a data URI behind {text[: found.start()].strip()!r}: delete all that stands around it."
    if ";base64," in start.lower() and not is_data_uri(text):
        return f"{start!r} is a data URI that lacks its beginning: put data: before it."
    media = next((kind for letters, kind in _STARTS.items() if start.startswith(letters)), None)
    packed = "".join(text.split())
    if not _BASE64.fullmatch(packed) or (media is None and len(packed) < _LONG):
        return None
    return f"This looks like bare base64: {start!r}. Put data:image/{media or 'png'};base64, before it."


def parse_data_uri(text: str, limits: Limits | None = None) -> bytes:
    """The bytes of a data URI, base64 or percent-encoded.

    As in browsers, blanks and line breaks are skipped, base64 may be percent-encoded and may lack its padding, and
    what follows a # is no data. Anything else that is not base64 is refused, its URL-safe letters too. The length is
    checked before anything is decoded. The stated media type is not believed: decode looks at the bytes.
    Raises ImageError, ImageTooLarge.
    """
    limits = limits or Limits()
    text = text.strip()
    if not is_data_uri(text):
        said = names_base64(text) or f"It starts with {text[:_SHOWN]!r}. One starts with 'data:'."
        raise ImageError(f"This is not a data URI. {said}")
    header, comma, payload = text.partition(",")
    if not comma:
        raise ImageError(f"The data URI {text[:_SHOWN]!r} has no comma, so no data. Was it cut when it was copied?")
    payload = payload.partition("#")[0]
    is_base64 = "base64" in (word.strip().lower() for word in header.split(";")[1:])
    _check_length(payload, is_base64, limits)
    data = _from_base64(payload) if is_base64 else _from_percents(payload)
    if not data:
        raise ImageError(f"The data URI {header[:_SHOWN]!r} holds no data after its comma.")
    limits.check_bytes(len(data))
    return data


def _check_length(payload: str, is_base64: bool, limits: Limits) -> None:
    """Base64 takes 4 characters for 3 bytes, plus line breaks; a percent-encoded byte takes up to 3."""
    longest = limits.max_bytes * ((1.5 if is_base64 else 1) * (3 if "%" in payload else 1)) + 1024
    if len(payload) > longest:
        raise ImageTooLarge(
            f"The data URI is {len(payload) / MIB:.1f} MiB of text; "
            f"pictures of at most {limits.max_bytes / MIB:.1f} MiB are read."
        )


def _from_percents(payload: str) -> bytes:
    try:
        return unquote_to_bytes("".join(payload.split()))
    except UnicodeEncodeError as error:
        raise ImageError(
            f"The data URI holds half of a character, which no text may: it starts with {payload[:_SHOWN]!a}."
        ) from error


def _from_base64(payload: str) -> bytes:
    packed = "".join(payload.split())
    try:
        raw = b"".join((unquote_to_bytes(packed) if "%" in packed else packed.encode("ascii")).split())
        if len(raw) % 4 in (2, 3) and not raw.endswith(b"="):
            raw += b"=" * (-len(raw) % 4)
        return base64.b64decode(raw, validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        why = " Its length does not fit either: it may have been cut." if len(packed) % 4 else ""
        if _SCHEME in packed.lower():
            why = " Another data URI begins in it: give one a line."
        elif re.search("[-_]", packed):
            why = " Letters of URL-safe base64 are in it: replace - by + and _ by /."
        raise ImageError(
            f"The data URI says base64, but what follows is not: it starts with {payload[:_SHOWN]!r}.{why}"
        ) from error
