"""Pictures to bytes and back: PNG, WebP and JPEG out; those and GIF in."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import containers
from .cores import CORES, side_by_side
from .decoders import Pixels, decode_gif, decode_jpeg, decode_png, decode_webp
from .errors import ImageError, ImageTooLarge
from .formats import DEFAULT_FORMAT, ImageFormat
from .jpeg import read_jpeg
from .limits import Limits
from .pixels import UInt8, from_uint8, to_uint8, with_alpha
from .png import write_png

logger = logging.getLogger(__name__)

_WEBP_MAX_SIDE = 16383
_JPEG_MAX_SIDE = 65500


@dataclass(frozen=True)
class EncodedImage:
    """One picture as the bytes of a file, with its media type and its size in pixels."""

    data: bytes
    media_type: str
    width: int
    height: int


@dataclass(frozen=True)
class DecodedImage:
    """One picture's 8-bit pixels, upright: rgb [H,W,3]; alpha [H,W], 255 = opaque, or None without one."""

    rgb: UInt8
    alpha: UInt8 | None
    media_type: str

    @property
    def width(self) -> int:
        """Pixels across."""
        return int(self.rgb.shape[1])

    @property
    def height(self) -> int:
        """Pixels down."""
        return int(self.rgb.shape[0])


@dataclass(frozen=True)
class Stacked:
    """Pictures as one IMAGE [B,H,W,3] and one MASK [B,H,W], fp32 in 0..1, mask 1 = transparent.

    resized: the indices of pictures that were brought to the first one's size.
    """

    image: Tensor
    mask: Tensor
    resized: tuple[int, ...]


def encode(pixels: UInt8, format: ImageFormat = DEFAULT_FORMAT, quality: int = 90) -> EncodedImage:
    """One picture's 8-bit pixels [H,W,C], C 1, 3 or 4, as the bytes of a file.

    quality: 1 to 100, for JPEG and lossy WebP. A WebP side ends at 16383 pixels: a longer picture becomes a
    PNG, which the log and the media type say.
    Raises ImageError for transparency in a JPEG (an alpha that is opaque throughout is dropped), and for a
    quality out of range.
    """
    if not 1 <= quality <= 100:
        raise ImageError(f"Quality {quality} is out of range: 1 (smallest) to 100 (best).")
    height, width = pixels.shape[:2]
    if format in (ImageFormat.WEBP, ImageFormat.WEBP_LOSSLESS) and max(width, height) > _WEBP_MAX_SIDE:
        logger.warning("%dx%d is too long for WebP (%d a side): written as PNG", width, height, _WEBP_MAX_SIDE)
        format = ImageFormat.PNG
    if format is ImageFormat.PNG:
        return EncodedImage(write_png(pixels), containers.PNG, width, height)
    if format is ImageFormat.JPEG:
        return EncodedImage(_write_jpeg(pixels, quality), containers.JPEG, width, height)
    return EncodedImage(
        _write_webp(pixels, format is ImageFormat.WEBP_LOSSLESS, quality), containers.WEBP, width, height
    )


def encode_batch(
    image: Tensor,
    mask: Tensor | None = None,
    *,
    format: ImageFormat = DEFAULT_FORMAT,
    quality: int = 90,
    workers: int | None = None,
) -> list[EncodedImage]:
    """Every picture of an IMAGE [B,H,W,C] as bytes, in order, encoded side by side in threads.

    mask [B,H,W] or [1,H,W], 1 = transparent, becomes the alpha (see with_alpha). workers: threads, by default one a
    core. Raises ImageError as check_image, with_alpha and encode do, naming the picture.
    """
    image = with_alpha(image, mask)
    count = image.shape[0]

    def one(index: int) -> EncodedImage:
        try:
            return encode(to_uint8(image[index]), format, quality)
        except ImageError as error:
            raise _named(error, index, count) from error

    return side_by_side(one, count, workers or CORES)


def decode(data: bytes, limits: Limits | None = None) -> DecodedImage:
    """One file's picture, recognised by its content: PNG, JPEG, WebP, or GIF.

    8 bits a channel (of 16, the high byte), upright by its Exif orientation, the first frame of an animation;
    grey, palette, CMYK and alpha are handled, colour profiles are not applied (as in ComfyUI's LoadImage).
    The limits are checked before anything is decoded. Raises ImageTooLarge, and ImageError for anything that
    is not a whole picture: what is truncated or damaged is never filled up.
    """
    limits = limits or Limits()
    limits.check_bytes(len(data))
    media_type = containers.sniff(data)
    try:
        rgb, alpha = _decoded(data, media_type, limits)
    except MemoryError as error:
        raise ImageTooLarge(f"This machine has too little memory left to read the {media_type} picture.") from error
    return DecodedImage(rgb, alpha, media_type)


def _decoded(data: bytes, media_type: str, limits: Limits) -> Pixels:
    if media_type == containers.PNG:
        return decode_png(containers.read_png(data, limits))
    if media_type == containers.JPEG:
        return decode_jpeg(read_jpeg(data, limits)), None
    if media_type == containers.GIF:
        return decode_gif(containers.read_gif(data, limits))
    return decode_webp(containers.read_webp(data, limits))


def decode_batch(
    files: Sequence[bytes], limits: Limits | None = None, workers: int | None = None
) -> list[DecodedImage]:
    """Every file's picture, in order, decoded side by side; an ImageError names which one it is about."""

    def one(index: int) -> DecodedImage:
        try:
            return decode(files[index], limits)
        except ImageError as error:
            raise _named(error, index, len(files)) from error

    return side_by_side(one, len(files), workers or CORES)


def to_tensors(pictures: Sequence[DecodedImage]) -> Stacked:
    """Pictures as IMAGE and MASK; one of another size than the first is resampled (Lanczos) to the first's.

    Without alpha a picture's mask is zero. Raises ImageError where there is no picture at all, and MemoryError.
    """
    if not pictures:
        raise ImageError("There is no picture to return.")
    height, width = pictures[0].height, pictures[0].width
    image, mask = room(len(pictures), height, width)
    brought = []
    for index, picture in enumerate(pictures):
        if (picture.height, picture.width) != (height, width):
            brought.append(index)
            picture = resized(picture, width, height)
        from_uint8(picture.rgb, image[index])
        if picture.alpha is not None:
            from_uint8(255 - picture.alpha, mask[index])
    return Stacked(image, mask, tuple(brought))


def room(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """IMAGE and MASK of which no page is in memory yet; the mask reads as zero. Raises MemoryError."""
    try:
        image = torch.empty(count, height, width, 3)
    except RuntimeError as error:  # that there is no memory, in torch's words
        raise MemoryError(str(error)) from error
    return image, torch.from_numpy(np.zeros((count, height, width), np.float32))


def resized(picture: DecodedImage, width: int, height: int) -> DecodedImage:
    """The picture resampled (Lanczos) to another size."""
    alpha = None if picture.alpha is None else _resize(picture.alpha, width, height)
    return DecodedImage(_resize(picture.rgb, width, height), alpha, picture.media_type)


def _write_jpeg(pixels: UInt8, quality: int) -> bytes:
    height, width, channels = pixels.shape
    if channels == 4:
        if pixels[..., 3].min() < 255:
            raise ImageError(
                "JPEG cannot hold transparency. Choose PNG or WebP; or make it opaque: disconnect the mask, or connect "
                "an empty one (Solid Mask of 0) where the picture has an alpha of its own."
            )
        pixels = np.ascontiguousarray(pixels[..., :3])
    if max(width, height) > _JPEG_MAX_SIDE:
        raise ImageError(f"{width}x{height} is too long for JPEG ({_JPEG_MAX_SIDE} a side). Choose PNG.")
    out = io.BytesIO()
    # Full-resolution chroma: an edit's coloured edges and small text survive.
    _to_pillow(pixels).save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def _write_webp(pixels: UInt8, lossless: bool, quality: int) -> bytes:
    out = io.BytesIO()
    if lossless:
        # For lossless WebP quality is effort; method 0 at 0 is the fastest and loses nothing. `exact` keeps
        # the colour under transparent pixels, which a later node may uncover.
        _to_pillow(pixels).save(out, "WEBP", lossless=True, quality=0, method=0, exact=True)
    else:
        _to_pillow(pixels).save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()


def _to_pillow(pixels: UInt8) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def _resize(pixels: UInt8, width: int, height: int) -> UInt8:
    return np.asarray(_to_pillow(pixels).resize((width, height), Image.Resampling.LANCZOS))


def _named(error: ImageError, index: int, count: int) -> ImageError:
    return type(error)(f"Picture {index + 1} of {count}: {error}") if count > 1 else error
