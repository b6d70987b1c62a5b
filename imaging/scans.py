"""A JPEG of several scans decoded in one pass that also tells whether each scan has data for its last unit.

libjpeg decodes what it is fed and keeps back what it cannot use yet. Behind a whole scan it looks for the next mark
and passes over everything in front of it, two bytes at a time or a hundred. In the middle of a scan it takes in six
bytes at least or none: its reader fills up a buffer of eight whenever less than two are left in it. So a few bytes
that no scan needs are fed behind each one. They are all gone at once behind a whole scan; behind one that was cut
they are taken for data, and a rest is kept back. They are ones, which no code of JPEG's is made of, so that they
stand in for no more than a few units of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

# What a whole scan may take in of what follows it, and once more what nothing but the search for a mark takes in.
_ONE = b"\xff\0"
_PROBES = (7 * _ONE, _ONE)


def decode_scans(pieces: Sequence[bytes], mode: str, layout: str, size: tuple[int, int]) -> tuple[Image.Image, bool]:
    """The picture, and whether a scan in front of the last piece looks cut.

    pieces: the file, each but the last ending where a scan's data do. Raises ValueError as `Image.frombytes` does for
    what cannot be decoded, or not to the end.
    """
    picture = Image.new(mode, size)
    decoder = Image._getdecoder(mode, "jpeg", (layout, ""))
    decoder.setimage(picture.im, (0, 0, *size))
    left, looks_cut = b"", False
    for piece in pieces:
        for fed in (piece, *_PROBES) if piece is not pieces[-1] else (piece,):
            data = left + fed if left else fed
            used, error = decoder.decode(data)
            if used < 0:
                if error:
                    raise ValueError("cannot decode image data")
                return picture, looks_cut
            left = data[used:]
            looks_cut = looks_cut or bool(left and fed is not piece)
    raise ValueError("not enough image data")
