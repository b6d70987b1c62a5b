"""What goes along with the pictures of an order: the same references with each, and a mask of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ...imaging.masks import is_empty, transparent_where_marked, white_where_marked
from ...imaging.pixels import UInt8, check_image, check_mask, digest, fit_mask, to_uint8
from ...oxen.api.models.spec import Marks, ModelSpec
from ...oxen.api.request import Beside
from ...oxen.errors import InvalidParameters

# Makes the data URI or the address of a picture, when it is to be sent.
Text = Callable[[], str]


@dataclass(frozen=True, eq=False)
class Along:
    """references: IMAGE [B,H,W,C] each, every picture of which goes with every edit. masks [B,H,W]: one for each
    picture, or None. marks: how the model wants a mask.
    """

    references: tuple[torch.Tensor, ...] = ()
    masks: torch.Tensor | None = None
    marks: Marks = Marks.UNKNOWN

    def mask_of(self, place: int, pixels: UInt8) -> UInt8 | None:
        """The mask of a picture as it is sent; None where nothing of it is marked."""
        if self.masks is None or is_empty(self.masks[place]):
            return None
        if self.marks is Marks.TRANSPARENT:
            return transparent_where_marked(self.masks[place], pixels)
        return white_where_marked(self.masks[place])

    def pixels(self) -> list[UInt8]:
        """The 8-bit references, in order."""
        return [to_uint8(picture) for batch in self.references for picture in batch]


NOTHING = Along()


def digest_of_all(pixels: UInt8, references: Sequence[str], mask: UInt8 | None) -> str:
    """A digest of a picture with all that goes along; of a picture by itself, its own.

    references: their digests, so that these are made once for all pictures.
    """
    own = digest(pixels)
    if not references and mask is None:
        return own
    whole = [own, list(references), None if mask is None else digest(mask)]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def beside(references: Sequence[Text], mask: Text | None) -> Beside:
    """What goes along, as it is sent."""
    return Beside(tuple(one() for one in references), None if mask is None else mask())


def checked_along(
    spec: ModelSpec, image: torch.Tensor, references: Sequence[torch.Tensor], mask: torch.Tensor | None
) -> Along:
    """What goes along with an IMAGE's pictures, as the model takes it; raises InvalidParameters or ImageError."""
    count = sum(len(check_image(batch)) for batch in references)
    least, most = spec.pictures.least - 1, spec.pictures.most - 1
    if count > most:
        takes = "one picture for an edit, and no reference" if not most else f"at most {most} references for an edit"
        raise InvalidParameters(
            f"{spec.name} takes {takes}; {count} are connected to references, where every picture of a batch counts. "
            "Nothing was sent. Connect fewer; pictures to be edited by themselves belong to image."
        )
    if count < least:
        raise InvalidParameters(
            f"{spec.name} needs {least + 1} pictures for an edit: image and references. {count} are connected to "
            "references. Nothing was sent. Connect as many."
        )
    return Along(
        tuple(references), _checked_mask(spec, image, mask), Marks.UNKNOWN if not spec.mask else spec.mask.marks
    )


def _checked_mask(spec: ModelSpec, image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor | None:
    marked = None if mask is None else check_mask(mask)
    if marked is not None and not any(not is_empty(one) for one in marked):
        marked = None  # of whatever size: LoadImage gives a small one for a file without alpha
    if marked is not None:
        if spec.mask is None:
            raise InvalidParameters(f"{spec.name} takes no mask. Nothing was sent. Remove it, or choose another model.")
        if spec.mask.marks is Marks.UNKNOWN:
            raise InvalidParameters(
                f"Which part of a mask {spec.name} changes is not known, so that none is sent to it. Nothing was sent. "
                "Remove the mask, or choose another model."
            )
        marked = fit_mask(marked, check_image(image))
    if spec.mask is not None and spec.mask.required and (marked is None or any(map(is_empty, marked))):
        raise InvalidParameters(
            f"{spec.name} needs a mask for every picture, and one marks nothing or is not connected. Nothing was "
            "sent. Connect one for each picture, and mark in it what is to be taken out."
        )
    return marked
