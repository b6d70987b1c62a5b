"""What this room raises: one tree, shown to the artist at the node.

ImageError            the picture, mask, bytes or URI cannot be used; the text says why and what to do
└── ImageTooLarge     refused by a limit before anything was decoded

Of a file, the text says what is wrong with it and no more: what to do depends on where it came from, which only the
caller knows.
"""

from __future__ import annotations


class ImageError(ValueError):
    """A picture, mask, byte string or URI that cannot be used; the text says what is wrong and what to do."""

    __module__ = "kontext_bridge"


class ImageTooLarge(ImageError):
    """A picture over one of the limits, refused from its header before anything was decoded."""

    __module__ = "kontext_bridge"
