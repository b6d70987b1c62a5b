"""From a remote edit node's widgets, checked, and an IMAGE to the edits to be made."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ...editing.words import VARIATIONS, Keep
from ...imaging.codec import encode
from ...imaging.pixels import UInt8, check_image, digest, to_uint8
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


@dataclass(frozen=True)
class Order:
    """What the widgets of an edit node ask for. along: what goes with every picture. told: what info says of it.

    own: of a model of one's own, whether it may be woken.
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
        )

    def count(self, image: torch.Tensor) -> int:
        """How many edits an IMAGE [B,H,W,C] makes; raises ImageError or InvalidParameters for what cannot be sent.

        The rest of it is looked at by `edits`, off the event loop.
        """
        pictures = len(image) if is_batch(image) else len(check_image(image))
        count = pictures * self.variations
        if count > _MAX_EDITS:
            raise InvalidParameters(
                f"{pictures} pictures with {self.variations} variations are {count} edits; at most {_MAX_EDITS} are "
                "made in one go. Split the batch. Nothing was sent."
            )
        return count

    def edits(self, session: Session, image: torch.Tensor) -> list[Edit]:
        """The edits of an IMAGE: the variations of each picture in turn, with seeds counting up from the first.

        Raises ImageError for what is no IMAGE.
        """
        edits: list[Edit] = []
        check_image(image)
        references = self.along.pixels()
        digests = list(map(digest, references))
        count = len(image) * self.variations
        texts = [_Once(partial(_input_image, session, one, self.send_as), count) for one in references]
        alike: Counter[str] = Counter()
        for place, picture in enumerate(image):
            pixels = to_uint8(picture)
            mask = self.along.mask_of(place, pixels)
            same = digest_of_all(pixels, digests, mask)
            send, mask_text = (
                None if one is None else _Once(partial(_input_image, session, one, self.send_as), self.variations)
                for one in (pixels, mask)
            )
            assert send is not None
            for _ in range(self.variations):
                # without a seed it is the how-manieth of its own, wherever in a batch it stands
                number = len(edits) if self.parameters.model.has_seed else alike[same]
                alike[same] += 1
                edits.append(Edit(self.parameters.variation(number), same, send, partial(beside, texts, mask_text)))
        return edits


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


def _input_image(session: Session, pixels: UInt8, send_as: SendAs) -> str:
    encoded = encode(pixels)
    if send_as is not SendAs.UPLOAD:
        return to_data_uri(encoded)
    return upload(session.client, encoded.data, encoded.media_type, session.settings.upload_repository)


def is_batch(image: object) -> bool:
    """Whether something has the four axes of an IMAGE."""
    return isinstance(image, torch.Tensor) and image.ndim == 4
