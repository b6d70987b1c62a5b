"""Whether a text is a reply, or JSON made to fill the memory. Pure."""

from __future__ import annotations

# A row has some fifty signs, the longest list that is asked for a thousand rows, and no sign costs much more than 100
# bytes of memory: so a reply of any length becomes at most about 50 MB beside its own texts.
MAX_SIGNS = 500_000


def looks_too_intricate(body: bytes, limit: int = MAX_SIGNS) -> bool:
    """Whether JSON has more values in it than any reply, told before it is read by counting the signs between them.

    Base64 has none of these signs, so that a picture in a reply counts for nothing.
    """
    if len(body) <= limit:
        return False
    return sum(body.count(sign) for sign in (b",", b":", b"[", b"{")) > limit
