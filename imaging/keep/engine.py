"""Kontext Keep: an edit laid back onto its source so that only what was edited differs.

keep aligns the edit with the source, takes back its drift of colour, finds what was really edited, and lays that alone
into the source at the source's own size. Where the whole scene changed there is nothing to keep: the edit is handed
on, aligned if that can be trusted, and the report says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ImageError
from ..geometry import box_around, feathered
from ..pixels import colour_of
from .align import Alignment
from .bench import Bench, bench_of
from .blend import LaidPart, blended, rim_of, sharpest
from .carry import carried
from .filters import highest, pooled
from .look import Look, close_look, first_look, half
from .mapping import Mapping
from .refine import Refined
from .report import KeepReport, report_of
from .scope import Scope
from .verdict import Signs, Verdict, signs_of, whole

_APART = 4  # pixels around a change that do not tell where the rest lies
_TELLS = 30_000  # pixels from which on half the size shows whether the whole scene changed


@dataclass(frozen=True)
class Options:
    """strength: how much of the drift is taken back, 0..1. feather: over how many of the edit's pixels it fades out."""

    scope: Scope = Scope.AUTO
    strength: float = 1.0
    feather: int = 4


@dataclass(frozen=True, eq=False)
class Kept:
    """picture [H,W,C], C 3 or 4: of the source's size, type and alpha; mask [H,W] fp32: how much is the edit's."""

    picture: Tensor
    mask: Tensor
    report: KeepReport
    mapping: Mapping


def keep(
    source: Tensor,
    edited: Tensor,
    mask: Tensor | None = None,
    options: Options | None = None,
    check: Callable[[], None] = lambda: None,
) -> Kept:
    """One source [H,W,C] and its edit [h,w,C], C 1, 3 or 4, floating point, finite, usually 0..1.

    mask [H,W], 1 = may change: nothing outside it and the feather changes. check: called between the steps; what it
    raises ends the work. Raises ImageError for a mask of another size, and where the scope asks for a mask and there is
    none.
    """
    options = options or Options()
    mask = _checked(mask, source, options)
    base = source.expand(-1, -1, 3) if source.shape[2] == 1 else source
    bench, sharp = _bench(base, edited)
    if bench.size == bench.edit and torch.equal(colour_of(source[None])[0], colour_of(edited[None])[0]):
        return _untouched(base, bench)
    check()
    alignment = Alignment(bench)
    check()
    allowed = None if mask is None else mask > 0
    small = half(bench)
    seen, found = first_look(small, alignment.found.mapping, alignment.found.likeness, allowed), alignment.found
    check()
    signs, why = _whole(seen, found, options, allowed)
    if why is None or seen.mask.numel() < _TELLS:
        seen, found = _closely(bench, small, alignment, seen, allowed, options, check)
        check()
        signs, why = _whole(seen, found, options, allowed)
    if why is not None:
        return _handed_on(base, sharp, bench, found, seen, signs, why)
    change, shift = _mask_of(bench, seen, found.mapping, mask, options)
    if not (change > 0).any():
        return _untouched(base, bench, found.mapping, seen)
    check()
    rim = rim_of(seen.source, seen.corrected, seen.sure)
    picture, weight = blended(
        base, LaidPart(sharp, found.mapping, seen.drift, rim, options.strength, shift=shift), change
    )
    check()
    report = report_of(bench, found.mapping, seen, Verdict.LOCAL, "", base, picture, weight)
    return Kept(picture, weight, report, found.mapping)


def _checked(mask: Tensor | None, source: Tensor, options: Options) -> Tensor | None:
    """The mask, or None where it is empty."""
    if mask is not None and tuple(mask.shape) != tuple(source.shape[:2]):
        raise ImageError(
            f"The mask is {mask.shape[1]}x{mask.shape[0]} and the picture {source.shape[1]}x{source.shape[0]}."
        )
    if mask is not None and not (mask > 0).any():
        mask = None
    if mask is None and options.scope is Scope.MASK:
        raise ImageError("change is mask, but no mask is connected or it is empty: draw one, or set change to auto.")
    return mask


def _bench(source: Tensor, edited: Tensor) -> tuple[Bench, Tensor]:
    """Both at the size they are compared at, and the edit [3,h,w] at the size it is laid in from."""
    planes = source[..., :3].permute(2, 0, 1).float()
    new = colour_of(edited[None])[0].permute(2, 0, 1).float().clamp(0, 1).contiguous()
    bench = bench_of(planes, new)
    bench = Bench(bench.source.clamp(0, 1).contiguous(), bench.edited.clamp(0, 1), bench.size, bench.edit)
    return bench, sharpest(new, bench)


def _closely(
    bench: Bench,
    small: Bench,
    alignment: Alignment,
    first: Look,
    allowed: Tensor | None,
    options: Options,
    check: Callable[[], None],
) -> tuple[Look, Refined]:
    """What was edited and where the edit lies are found again, without the one in the way of the other."""
    told = allowed if options.scope is Scope.MASK and allowed is not None else first.mask
    # Where nearly all of it seems to be edited, that says nothing of where it lies.
    free = None if told is first.mask and whole(told) else 1 - highest(_resized(told, bench), _APART)
    found = alignment.again(free)
    check()
    return close_look(bench, small, found.mapping, found.likeness, told, allowed, first), found


def _whole(seen: Look, found: Refined, options: Options, allowed: Tensor | None) -> tuple[Signs, str | None]:
    """The signs of another picture, and why there is nothing to keep, or None."""
    signs = signs_of(seen.source, seen.aligned, seen.corrected, found.likeness, seen.free, seen.covered)
    if options.scope is Scope.WHOLE:
        return signs, "the artist said so"
    return signs, signs.against(allowed is not None) if options.scope is Scope.AUTO else None


def _resized(mask: Tensor, bench: Bench) -> Tensor:
    height, width = bench.source.shape[1:]
    planes = mask.float()[None]
    if mask.shape[0] >= height:
        return (pooled(planes, height, width) > 0).float()
    return torch.nn.functional.interpolate(planes[None], (height, width), mode="nearest")[0]


def _mask_of(
    bench: Bench, seen: Look, mapping: Mapping, mask: Tensor | None, options: Options
) -> tuple[Tensor, Tensor | None]:
    """How much of the edit is taken, 0..1, over the whole source, on the bench, or at full size for a given mask; and
    from where what lies beyond the edit's border."""
    if options.scope is Scope.MASK and mask is not None:
        scale = math.sqrt(mask.numel() / seen.mask.numel())
        return feathered(mask.float().clamp(0, 1)[None], round(options.feather * scale))[0], None
    found = carried(seen, mapping)
    return _faded(found.mask, options.feather), found.shift


def _faded(mask: Tensor, feather: int) -> Tensor:
    """The mask [h,w] bool fading out, softly where it ends; the work is done around it alone."""
    faded = torch.zeros(mask.shape)
    if mask.any():
        box = box_around(mask[None], 2 * feather + 1)
        faded[box.rows, box.columns] = feathered(mask[None, box.rows, box.columns].float(), feather)[0].square()
    return faded


def _untouched(source: Tensor, bench: Bench, mapping: Mapping | None = None, seen: Look | None = None) -> Kept:
    mapping = mapping or squeezed(bench)
    picture, weight = source.clone(), torch.zeros(bench.size)
    report = report_of(bench, mapping, seen, Verdict.NONE, "", source, picture, weight)
    return Kept(picture, weight, report, mapping)


def _handed_on(source: Tensor, sharp: Tensor, bench: Bench, found: Refined, seen: Look, signs: Signs, why: str) -> Kept:
    """The edit's own pixels: where it lies, if that can be trusted, else simply at the source's size."""
    mapping = found.mapping if signs.aligned else squeezed(bench)
    picture, weight = blended(source, LaidPart(sharp, mapping, None, None, 0.0, "border"), torch.ones(1, 1))
    report = report_of(bench, mapping, seen, Verdict.WHOLE, why, source, picture, weight)
    return Kept(picture, weight, report, mapping)


def squeezed(bench: Bench) -> Mapping:
    """The source scaled to the edit's size, nothing else."""
    height, width = bench.edit
    return Mapping.of(torch.tensor([[float(width), 0, 0], [0, float(height), 0]]), bench.edit)
