"""Data URIs (RFC 2397): encoded pictures as text, and back."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

from .codec import EncodedImage
from .errors import ImageError, ImageTooLarge
from .limits import MIB, Limits

_SCHEME = "data:"
_SHOWN = 40


def to_data_uri(picture: EncodedImage) -> str:
    """The picture as `data:<media type>;base64,<data>`."""
    return f"{_SCHEME}{picture.media_type};base64,{base64.b64encode(picture.data).decode('ascii')}"


def is_data_uri(text: str) -> bool:
    """Whether the text is a data URI by its scheme (in any case, after blanks)."""
    return text[:64].lstrip()[: len(_SCHEME)].lower() == _SCHEME


def parse_data_uri(text: str, limits: Limits | None = None) -> bytes:
    """The bytes of a data URI, base64 or percent-encoded.

    Blanks and line breaks in base64 are skipped; anything else that is not base64 is refused. The length is
    checked before anything is decoded. The stated media type is not believed: decode looks at the bytes.
    Raises ImageError, ImageTooLarge.
    """
    limits = limits or Limits()
    text = text.strip()
    if not is_data_uri(text):
        raise ImageError(f"This is not a data URI: it starts with {text[:_SHOWN]!r}. One starts with 'data:'.")
    header, comma, payload = text.partition(",")
    if not comma:
        raise ImageError(f"The data URI {text[:_SHOWN]!r} has no comma, so no data. Was it cut when it was copied?")
    is_base64 = header.lower().rstrip().endswith(";base64")
    _check_length(payload, is_base64, limits)
    data = _from_base64(payload) if is_base64 else unquote_to_bytes("".join(payload.split()))
    if not data:
        raise ImageError(f"The data URI {header[:_SHOWN]!r} holds no data after its comma.")
    limits.check_bytes(len(data))
    return data


def _check_length(payload: str, is_base64: bool, limits: Limits) -> None:
    """Base64 takes 4 characters for 3 bytes, plus line breaks; a percent-encoded byte takes up to 3."""
    longest = limits.max_bytes * (3 if not is_base64 else 1.5) + 1024
    if len(payload) > longest:
        raise ImageTooLarge(
            f"The data URI is {len(payload) / MIB:.1f} MiB of text; "
            f"pictures of at most {limits.max_bytes / MIB:.1f} MiB are read."
        )


def _from_base64(payload: str) -> bytes:
    packed = "".join(payload.split())
    try:
        raw = unquote_to_bytes(packed) if "%" in packed else packed.encode("ascii")
        return base64.b64decode(raw, validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        cut = " Its length does not fit either: it may have been cut." if len(packed) % 4 else ""
        raise ImageError(
            f"The data URI says base64, but what follows is not: it starts with {payload[:_SHOWN]!r}.{cut}"
        ) from error
