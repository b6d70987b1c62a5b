"""Pixels from the parts of a picture file.

The pixel decoders are Pillow's (zlib, libjpeg, LZW, libwebp), but called on parts that containers.py and jpeg.py
have walked: no other format can be opened, none of Pillow's bomb warnings or metadata parsers take part, and
`ImageFile.LOAD_TRUNCATED_IMAGES`, which ComfyUI and other packs switch on for the whole process, has no say.
Each takes a file's parts and gives rgb [H,W,3] and alpha [H,W] or None, 8 bits, upright.
"""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image
from PIL.WebPImagePlugin import WebPImageFile

from . import containers
from .containers import GifParts, PngParts, WebpParts, damaged, truncated
from .errors import ImageError
from .jpeg import JpegParts, Probe
from .pixels import UInt8
from .scans import decode_scans

# (bits, colour type) to Pillow's mode and the layout in the file. Pillow keeps the high byte of 16 bits.
_PNG_MODES = {
    (1, 0): ("1", "1"),
    (2, 0): ("L", "L;2"),
    (4, 0): ("L", "L;4"),
    (8, 0): ("L", "L"),
    (16, 0): ("I;16", "I;16B"),
    (8, 2): ("RGB", "RGB"),
    (16, 2): ("RGB", "RGB;16B"),
    (1, 3): ("P", "P;1"),
    (2, 3): ("P", "P;2"),
    (4, 3): ("P", "P;4"),
    (8, 3): ("P", "P"),
    (8, 4): ("LA", "LA"),
    (16, 4): ("RGBA", "LA;16B"),
    (8, 6): ("RGBA", "RGBA"),
    (16, 6): ("RGBA", "RGBA;16B"),
}
_JPEG_MODES = {1: ("L", "L"), 3: ("RGB", "RGB"), 4: ("CMYK", "CMYK;I")}
# To decode a Probe: Pillow's mode, and what the file is to be taken for, so that its channels are not mixed.
_PROBE_MODES = {1: ("L", "L"), 3: ("L", "YCbCr"), 4: ("CMYK", "CMYK")}
_MID_GREY = 128
_EIGHTH = 8
# What is skipped or becomes pixels; see jpeg.py. libjpeg fills up with zeros, so the first begins with a one. In a
# flat picture it may still be the very same pixels, but hardly ones alone and zeros alone, too.
_FILLERS = (b"\xaa\x55\xcc\x33" * 64, b"\xff\0" * 128, b"\0" * 256)
# Pixels above which a JPEG of several scans is decoded once and not twice.
_LARGE = 1 << 22
_INFLATE_STEP = 1 << 14
# Pixels are copied in strips that stay in a core's cache: a third of the time of the whole at once.
_STRIP_PIXELS = 1 << 18
# GIF has 8 at most; what LZW itself allows is read, as browsers do.
_MAX_GIF_BITS = 12
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

Pixels = tuple[UInt8, UInt8 | None]


def decode_png(parts: PngParts) -> Pixels:
    """A PNG's pixels; a key colour becomes alpha."""
    if (parts.bits, parts.colour_type) not in _PNG_MODES:
        raise damaged(containers.PNG, f"{parts.bits} bits with colour type {parts.colour_type} do not exist")
    mode, layout = _PNG_MODES[parts.bits, parts.colour_type]
    picture = _png_picture(parts, mode, layout)
    # Rows that were missing are left zero, so a last row with anything in it was there.
    last_row = picture.crop((0, parts.height - 1, parts.width, parts.height))
    if parts.interlaced or not np.asarray(last_row).any():
        _check_rows(parts)
    if mode == "P":
        rgb, alpha = _from_palette(np.asarray(picture), parts.palette, parts.transparency)
    elif mode in ("1", "L", "I;16"):
        rgb, alpha = _from_grey(picture, parts)
    else:
        rgb, alpha = _from_colour(picture, parts)
    return _upright(rgb, parts.orientation), None if alpha is None else _upright(alpha, parts.orientation)


def decode_jpeg(parts: JpegParts) -> UInt8:
    """A JPEG's rgb; CMYK is read as Adobe writes it, inverted.

    A scan that an end mark closes too early is told from a whole one (see jpeg.py), but for arithmetic coding, where
    that cannot be. A progressive file that lacks later scans is a whole but coarser picture, and passes.
    """
    picture, certain = _jpeg_picture_and_proof(parts)
    # Arithmetic coding does without its last zeros, so there more bytes would change a whole picture as well.
    if parts.is_huffman and not certain:
        # What has no probe is a file of several scans, slow to decode and seldom so flat.
        for filler in _FILLERS if parts.probe() else _FILLERS[:1]:
            if not _are_equal(picture, _jpeg_picture(parts, parts.file(filler))):
                raise truncated(containers.JPEG, "before its last pixel, though it has an end mark")
    return _upright(_pixels(picture, "RGB"), parts.orientation)


def _jpeg_picture_and_proof(parts: JpegParts) -> tuple[Image.Image, bool]:
    """A JPEG's picture, and whether it is certain already that no scan of it was cut."""
    if not parts.is_huffman or parts.is_one_scan:
        picture = _jpeg_picture(parts, parts.file())
        return picture, parts.is_huffman and _proves_whole(parts.probe(), len(parts.channels))
    mode, layout = _JPEG_MODES[len(parts.channels)]
    with _in_words(containers.JPEG):
        picture, looks_cut = decode_scans(parts.pieces(), mode, layout, (parts.width, parts.height))
    # What this leaves open, whether the last few units of a scan have all of their data, is worth no second look at a
    # large picture.
    return picture, not looks_cut and parts.width * parts.height > _LARGE


def decode_gif(parts: GifParts) -> Pixels:
    """A GIF's first frame on its canvas, transparent around the frame."""
    left, top, width, height = parts.box
    if parts.bits > _MAX_GIF_BITS:
        raise damaged(containers.GIF, f"it claims {parts.bits} bits a pixel")
    frame = _strictly(containers.GIF, "P", (width, height), parts.data, "gif", parts.bits, parts.interlaced, -1)
    palette = parts.palette or bytes(np.repeat(np.arange(256, dtype=np.uint8), 3))
    key = b"" if parts.transparent is None else b"\xff" * parts.transparent + b"\0"
    rgb, alpha = _from_palette(np.asarray(frame), palette, key)
    if (width, height) == (parts.width, parts.height):
        return rgb, alpha
    box = np.s_[top : top + height, left : left + width]
    canvas = np.zeros((parts.height, parts.width, 3), np.uint8)
    cover = np.zeros((parts.height, parts.width), np.uint8)
    if parts.transparent is not None:
        canvas[:] = _from_palette(np.array([parts.transparent], np.uint8), palette, b"")[0]
    canvas[box] = rgb
    cover[box] = 255 if alpha is None else alpha
    return canvas, cover


def decode_webp(parts: WebpParts) -> Pixels:
    """A WebP's first frame; libwebp refuses what is not whole, but for what WebpParts tells of."""
    picture = None
    if parts.shorter is not None:
        with contextlib.suppress(ImageError):
            picture = _webp_picture(parts, parts.shorter)
    if picture is None:
        picture = _webp_picture(parts, parts.data)
        if parts.other is not None and not _are_equal(picture, _webp_picture(parts, parts.other)):
            raise truncated(containers.WEBP, "before its last pixel, though its sizes say that it is whole")
    pixels = _pixels(picture, picture.mode)
    alpha = _upright(pixels[..., 3], parts.orientation) if pixels.shape[2] == 4 else None
    return _upright(pixels[..., :3], parts.orientation), alpha


def _webp_picture(parts: WebpParts, data: bytes) -> Image.Image:
    try:
        picture = WebPImageFile(io.BytesIO(data))
        picture.load()
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"The {containers.WEBP} picture has {parts.width}x{parts.height} pixels, more than Pillow is set to "
            "read on this machine (PIL.Image.MAX_IMAGE_PIXELS)."
        ) from error
    except (SyntaxError, OSError, EOFError, ValueError) as error:
        raise damaged(containers.WEBP, "libwebp cannot decode it") from error
    if picture.size != (parts.width, parts.height):
        raise damaged(containers.WEBP, "its size is not the one its header states")
    return picture


def _png_picture(parts: PngParts, mode: str, layout: str) -> Image.Image:
    return _strictly(containers.PNG, mode, (parts.width, parts.height), parts.data, "zip", layout, parts.interlaced)


def _jpeg_picture(parts: JpegParts, data: bytes) -> Image.Image:
    mode, layout = _JPEG_MODES[len(parts.channels)]
    return _strictly(containers.JPEG, mode, (parts.width, parts.height), data, "jpeg", layout, "")


def _proves_whole(probe: Probe | None, channels: int) -> bool:
    if probe is None:
        return False
    mode, taken_for = _PROBE_MODES[channels]
    try:
        small = _strictly(containers.JPEG, mode, probe.size, probe.data, "jpeg", mode, taken_for, _EIGHTH, 0)
    except ImageError:
        return False
    return int(np.asarray(small.crop((*probe.at, probe.at[0] + 1, probe.at[1] + 1))).flat[0]) != _MID_GREY


def _check_rows(parts: PngParts) -> None:
    """Raise ImageError where the zlib stream ends before the last row: Pillow leaves the rest black unsaid."""
    bits = parts.bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[parts.colour_type]
    missing = 0
    for left, top, across, down in _ADAM7 if parts.interlaced else ((0, 0, 1, 1),):
        columns, rows = -((left - parts.width) // across), -((top - parts.height) // down)
        missing += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    inflater = zlib.decompressobj()
    for at in range(0, len(parts.data), _INFLATE_STEP):
        try:
            missing -= len(inflater.decompress(parts.data[at : at + _INFLATE_STEP]))
        except zlib.error as error:
            raise damaged(containers.PNG, "its pixels cannot be decoded") from error
        if missing <= 0:
            return
    raise truncated(containers.PNG, "before its last row")


def _strictly(
    media_type: str, mode: str, size: tuple[int, int], data: bytes | memoryview, codec: str, *args: Any
) -> Image.Image:
    """Image.frombytes demands a whole picture, unlike Image.open, which a global switch can make lenient."""
    with _in_words(media_type):
        return Image.frombytes(mode, size, data, codec, args)


@contextlib.contextmanager
def _in_words(media_type: str) -> Iterator[None]:
    """Raise ImageError for what Pillow's decoders raise."""
    try:
        yield
    except ValueError as error:
        if "not enough" in str(error):
            raise truncated(media_type, "before its last row") from error
        raise damaged(media_type, "its pixels cannot be decoded") from error
    except (OSError, SyntaxError) as error:
        raise damaged(media_type, "its pixels cannot be decoded") from error


def _are_equal(picture: Image.Image, other: Image.Image) -> bool:
    strips = zip(_strips(picture, picture.mode), _strips(other, other.mode), strict=True)
    return all(np.array_equal(one, two) for one, two in strips)


def _strips(picture: Image.Image, mode: str) -> Iterator[UInt8]:
    """The picture's pixels in a mode from top to bottom, in strips of whole rows."""
    rows = max(1, _STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        yield np.asarray(strip if strip.mode == mode else strip.convert(mode))


def _pixels(picture: Image.Image, mode: str) -> UInt8:
    """The picture's pixels [H,W,C] in a mode of several channels."""
    pixels = np.empty((picture.height, picture.width, len(mode)), np.uint8)
    top = 0
    for strip in _strips(picture, mode):
        pixels[top : top + len(strip)] = strip
        top += len(strip)
    return pixels


def _from_palette(indices: UInt8, palette: bytes, alphas: bytes) -> Pixels:
    if not palette:
        raise ImageError("The picture uses a palette but holds none.")
    colours = np.zeros((256, 3), np.uint8)
    known = np.frombuffer(palette[: 768 - 768 % 3], np.uint8)
    known = known[: len(known) // 3 * 3].reshape(-1, 3)
    colours[: len(known)] = known
    if not alphas:
        return colours[indices], None
    opacity = np.full(256, 255, np.uint8)
    opacity[: len(alphas)] = np.frombuffer(alphas[:256], np.uint8)
    return colours[indices], opacity[indices]


def _from_grey(picture: Image.Image, parts: PngParts) -> Pixels:
    grey = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
    alpha = None
    if len(parts.transparency) >= 2:
        key = int.from_bytes(parts.transparency[:2], "big") & (1 << parts.bits) - 1
        scale = 1 if parts.bits == 16 else 255 // ((1 << parts.bits) - 1)
        alpha = np.where(grey == key * scale, 0, 255).astype(np.uint8)
    if parts.bits == 16:
        grey = grey >> 8
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2), alpha


def _from_colour(picture: Image.Image, parts: PngParts) -> Pixels:
    pixels = _pixels(picture, "RGBA" if picture.mode in ("LA", "RGBA") else "RGB")
    if pixels.shape[2] == 4:
        return pixels[..., :3], pixels[..., 3]
    if len(parts.transparency) < 6:
        return pixels, None
    high, low = (np.frombuffer(parts.transparency[at:6:2], np.uint8) for at in (0, 1))
    if parts.bits == 8:
        return pixels, _alpha_of_key(pixels, low)
    # The same rows unpacked as if their bytes were in the other order give the low bytes of 16 bits.
    lows = _pixels(_png_picture(parts, "RGB", "RGB;16L"), "RGB")
    return pixels, _alpha_of_key(pixels, high) | _alpha_of_key(lows, low)


def _alpha_of_key(pixels: UInt8, key: UInt8) -> UInt8:
    """0 where a pixel is of the key colour, 255 elsewhere."""
    return np.where((pixels == key).all(axis=2), 0, 255).astype(np.uint8)


def _upright(pixels: UInt8, orientation: int) -> UInt8:
    """The pixels as a viewer shows them, by Exif orientation 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
