"""Keeping the key, data URIs and presigned signatures out of everything that is shown or written."""

from __future__ import annotations

import re
from typing import Any

_PIECE = 12
_HIDDEN = "[hidden]"
# The fields of a request that hold pictures, of whichever model, in the order in which these are sent.
PICTURE_FIELDS = ("input_image", "input_image_2", "input_images", "image_style_references", "mask_url")
# Megabytes that are neither shown nor kept as texts.
_PICTURES = ("b64_json", *PICTURE_FIELDS)
_DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*[^\s\"'<>]{0,40}?,[A-Za-z0-9+/=%_-]{16,}", re.I)
_USER = re.compile(r"//[^\s/\"'<>?#]{1,4096}@|[^\s/\"'<>@?#:]{1,256}:[^\s/\"'<>@?#]{1,256}@")
_URL_QUERY = re.compile(r"(https?://[^\s\"'<>?]+)\?[^\s\"'<>]+", re.I)


class Redactor:
    """Takes a key, and every piece of it that is 12 characters or longer, out of a text."""

    def __init__(self, key: str | None) -> None:
        self._key = key or ""
        self._pieces = {self._key[i : i + _PIECE] for i in range(len(self._key) - _PIECE + 1)}

    def __call__(self, text: str) -> str:
        """The text without the key, without data URIs and without the query part and the user of any URL."""
        text = _DATA_URI.sub("[data URI]", text)
        text = _without_user(text)
        text = _URL_QUERY.sub(r"\1?…", text)
        if not self._key:
            return text
        text = text.replace(self._key, _HIDDEN)
        return self._without_pieces(text)

    def value(self, parsed: Any) -> Any:
        """A JSON value without the key in any of its texts and names; lists and objects are changed in place."""
        whole = [parsed]
        left: list[Any] = [whole]
        while left:
            holder = left.pop()
            for place, item in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
                if place in _PICTURES:
                    continue
                if isinstance(item, str) and self._has_a_piece(item):
                    holder[place] = self._without_pieces(item)
                elif isinstance(item, (dict, list)):
                    left.append(item)
                if isinstance(place, str) and self._has_a_piece(place):
                    holder[self._without_pieces(place)] = holder.pop(place)
        return whole[0]

    def _has_a_piece(self, text: str) -> bool:
        # each by itself, as that is quick in a text of megabytes; most texts are too short to hold one
        return (len(text) >= _PIECE and any(piece in text for piece in self._pieces)) or bool(
            self._key and self._key in text
        )

    def _without_pieces(self, text: str) -> str:
        if not self._pieces:
            return text.replace(self._key, _HIDDEN)
        out: list[str] = []
        at = 0
        while at < len(text):
            if text[at : at + _PIECE] not in self._pieces:
                out.append(text[at])
                at += 1
                continue
            end = at + _PIECE
            while text[end - _PIECE + 1 : end + 1] in self._pieces and end < len(text):
                end += 1
            out.append(_HIDDEN)
            at = end
        return "".join(out)


def without_query(url: str) -> str:
    """A URL fit to be shown: scheme, host and path, never a user or the signature that may follow."""
    return _without_user(url.split("?", 1)[0].split("#", 1)[0])


def _without_user(text: str) -> str:
    if "@" not in text:
        return text
    return _USER.sub(lambda found: "//…@" if found[0].startswith("//") else "…@", text)
