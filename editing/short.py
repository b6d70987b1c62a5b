"""A text's first sentence, for where there is room for one line."""

from __future__ import annotations

import re

_LONGEST = 120
# Not that of "e.g."
_SENTENCE_END = re.compile(r"""(?<!\.\w)[.!?]["')]?(?=\s|$)""")


def in_short(text: str) -> str:
    """The first sentence of a text, on one line, without its full stop and at most 120 characters long."""
    whole = " ".join(text.split())
    # what is quoted may be several sentences
    ends = (found.end() for found in _SENTENCE_END.finditer(whole) if whole.count('"', 0, found.end()) % 2 == 0)
    first = whole[: next(ends, None)].removesuffix(".")
    return first if len(first) <= _LONGEST else first[: _LONGEST - 1].rstrip() + "…"
