"""From a remote edit node's widgets, checked, and an IMAGE to the edits to be made."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ...editing.words import VARIATIONS, Keep
from ...imaging.codec import encode
from ...imaging.cores import a_core, side_by_side
from ...imaging.errors import ImageError
from ...imaging.pixels import UInt8, check_image, check_shape, digest, to_uint8
from ...imaging.uri import to_data_uri
from ...oxen.api.models import DEFAULT, ModelSpec
from ...oxen.api.request import EditParameters
from ...oxen.api.uploads import upload
from ...oxen.choices import IfSomeFail, Result, SendAs, WaitMode
from ...oxen.errors import InvalidParameters
from ...oxen.jobs.awake import Rule
from ...oxen.jobs.order import Edit, Terms
from ...oxen.jobs.session import Session
from ..checks import member, number, text, whole
from .along import NOTHING, Along, beside, digest_of_all

_MAX_EDITS = 256


@contextlib.contextmanager
def costless(says: str = "Nothing was sent.") -> Iterator[None]:
    """Have what is wrong with an input tell that it cost nothing, unless it does: that is found before all else."""
    try:
        yield
    except ImageError as error:
        raise type(error)(f"{error} {says}") from error
    except InvalidParameters as error:
        if says in error.message:
            raise
        raise error.reworded(f"{error.message} {says}") from error


@dataclass(frozen=True)
class Order:
    """What the widgets of an edit node ask for. along: what goes with every picture. told: what info says of it.

    own: of a model of one's own, whether it may be woken. same_shape: the results are to have the pictures' shape.
    """

    parameters: EditParameters
    variations: int
    terms: Terms
    send_as: SendAs
    if_some_fail: IfSomeFail
    keep: Keep
    along: Along = NOTHING
    told: Mapping[str, Any] = field(default_factory=dict)
    own: Rule | None = None
    same_shape: bool = True

    @classmethod
    def read(
        cls,
        model: ModelSpec = DEFAULT,
        *,
        variations: int = 1,
        wait: str = WaitMode.EVENTS.value,
        send_as: str = SendAs.AUTO.value,
        timeout: float = 300.0,
        namespace: str = "",
        result: str = Result.REUSE.value,
        if_some_fail: str = IfSomeFail.STOP.value,
        keep: str = Keep.OFF.value,
        submit_only: bool = False,
        **fields: Any,
    ) -> Order:
        """The widgets' values, checked; `fields` are the model's own. Raises InvalidParameters."""
        terms = Terms(
            wait=member(WaitMode, wait, "wait"),
            reuse=member(Result, result, "result") is Result.REUSE,
            seconds=number(timeout, "timeout"),
            submit_only=submit_only,
        )
        return cls(
            EditParameters(model, namespace=text(namespace, "namespace"), **fields),
            whole(variations, "variations", VARIATIONS),
            terms,
            member(SendAs, send_as, "send_as"),
            member(IfSomeFail, if_some_fail, "if_some_fail"),
            member(Keep, keep, "keep"),
            same_shape=model.shape is None or fields.get(model.shape.field) in (None, model.shape.keeps),
        )

    @costless()
    def count(self, image: torch.Tensor) -> int:
        """How many edits an IMAGE [B,H,W,C] makes; raises ImageError or InvalidParameters for what cannot be sent.

        The rest of it is looked at by `edits`, off the event loop.
        """
        pictures = len(image) if is_batch(image) else len(check_shape(image))
        count = pictures * self.variations
        if count > _MAX_EDITS:
            raise InvalidParameters(
                f"{pictures} pictures with {self.variations} variations are {count} edits; at most {_MAX_EDITS} are "
                "made in one go. Split the batch. Nothing was sent."
            )
        return count

    @costless()
    def edits(self, session: Session, image: torch.Tensor) -> list[Edit]:
        """The edits of an IMAGE: the variations of each picture in turn, with seeds counting up from the first.

        Raises ImageError for what is no IMAGE.
        """
        edits: list[Edit] = []
        along = self.along.looked_over(check_image(image))
        references = along.pixels()
        digests = list(map(digest, references))
        count = len(image) * self.variations
        text = partial(_input_image, session, self.send_as)
        texts = [_Once(partial(text, partial(_same, one)), count) for one in references]

        def looked_at(place: int) -> tuple[str, _Once, _Once | None]:
            """The digest of a picture and all that goes with it, what makes its text, and what that of its mask."""
            session.control.check()
            with a_core():
                pixels = to_uint8(image[place])
                mask = along.mask_of(place, pixels)
                own, of_mask = digest(pixels), None if mask is None else digest(mask)
            pixels_of: Callable[[], UInt8] = partial(_as_before, partial(to_uint8, image[place]), own)
            if place < session.settings.max_in_flight:  # is sent at once; the others are made again when they are
                pixels_of = _first(pixels, pixels_of)
            mask_text = None
            if of_mask is not None:
                mask_of = partial(_as_before, partial(_mask, along, image, place), of_mask)
                mask_text = _Once(partial(text, mask_of), self.variations)
            return digest_of_all(own, digests, of_mask), _Once(partial(text, pixels_of), self.variations), mask_text

        alike: Counter[str] = Counter()
        for same, send, mask_text in side_by_side(looked_at, len(image)):
            for _ in range(self.variations):
                # without a seed it is the how-manieth of its own, wherever in a batch it stands
                number = len(edits) if self.parameters.model.has_seed else alike[same]
                alike[same] += 1
                edits.append(Edit(self.parameters.variation(number), same, send, partial(beside, texts, mask_text)))
        return edits


def _mask(along: Along, image: torch.Tensor, place: int) -> UInt8:
    mask = along.mask_of(place, to_uint8(image[place]))
    assert mask is not None
    return mask


def _same(pixels: UInt8) -> UInt8:
    return pixels


def _as_before(make: Callable[[], UInt8], before: str) -> UInt8:
    """The pixels, which are sent only under the digest that they are remembered by; raises InvalidParameters."""
    pixels = make()
    if digest(pixels) != before:
        raise InvalidParameters(
            "The picture was changed by another node while it waited for its turn. It was not sent. Run again; if it "
            "happens again, put a node between that makes a copy, as Image Scale does."
        )
    return pixels


def _first(pixels: UInt8, later: Callable[[], UInt8]) -> Callable[[], UInt8]:
    """Gives what is there already, once, and forgets it."""
    kept = [pixels]
    return lambda: kept.pop() if kept else later()


class _Once:
    """A text that is made at its first use, shared by a known number of uses, and forgotten after the last."""

    def __init__(self, make: Callable[[], str], uses: int) -> None:
        self._make = make
        self._uses = uses
        self._made: str | None = None
        self._guard = threading.Lock()

    def __call__(self) -> str:
        with self._guard:
            made = self._make() if self._made is None else self._made
            self._uses -= 1
            self._made = made if self._uses > 0 else None
            return made


def _input_image(session: Session, send_as: SendAs, pixels: Callable[[], UInt8]) -> str:
    with a_core():
        encoded = encode(pixels())
        if send_as is not SendAs.UPLOAD:
            return to_data_uri(encoded)
    return upload(session.client, encoded.data, encoded.media_type, session.settings.upload_repository)


def is_batch(image: object) -> bool:
    """Whether something has the four axes of an IMAGE."""
    return isinstance(image, torch.Tensor) and image.ndim == 4
