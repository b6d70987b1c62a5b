"""Texts of megabytes in JSON; a reply's are set apart before it is read, so that they are not read letter by letter.

A row repeats what was sent, and is asked for again and again. While `json.loads` reads megabytes, or a text of them is
made, no other thread of Python runs, ComfyUI's among them: what nobody reads is not even made. Pure.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Collection, Iterator
from typing import Any

# Blocks of so many bytes are looked at for a quotation mark; a text that fills one is set apart.
_BLOCK = 1 << 14
_QUOTE = b'"'
_PIECE = 1 << 16
_MEGABYTES = 1 << 20
_turn = threading.Lock()
_ESCAPED = ('"', "\\", *map(chr, range(32)))


@contextlib.contextmanager
def in_turn(size: int = _MEGABYTES) -> Iterator[None]:
    """Work alone on so many bytes or more than a megabyte; the work waits for nothing else.

    Side by side it would be no quicker, and each thread more that computes keeps ComfyUI's from the interpreter for
    its 5 ms.
    """
    with _turn if size >= _MEGABYTES else contextlib.nullcontext():
        yield


def set_apart(body: bytes) -> tuple[bytes, dict[str, memoryview]]:
    """The JSON with a name in the place of each large text, and by name where in the body these lie.

    What lies between two quotation marks may be no text, or a part of one: whoever reads the JSON finds that it is
    none, or that a name is not there.
    """
    texts: dict[str, memoryview] = {}
    parts: list[bytes] = []
    mark, done, at = uuid.uuid4().hex, 0, 0
    while at + _BLOCK <= len(body):
        if body.rfind(_QUOTE, at, at + _BLOCK) >= 0:
            at += _BLOCK
            continue
        first, end = body.rfind(_QUOTE, done, at) + 1, body.find(_QUOTE, at + _BLOCK)
        if not first or end < 0:
            break
        name = f"text {mark} {len(texts)}"
        texts[name] = memoryview(body)[first:end]
        parts += [body[done:first], name.encode()]
        done = end
        at = end + 1
    return b"".join((*parts, body[done:])) if parts else body, texts


def put_back(parsed: Any, texts: dict[str, memoryview], unread: Collection[str] = ()) -> bool:
    """Put the texts into the place of their names, in place, and take the fields of the names `unread` away.

    False where a name was not there as a value by itself, or a text is not ASCII without escapes.
    """
    missing = set(texts)
    left = [(parsed, True)]
    while left:
        holder, read = left.pop()
        for place, item in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            reads = read and place not in unread
            if isinstance(item, dict | list):
                left.append((item, reads))
            elif isinstance(item, str) and item in texts:
                missing.discard(item)
                if reads:
                    text = _plain(texts[item])
                    if text is None:
                        return False
                    holder[place] = text
            if read and not reads:
                del holder[place]
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
