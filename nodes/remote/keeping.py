"""The switch `keep` of the remote nodes: which picture each edit was made from, and the edits laid back onto them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ...imaging.codec import Stacked, to_tensors
from ...imaging.keep.switch import KeptEdits, keep_edits, none_kept
from ...imaging.pixels import check_shape
from ...imaging.stack import Came, Stack
from ...oxen.errors import InvalidParameters
from ...oxen.jobs.order import Outcome
from ...oxen.jobs.progress import Progress
from ...oxen.jobs.record import Record
from ..types import JobHandle

# Of the ratio of width to height, as a logarithm: from here on it shows in a face or a wheel.
_ANOTHER_SHAPE = 0.03


@dataclass(frozen=True, eq=False)
class Keeping:
    """source [n,H,W,C]: the pictures of all `edits` in order, each of as many edits. check: raises where stopped.

    places: which of these edits the outcomes are of; None for all of them.
    """

    source: torch.Tensor
    edits: int
    check: Callable[[], None]
    places: Sequence[int] | None = None

    def keep(self, outcomes: Sequence[Outcome[Came]], stack: Stack, stacked: Stacked, progress: Progress) -> KeptEdits:
        """The pictures that came laid back onto theirs. stacked: the same pictures as one IMAGE, taken from `stack`."""
        came = [index for index, o in enumerate(outcomes) if o.picture is not None]
        try:
            edited = [
                # one that was brought to the first one's size is kept from what came, not from that
                to_tensors([stack.original(index)]).image[0] if place in stacked.resized else stacked.image[place]
                for place, index in enumerate(came)
            ]
        except (MemoryError, RuntimeError) as error:
            return none_kept(stacked.image, error)
        places = range(self.edits) if self.places is None else self.places
        sources = [self.source[places[index] * len(self.source) // self.edits] for index in came]
        return keep_edits(sources, edited, stacked.image, self.check, lambda place: progress.kept(came[place]))


def keeping_of(
    source: torch.Tensor, job: JobHandle | None, records: Sequence[Record], check: Callable[[], None]
) -> Keeping:
    """How the edits of these records are kept; source: as `checked_source` gave it.

    Where it has the pictures that were submitted, those of edits that were not are passed over.
    """
    places = dict(zip(job.records, job.places, strict=False)) if job else {}
    if job and all(record.id in places for record in records) and job.asked % len(source) == 0:
        return Keeping(source, job.asked, check, [places[record.id] for record in records])
    return Keeping(source, len(records), check)


def checked_source(source: object, edits: int, asked: int = 0) -> torch.Tensor:
    """The pictures before some edits of which the record has none; raises InvalidParameters or ImageError.

    Their values are not looked at yet, which takes its time.

    asked: how many edits were asked for when these were submitted, where others were not.
    """
    if source is None:
        raise InvalidParameters(
            "keep is auto, and that needs the pictures as they were before the edit, which the records of edits do not "
            "hold. Connect them to source, or set keep to off."
        )
    image = check_shape(source)
    if edits % len(image) and (not asked or asked % len(image)):
        many = "1 edit" if edits == 1 else f"{edits} edits"
        raise InvalidParameters(
            f"keep is auto, and source has {len(image)} pictures for {many}. Connect one for all of them, one "
            "for each, or those that were submitted, where each has as many variations."
        )
    return image


def shape_note(sent: tuple[int, int], came: Sequence[tuple[int, int]], *, unkept: bool) -> str:
    """What to know and do where pictures came back in another shape than the one sent; empty where none did.

    sent, came: (width, height). unkept: Keep was not asked; else these are those it handed on.
    """
    aspect = sent[0] / sent[1]
    off = [size for size in came if abs(math.log(size[0] / size[1] / aspect)) > _ANOTHER_SHAPE]
    if not off:
        return ""
    width, height = off[0]
    more = f", and {len(off) - 1} more" if len(off) > 1 else ""
    keep = "keep: auto lays what changed onto your picture, unpaid. " if unkept else ""
    return (
        f"{sent[0]}x{sent[1]} was sent, and {width}x{height} came back, another shape{more}: it may be stretched or "
        f"cropped. {keep}Where all of it is to change, edit between Kontext Prepare and Kontext Restore."
    )


def sizes_note(stacked: Stacked, kept: KeptEdits | None, numbers: Sequence[int]) -> str:
    """Which pictures were brought to another's size, and to which; empty where none was.

    kept: what image holds, None where that is `stacked` itself. numbers: of the edits, in the same order.
    """

    def brought(places: Sequence[int], image: torch.Tensor) -> str:
        which = ", ".join(str(numbers[place]) for place in places)
        return f"number {which} brought to {image.shape[2]}x{image.shape[1]}"

    if kept is None:
        first = f"{brought(stacked.resized, stacked.image)}, the first one's size"
        return f"The results differ in size; {first}." if stacked.resized else ""
    notes = []
    if stacked.resized:
        height, width = kept.image.shape[1:3]
        notes += [
            f"The results differ in size; in raw {brought(stacked.resized, stacked.image)}, the first one's size.",
            f"image is {width}x{height}, as before the edit.",
        ]
    if kept.resized:
        notes.append(f"In image {brought(kept.resized, kept.image)}, as those that could be kept are.")
    return " ".join(notes)
