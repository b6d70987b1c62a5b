"""The picture an edit is cut from and put back onto.

prepare makes what the model sees: the picture, or the region around a mask, scaled evenly to a size the model
was made for and filled up by reflection, never stretched and never cropped. restore undoes it on the edit.

Undoing a change of scale cannot give back the source's own pixels, so restore does not try to: it takes the
edit only where there is one. A pixel counts as edited where the edit differs at all from what prepare gave;
everywhere else, and outside the mask and its feather, the source's pixels come back bit for bit. The limit of
this: a model that passes a picture through its VAE changes every pixel a little, so without a mask its whole
picture is the edit, scaled back to the source's size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import ImageError
from .geometry import Box, box_around, feathered
from .pixels import check_image, check_mask, colour_of, fit_mask

_MEGAPIXEL = 1024 * 1024
# A picture this near to the size asked for is only filled up, not scaled: its own pixels are worth more.
_NEAR = 1.25
# An edit of another size than its canvas, but nearer to its shape than this, was not reframed. Nor was one in the
# shape of Kontext's own sizes that is nearest to the canvas: the picture was stretched to it, at worst by a twelfth.
_SAME_ASPECT = 1.06
_STRETCHED = 1.09
_ROUNDED = 1.01
# The sizes Kontext was trained on, upright, as diffusers lists them.
_UPRIGHT = (
    *((672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328)),
    *((832, 1248), (880, 1184), (944, 1104), (1024, 1024)),
)
KONTEXT_SIZES = tuple(dict.fromkeys(size for low, high in _UPRIGHT for size in ((low, high), (high, low))))
# The longest of them, long side over short: 21:9 and 9:21.
LONGEST = 1568 / 672


@dataclass(frozen=True, eq=False)
class Canvas:
    """How a prepared picture lies on its source.

    source [B,H,W,C] and prepared [B,h,w,3], both 0..1. region: what was cut from the source. content: where it
    lies in the prepared picture; the rest is reflection. mask: the region's MASK [B,height,width], or None.
    feather: source pixels over which an edit fades out.
    """

    source: Tensor
    prepared: Tensor
    region: Box
    content: Box
    mask: Tensor | None
    feather: int

    @property
    def affine(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """From a point in the prepared picture to the source: x' = a x + c, y' = e y + f (pixel edges)."""
        across, down = self.region.width / self.content.width, self.region.height / self.content.height
        return (
            (across, 0.0, self.region.left - across * self.content.left),
            (0.0, down, self.region.top - down * self.content.top),
        )


def grid_size(width: int, height: int, megapixels: float = 1.0, multiple: int = 16) -> tuple[int, int]:
    """The (width, height) to sample at: the picture's aspect, multiples of 16, about one megapixel (1024 x 1024).

    A picture within a quarter of that area keeps its size, rounded up to the multiple; so a size this function
    gave is given again. Raises ImageError for sizes that are not positive.
    """
    if min(width, height, megapixels, multiple) <= 0:
        raise ImageError(f"{width}x{height} at {megapixels} megapixels is no size: all must be above zero.")
    target = megapixels * _MEGAPIXEL
    kept = math.ceil(width / multiple) * multiple, math.ceil(height / multiple) * multiple
    if 1 / _NEAR <= kept[0] * kept[1] / target <= _NEAR:
        return kept
    aspect = width / height
    across = _nearest(math.sqrt(target * aspect), multiple)
    down = _nearest(math.sqrt(target / aspect), multiple)
    candidates = (across, _nearest(across / aspect, multiple)), (_nearest(down * aspect, multiple), down)
    return min(candidates, key=lambda size: abs(math.log(size[0] / size[1] / aspect)))


def pick_size(
    aspect_ratio: str, width: int, height: int, megapixels: float = 1.0, multiple: int = 16
) -> tuple[int, int]:
    """The (width, height) for an aspect ratio such as "16:9", or the picture's own for "match_input_image".

    width, height: the picture's. Raises ImageError for anything else than those two forms.
    """
    if aspect_ratio == "match_input_image":
        return grid_size(width, height, megapixels, multiple)
    across, _, down = aspect_ratio.partition(":")
    if not (across.isdecimal() and down.isdecimal() and int(across) and int(down)):
        raise ImageError(
            f"The aspect ratio {aspect_ratio!r} is not known: use two numbers such as 16:9, or match_input_image."
        )
    return grid_size(int(across), int(down), megapixels, multiple)


def prepare(
    image: Tensor,
    mask: Tensor | None = None,
    *,
    size: tuple[int, int] | None = None,
    megapixels: float = 1.0,
    multiple: int = 16,
    margin: int = 64,
    feather: int = 16,
    longest: float = math.inf,
) -> Canvas:
    """The canvas for an IMAGE [B,H,W,C]; its `prepared` is what to edit.

    mask [B,H,W] or [1,H,W], 1 = to be edited: the box around every masked pixel of the batch is cut out, with
    `margin` source pixels (at least `feather`) around it. A mask that is zero everywhere is no mask: LoadImage
    gives one where the file has no alpha. size: (width, height) to fit to instead of grid_size's.
    longest: long side over short, at least 1, that a canvas without a size may have; a longer region takes in as
    much more of the picture as there is, and what still lacks is filled up.
    Raises ImageError as check_image does, for a mask of another size, and for a negative margin or feather.
    """
    image = check_image(image)
    if margin < 0 or feather < 0:
        raise ImageError(f"Margin {margin} and feather {feather} must not be negative.")
    mask = None if mask is None else check_mask(mask)
    if mask is not None and not (mask > 0).any():
        mask = None
    region = Box(0, 0, image.shape[2], image.shape[1])
    if mask is not None:
        mask = fit_mask(mask, image)
        region = box_around(mask, max(margin, feather))
        if size is None:
            region = _taking_in(region, _shape(region, longest), image.shape[2], image.shape[1])
        mask = mask[:, region.rows, region.columns].to(torch.float32).clamp(0, 1)
    width, height = size or grid_size(*_shape(region, longest), megapixels, multiple)
    content = _fit(region, width, height, multiple)
    picture = _resize(colour_of(image[:, region.rows, region.columns]), content.width, content.height)
    columns = _reflected(-content.left, width - content.left, content.width)
    rows = _reflected(-content.top, height - content.top, content.height)
    prepared = picture.index_select(1, rows.to(picture.device)).index_select(2, columns.to(picture.device))
    return Canvas(image, prepared, region, content, mask, feather)


def restore(edit: Tensor, canvas: Canvas) -> Tensor:
    """The edit put back: an IMAGE of the source's size, type and alpha.

    edit [B,h,w,C] is the edited `canvas.prepared`, one for each source picture, or any number for a single
    source. Of another size (a service may choose its own) it is scaled to the prepared one's, and then counts as
    edited throughout. Raises ImageError where its aspect shows that it was reframed, or the counts differ.
    """
    edit = colour_of(check_image(edit))
    source = canvas.source.to(edit.device)
    count = _count(len(edit), len(source))
    height, width = canvas.prepared.shape[1:3]
    region, content = canvas.region, canvas.content
    if tuple(edit.shape[1:3]) == (height, width):
        weight = _edited(edit, canvas)
    else:
        _check_aspect(edit, canvas)
        edit = _resize(edit, width, height)
        weight = torch.ones(count, region.height, region.width, device=edit.device)
    if canvas.mask is not None:
        weight = weight * feathered(canvas.mask.to(edit.device), canvas.feather)
    patch = _resize(edit[:, content.rows, content.columns], region.width, region.height)
    result = source.expand(count, -1, -1, max(3, source.shape[3])).clone()
    below = result[:, region.rows, region.columns, :3]
    for old, edge, new in zip(below, weight.unsqueeze(-1), patch, strict=True):
        blended = torch.lerp(old.to(torch.float32), new, edge).to(old.dtype)
        old.copy_(torch.where(edge > 0, blended, old))
    return result


def at_its_scale(restored: Tensor, canvas: Canvas) -> Tensor:
    """A whole picture [B,H,W,C] that was restored, at the scale it was edited at [B,h,w,3] where that is smaller.

    For whoever compares it with its source: enlarged, it lacks all of the source's detail, and would differ everywhere.
    """
    content = canvas.content
    if content.width >= restored.shape[2]:
        return restored
    return _resize(colour_of(restored), content.width, content.height)


def _shape(region: Box, longest: float) -> tuple[int, int]:
    """The (width, height) that is no longer than `longest` and holds the region."""
    return max(region.width, math.ceil(region.height / longest)), max(region.height, math.ceil(region.width / longest))


def _taking_in(region: Box, shape: tuple[int, int], across: int, down: int) -> Box:
    """The region grown evenly to the shape, as far as a picture of across x down goes."""
    width, height = min(shape[0], across), min(shape[1], down)
    left = min(max(0, region.left - (width - region.width) // 2), across - width)
    top = min(max(0, region.top - (height - region.height) // 2), down - height)
    return Box(left, top, width, height)


def _nearest(length: float, multiple: int) -> int:
    return max(1, round(length / multiple)) * multiple


def _fit(region: Box, width: int, height: int, multiple: int) -> Box:
    """Where the region lies in width x height: scaled evenly to touch two sides, or as it is if nearly that size."""
    spare = width - region.width, height - region.height
    if 0 <= min(spare) < multiple:
        across, down = region.width, region.height
    else:
        scale = min(width / region.width, height / region.height)
        across, down = max(1, round(region.width * scale)), max(1, round(region.height * scale))
    return Box((width - across) // 2, (height - down) // 2, across, down)


def _reflected(start: int, stop: int, length: int) -> Tensor:
    """Indices start..stop-1 folded back into 0..length-1 at the first and last pixel, as often as it takes."""
    if length == 1:
        return torch.zeros(stop - start, dtype=torch.long)
    period = 2 * (length - 1)
    folded = torch.arange(start, stop).remainder(period)
    return torch.minimum(folded, period - folded)


def _resize(picture: Tensor, width: int, height: int) -> Tensor:
    """[B,H,W,3] at another size, fp32, in 0..1; at the same size untouched."""
    picture = picture.to(torch.float32)
    if tuple(picture.shape[1:3]) == (height, width):
        return picture
    channels_first = picture.permute(0, 3, 1, 2)
    scaled = F.interpolate(channels_first, (height, width), mode="bicubic", antialias=True)
    return scaled.clamp_(0, 1).permute(0, 2, 3, 1).contiguous()


def _edited(edit: Tensor, canvas: Canvas) -> Tensor:
    """[B,height,width] over the region: 1 where the edit differs from what was prepared, 0 away from it."""
    content, region = canvas.content, canvas.region
    differs = (edit != canvas.prepared.to(edit)).any(dim=-1)[:, content.rows, content.columns]
    if differs.all() or not differs.any():
        return differs[:, :1, :1].to(torch.float32).expand(-1, region.height, region.width)
    # A source pixel is edited where any of the prepared pixels that it became is.
    at_source = F.adaptive_max_pool2d(differs.to(torch.float32).unsqueeze(1), (region.height, region.width))
    return feathered(at_source.squeeze(1), canvas.feather)


def _check_aspect(edit: Tensor, canvas: Canvas) -> None:
    (height, width), (was_height, was_width) = edit.shape[1:3], canvas.prepared.shape[1:3]
    was = was_width / was_height
    nearest = min((across / down for across, down in KONTEXT_SIZES), key=lambda shape: abs(shape - was))
    change = _change(width / height, was)
    stretched = change <= _STRETCHED and _change(width / height, nearest) <= _ROUNDED
    if change > _SAME_ASPECT and not stretched:
        raise ImageError(
            f"The edit is {width}x{height} but its canvas {was_width}x{was_height}: it was reframed, and cannot be put "
            "back as it is. Put Kontext Keep between, with Kontext Prepare's image as its source: it finds where the "
            "edit lies, and nothing needs to be edited again. For the next edits choose the aspect ratio "
            "match_input_image; if that was set, the editor makes none like the picture's: give Kontext Prepare the "
            "aspect_ratio nearest to the edit's, which is filled up, and cut off again."
        )


def _change(aspect: float, other: float) -> float:
    return max(aspect / other, other / aspect)


def _count(edits: int, sources: int) -> int:
    if sources not in (1, edits):
        raise ImageError(
            f"There are {edits} edits for a canvas of {sources} pictures. "
            "Give one edit for each picture, or use a canvas of one."
        )
    return edits
