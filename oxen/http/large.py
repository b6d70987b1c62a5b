"""Texts of megabytes in JSON; a reply's are set apart before it is read, so that they are not read letter by letter.

A row repeats what was sent, and is asked for again and again. While `json.loads` reads megabytes no other thread of
Python runs, ComfyUI's among them. Pure.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

# Blocks of so many bytes are looked at for a quotation mark; a text that fills one is set apart.
_BLOCK = 1 << 14
_QUOTE = b'"'
_PIECE = 1 << 16
_ESCAPED = ('"', "\\", *map(chr, range(32)))


def set_apart(body: bytes) -> tuple[bytes, dict[str, str]]:
    """The JSON with a name in the place of each large text of ASCII without escapes, and these texts by name.

    What lies between two quotation marks may be no text, or a part of one: whoever reads the JSON finds that it is
    none, or that a name is not there.
    """
    texts: dict[str, str] = {}
    parts: list[bytes] = []
    mark, done, at = uuid.uuid4().hex, 0, 0
    while at + _BLOCK <= len(body):
        if body.rfind(_QUOTE, at, at + _BLOCK) >= 0:
            at += _BLOCK
            continue
        first, end = body.rfind(_QUOTE, done, at) + 1, body.find(_QUOTE, at + _BLOCK)
        if not first or end < 0:
            break
        text = _plain(memoryview(body)[first:end])
        if text is not None:
            name = f"text {mark} {len(texts)}"
            texts[name] = text
            parts += [body[done:first], name.encode()]
            done = end
        at = end + 1
    return b"".join((*parts, body[done:])) if parts else body, texts


def put_back(parsed: Any, texts: dict[str, str]) -> bool:
    """Put the texts into the place of their names, in place; whether all were there, each as a value by itself."""
    missing = set(texts)
    left = [parsed]
    while left:
        holder = left.pop()
        for place, item in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if isinstance(item, dict | list):
                left.append(item)
            elif isinstance(item, str) and item in texts:
                holder[place] = texts[item]
                missing.discard(item)
    return not missing


def is_plain(text: str) -> bool:
    """Whether a text stands in JSON as it is: ASCII that needs no escapes."""
    return text.isascii() and not any(sign in piece for piece in pieces(text) for sign in _ESCAPED)


def pieces(text: str) -> Iterator[str]:
    """A text in pieces that stay in a core's cache, whatever is done with each."""
    return (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))


def _plain(piece: memoryview) -> str | None:
    try:
        text = str(piece, "ascii")
    except UnicodeDecodeError:
        return None
    return text if is_plain(text) else None
