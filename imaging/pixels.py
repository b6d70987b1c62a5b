"""IMAGE and MASK tensors, checked, and their 8-bit pixels."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import ImageError

UInt8 = NDArray[np.uint8]

# Rows are converted in blocks that stay in a core's cache: half the time of one pass over the whole picture.
_BLOCK_VALUES = 1 << 16
_LOOK = "Look at the node that it comes from."


def check_image(image: Tensor) -> Tensor:
    """The IMAGE itself, [B,H,W,C] floating point with C 1, 3 or 4 and every value finite.

    Values outside 0..1 are allowed (to_uint8 clamps them). Raises ImageError as `check_shape`, and for NaN or
    infinity, naming the first picture of the batch that holds one.
    """
    _check_values(check_shape(image), "picture")
    return image


def check_shape(image: object) -> Tensor:
    """The IMAGE itself, [B,H,W,C] with C 1, 3 or 4; the values are not looked at, so that it takes no time.

    Raises ImageError for any other shape or type, and for a picture of zero size.
    """
    if not isinstance(image, Tensor) or image.ndim != 4:
        raise ImageError(f"An IMAGE is [batch, height, width, channels]; this is {_shape(image)}. {_LOOK}")
    if 0 in image.shape[:3]:
        raise ImageError(f"The IMAGE has nothing in it: its shape is {_shape(image)}. {_LOOK}")
    if image.shape[3] not in (1, 3, 4):
        raise ImageError(
            f"The IMAGE has {image.shape[3]} channels; 1 (grey), 3 (RGB) or 4 (RGBA) can be used. "
            "Is a LATENT or a channels-first tensor connected?"
        )
    return image


def check_mask(mask: Tensor) -> Tensor:
    """The MASK as [B,H,W], floating point, 1 = masked or transparent; [H,W] gains a batch of one.

    Raises ImageError as `check_mask_shape`, and for NaN or infinity.
    """
    mask = check_mask_shape(mask)
    _check_values(mask, "mask")
    return mask


def check_mask_shape(mask: Tensor) -> Tensor:
    """The MASK as [B,H,W]; the values are not looked at. Raises ImageError for any other shape and for zero size."""
    if isinstance(mask, Tensor) and mask.ndim == 2:
        mask = mask.unsqueeze(0)
    if not isinstance(mask, Tensor) or mask.ndim != 3:
        raise ImageError(f"A MASK is [batch, height, width]; this is {_shape(mask)}. {_LOOK}")
    if 0 in mask.shape:
        raise ImageError(f"The MASK has nothing in it: its shape is {_shape(mask)}. {_LOOK}")
    return mask


def to_uint8(image: Tensor) -> UInt8:
    """One picture [H,W,C] (or mask [H,W]) in 0..1 as 8-bit pixels of the same shape.

    Clamped to 0..1, then rounded to the nearest of 256 levels, halves to even. Pixels already on the 8-bit
    grid (k / 255 in fp32 or fp16) come back as k.
    """
    values = image.detach().to(device="cpu", dtype=torch.float32).numpy()
    pixels = np.empty(values.shape, np.uint8)
    rows = max(1, _BLOCK_VALUES // max(1, values[0].size))
    for top in range(0, len(values), rows):
        block = values[top : top + rows] * np.float32(255)
        np.rint(block, out=block)
        np.clip(block, 0, 255, out=block)
        pixels[top : top + rows] = block
    return pixels


def from_uint8(pixels: UInt8, out: Tensor) -> None:
    """Write 8-bit pixels into the fp32 tensor `out` of the same shape, as k / 255."""
    np.divide(pixels, np.float32(255), out=out.numpy(), dtype=np.float32)


def with_alpha(image: Tensor, mask: Tensor | None) -> Tensor:
    """The IMAGE with the MASK as its alpha: [B,H,W,4], alpha = 1 - mask.

    image [B,H,W,C], mask [B,H,W] or [1,H,W] for the whole batch. An alpha the picture had is replaced. A mask
    that is zero everywhere means opaque: no alpha is left, [B,H,W,C] with C 1 or 3; it may then be of any
    size, because LoadImage gives a 64x64 one where the file has no alpha. No mask: the image as it is.
    Raises ImageError for a mask of another size or count than the pictures.
    """
    image = check_image(image)
    if mask is None:
        return image
    mask = check_mask(mask)
    colour = image[..., :3]
    if not mask.any():
        return colour
    mask = fit_mask(mask, image)
    if colour.shape[3] == 1:
        colour = colour.expand(-1, -1, -1, 3)
    alpha = (1 - mask.to(colour)).clamp(0, 1).unsqueeze(-1)
    return torch.cat([colour, alpha], dim=-1)


def fit_mask(mask: Tensor, image: Tensor) -> Tensor:
    """The MASK as [B,H,W] for an IMAGE [B,H,W,C]: a single mask serves every picture.

    Raises ImageError, naming both sizes or both counts, where it does not fit; nothing is resized.
    """
    count, height, width = image.shape[:3]
    if tuple(mask.shape[1:]) != (height, width):
        raise ImageError(
            f"The mask is {mask.shape[2]}x{mask.shape[1]} and the picture {width}x{height} (width x height). "
            "They must be of one size: scale the mask to the picture first."
        )
    if mask.shape[0] not in (1, count):
        raise ImageError(
            f"There are {mask.shape[0]} masks for {count} pictures. Give one mask for all of them or one for each."
        )
    return mask.expand(count, -1, -1)


def colour_of(image: Tensor) -> Tensor:
    """[B,H,W,3] of an IMAGE with 1, 3 or 4 channels."""
    return image.expand(-1, -1, -1, 3) if image.shape[3] == 1 else image[..., :3]


def digest(pixels: UInt8) -> str:
    """SHA-256 over the shape and the 8-bit pixels of one picture [H,W,C], as 64 hexadecimal digits."""
    whole = hashlib.sha256(repr(tuple(pixels.shape)).encode())
    whole.update(np.ascontiguousarray(pixels).data)
    return whole.hexdigest()


def _check_values(values: Tensor, noun: str) -> None:
    # Of the 8-bit ones torch finds no extremes.
    if not values.is_floating_point() or values.dtype.itemsize == 1:
        raise ImageError(
            f"The {noun} holds {values.dtype} values; ComfyUI's are floating point of 16 bits or more, in 0..1. {_LOOK}"
        )
    if values.layout is not torch.strided or values.is_meta:
        raise ImageError(
            f"The {noun} is a tensor that holds no numbers to read ({values.layout}, {values.device}). {_LOOK}"
        )
    # The extremes carry NaN and infinity, in one pass; of what does not lie in one piece torch makes a copy for it.
    extremes = [torch.stack(torch.aminmax(one)) for one in values.detach()]
    if torch.isfinite(torch.stack(extremes)).all():
        return
    bad = next(i for i, one in enumerate(extremes) if not torch.isfinite(one).all())
    count = int((~torch.isfinite(values[bad])).sum())
    raise ImageError(
        f"{noun.capitalize()} {bad + 1} of {len(values)} holds {count} values that are NaN or infinite. "
        "The node that made it failed, often a VAE or a sampler in fp16: run that one in fp32 or bf16."
    )


def _shape(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__
