"""How large a picture from outside may be, checked on its header before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ImageError, ImageTooLarge

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Bounds for a picture that comes from outside.

    max_bytes: length of the file. max_pixels: width x height; the default is 8192 x 8192, which decodes to
    192 MiB of RGB and peaks at a few times that. max_side: pixels along the longer side.
    """

    max_bytes: int = 64 * MIB
    max_pixels: int = 8192 * 8192
    max_side: int = 32768

    def check_bytes(self, length: int) -> None:
        """Raise ImageTooLarge where a file of `length` bytes is over the limit."""
        if length > self.max_bytes:
            raise ImageTooLarge(
                f"The picture is {length / MIB:.1f} MiB; at most {self.max_bytes / MIB:.1f} MiB are read."
            )

    def check_size(self, width: int, height: int, media_type: str) -> None:
        """Raise ImageTooLarge (ImageError for an empty picture) from the size that a file's header states."""
        if width <= 0 or height <= 0:
            raise ImageError(f"The {media_type} picture says it is {width}x{height} pixels: there is nothing in it.")
        if max(width, height) > self.max_side or width * height > self.max_pixels:
            raise ImageTooLarge(
                f"The {media_type} picture says it is {width}x{height} pixels; at most {self.max_side} "
                f"a side and {self.max_pixels / 1e6:.1f} million in all are decoded."
            )
