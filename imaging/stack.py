"""Pictures that come one by one, in any order, each written straight into its place of one IMAGE."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from .codec import DecodedImage, Stacked, resized, room, to_tensors
from .cores import a_core
from .errors import ImageError
from .pixels import from_uint8, to_uint8


@dataclass(frozen=True)
class Placed:
    """A picture that lies in a stack, and nowhere else."""

    width: int
    height: int


Came: TypeAlias = "DecodedImage | Placed"


class Stack:
    """Room for `count` pictures of one size, that of whichever comes first; the memory is taken as they come.

    One of another size stays as it is until all are taken: what size they are brought to is known then.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._guard = threading.Lock()
        self._room: tuple[Tensor, Tensor] | None = None
        self._odd: dict[int, DecodedImage] = {}

    def put(self, place: int, picture: Came) -> Came:
        """Write a picture into its place, from any thread; what is left of it. Raises MemoryError."""
        if isinstance(picture, Placed):
            return picture
        with self._guard:
            if self._room is None:
                self._room = room(self._count, picture.height, picture.width)
            image, mask = self._room
            if image.shape[1:3] != picture.rgb.shape[:2]:
                self._odd[place] = picture
                return picture
        with a_core():
            _write(picture, image[place], mask[place])
        return Placed(picture.width, picture.height)

    def take(self, places: Sequence[int]) -> Stacked:
        """The pictures at these places, which are in order, at the size of the first; what is left out is lost.

        They are brought together without another copy. Raises ImageError where there are none, and MemoryError.
        """
        if not places or self._room is None:
            raise ImageError("There is no picture to return.")
        if places[0] in self._odd:
            return to_tensors([self.original(place) for place in places])
        image, mask = self._room
        brought = []
        for index, place in enumerate(places):
            odd = self._odd.get(place)
            if odd is not None:
                brought.append(index)
                mask[index].zero_()
                _write(resized(odd, image.shape[2], image.shape[1]), image[index], mask[index])
            elif index != place:
                image[index], mask[index] = image[place], mask[place]
        return Stacked(image[: len(places)], mask[: len(places)], tuple(brought))

    def original(self, place: int) -> DecodedImage:
        """The picture at a place as it came: before `take`, and afterwards one that was brought to another's size."""
        if place in self._odd:
            return self._odd[place]
        assert self._room is not None
        image, mask = self._room
        return DecodedImage(to_uint8(image[place]), 255 - to_uint8(mask[place]), "")


def _write(picture: DecodedImage, image: Tensor, mask: Tensor) -> None:
    from_uint8(picture.rgb, image)
    if picture.alpha is not None:
        from_uint8(255 - picture.alpha, mask)
