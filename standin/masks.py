"""A mask as a request has it: of the picture's size, and in the form that the model takes it in."""

from __future__ import annotations

import io

from PIL import Image

from .sizes import Size

# What a lossy file may blur between the two parts.
_BETWEEN = 0.02
_DARK, _LIGHT = 64, 192
_TURNED = (5, 6, 7, 8)
_ORIENTATION = 0x0112


class BadMask(Exception):
    """The mask cannot be used; the text says why."""


def marked(mask: bytes, marks: str, source: bytes) -> Image.Image:
    """What is to be changed of a picture, as an "L" picture: 255 there, 0 elsewhere. Raises BadMask.

    mask, source: the files as they were sent. marks: "white" or "transparent", whichever the model takes.
    """
    try:
        picture = Image.open(io.BytesIO(mask), formats=("PNG", "JPEG", "WEBP", "GIF"))
        own, asked = picture.size, upright(source)
        if own != asked:
            raise BadMask(f"mask_url is {own[0]}x{own[1]}, and the picture {asked[0]}x{asked[1]}")
        picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise BadMask(f"cannot identify image file: mask_url is no jpeg, png, gif or webp ({e})") from e
    if marks == "transparent":
        if "A" not in picture.getbands():
            raise BadMask("mask_url has no alpha channel: transparent pixels are the part to change")
        return picture.getchannel("A").point(lambda alpha: 255 if alpha < 128 else 0)
    if "A" in picture.getbands() and picture.getchannel("A").getextrema() != (255, 255):
        raise BadMask("mask_url is transparent in places: white pixels are the part to change, black ones stay")
    grey = picture.convert("L")
    if sum(grey.histogram()[_DARK:_LIGHT]) > _BETWEEN * grey.width * grey.height:
        raise BadMask("mask_url is not black and white")
    return grey.point(lambda value: 255 if value >= 128 else 0)


def upright(source: bytes) -> Size:
    """The size of a picture's file, turned as its EXIF says; raises what Pillow raises for what is none."""
    picture = Image.open(io.BytesIO(source))
    width, height = picture.size
    return (height, width) if picture.getexif().get(_ORIENTATION) in _TURNED else (width, height)
