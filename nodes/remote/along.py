"""What goes along with the pictures of an order: the same references with each, and a mask of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ...imaging.masks import is_empty, is_faint, transparent_where_marked, white_where_marked
from ...imaging.pixels import UInt8, check_image, check_mask, check_mask_shape, check_shape, fit_mask, to_uint8
from ...oxen.api.models.spec import Marks, ModelSpec
from ...oxen.api.request import Beside
from ...oxen.errors import InvalidParameters

# Makes the data URI or the address of a picture, when it is to be sent.
Text = Callable[[], str]


@dataclass(frozen=True, eq=False)
class Along:
    """references: IMAGE [B,H,W,C] each, every picture of which goes with every edit. masks [B,H,W]: one for each
    picture, or None. marks: how the model, of this name, wants a mask; None where it takes none. required: whether it
    does so for every picture.
    """

    references: tuple[torch.Tensor, ...] = ()
    masks: torch.Tensor | None = None
    marks: Marks | None = None
    model: str = ""
    required: bool = False

    def looked_over(self, image: torch.Tensor) -> Along:
        """The same once the values were looked at, which takes its time; raises InvalidParameters or ImageError."""
        for batch in self.references:
            check_image(batch)
        return replace(self, masks=self._marked(image))

    def _marked(self, image: torch.Tensor) -> torch.Tensor | None:
        marked = None if self.masks is None else check_mask(self.masks)
        faint = [] if marked is None else [number for number, one in enumerate(marked, 1) if is_faint(one)]
        if marked is not None and not faint and all(map(is_empty, marked)):
            marked = None  # of whatever size: LoadImage gives a small one for a file without alpha
        if marked is not None:
            if self.marks is None:
                raise InvalidParameters(
                    f"{self.model} takes no mask. Nothing was sent. Remove it, or choose another model."
                )
            if self.marks is Marks.UNKNOWN:
                raise InvalidParameters(
                    f"Which part of a mask {self.model} changes is not known, so that none is sent to it. Nothing was "
                    "sent. Remove the mask, or choose another model."
                )
            if faint:
                which = f"Mask {faint[0]} of {len(marked)}" if len(marked) > 1 else "The mask"
                raise InvalidParameters(
                    f"{which} is faint: no pixel of it is marked by half, from where on one counts as marked, and "
                    "without a mark the whole picture would be edited. Nothing was sent. Make the mask stronger, as "
                    "Threshold Mask does with a value below its own, or leave it out."
                )
            marked = fit_mask(marked, image)
        if self.required and (marked is None or any(map(is_empty, marked))):
            raise InvalidParameters(
                f"{self.model} needs a mask for every picture, and one marks nothing or is not connected. Nothing was "
                "sent. Connect one for each picture, and mark in it what is to be taken out."
            )
        return marked

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


def digest_of_all(own: str, references: Sequence[str], mask: str | None) -> str:
    """A digest of a picture with all that goes along; of a picture by itself, its own.

    All are digests of pixels, so that each is made once.
    """
    if not references and mask is None:
        return own
    whole = [own, list(references), mask]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def beside(references: Sequence[Text], mask: Text | None) -> Beside:
    """What goes along, as it is sent."""
    return Beside(tuple(one() for one in references), None if mask is None else mask())


def checked_along(
    spec: ModelSpec, image: torch.Tensor, references: Sequence[torch.Tensor], mask: torch.Tensor | None
) -> Along:
    """What goes along with an IMAGE's pictures, as the model takes it; raises InvalidParameters or ImageError.

    Only as far as can be told without looking at values: see `Along.looked_over`.
    """
    count = sum(len(check_shape(batch)) for batch in references)
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
    marks = None if spec.mask is None else spec.mask.marks
    masks = None if mask is None else check_mask_shape(mask)
    return Along(tuple(references), masks, marks, spec.name, required=spec.mask is not None and spec.mask.required)
