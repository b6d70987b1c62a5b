"""One edit as plain, checked data: a model, its fields' values, and who pays."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

from ...editing import values
from ..errors import checked
from .models import DEFAULT, ModelSpec
from .prices import Priced

_NAMESPACE_CHARACTERS = 200


@dataclass(frozen=True)
class Beside:
    """What goes with the picture that is edited: further pictures and a mask, each a data URI or an address."""

    references: tuple[str, ...] = ()
    mask: str | None = None

    @property
    def all(self) -> tuple[str, ...]:
        return self.references if self.mask is None else (*self.references, self.mask)


ALONE = Beside()


class EditParameters:
    """What an edit asks for, without its picture; checked when it is made, and never changed.

    given: values by the model's own field names; what is not given has its default. `parameters["steps"]` reads one.
    namespace: the user or organisation that is billed and owns the result; None means the key's own user.

    Raises InvalidParameters naming the field and its range.
    """

    def __init__(self, model: ModelSpec = DEFAULT, *, namespace: str | None = None, **given: Any) -> None:
        self.model = model
        self._values = checked(model.read, given)
        said = "" if namespace is None else namespace
        self.namespace = checked(values.sendable, said, "namespace", _NAMESPACE_CHARACTERS).strip() or None
        self._number = 0

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    @property
    def prompt(self) -> str | None:
        """The instruction; None for a model that takes none."""
        return self._values.get("prompt")

    @property
    def seed_sent(self) -> int | None:
        """The seed as the service gets it; None for a model that takes none."""
        seed = self.model.named.get("seed")
        return None if seed is None else int(seed.sent(self._values["seed"]))

    @property
    def priced(self) -> Priced:
        """What decides the price of this edit."""
        quality, resolution = (str(self._values.get(name, "")) for name in ("quality", "resolution"))
        return Priced(self.model.id, quality, resolution)

    def changed(self, **given: Any) -> EditParameters:
        """The same edit with some other values; raises InvalidParameters."""
        return EditParameters(self.model, namespace=self.namespace, **(self._values | given))

    def variation(self, number: int) -> EditParameters:
        """The same edit for the picture of this number, counted from 0: with a seed that is so much higher.

        Of a model without a seed the numbers themselves tell requests apart, which else are alike.
        """
        other = copy(self)
        if self.model.has_seed:
            other._values = self._values | {"seed": self._values["seed"] + number}
        else:
            other._number = number
        return other

    def body(self) -> dict[str, Any]:
        """The JSON fields of the request except its pictures."""
        return self.model.body(self._values) | self._payer()

    def pictures(self, input_image: str, beside: Beside = ALONE) -> dict[str, Any]:
        """The JSON fields of the request that hold its pictures, each a data URI or an address."""
        return self.model.with_pictures(self._values, (input_image, *beside.references), beside.mask)

    def identity(self) -> dict[str, Any]:
        """What makes it this request and no other, but for its pictures."""
        which = {"variation": self._number} if self._number else {}
        return self.model.identity(self._values) | which | self._payer()

    def _payer(self) -> dict[str, str]:
        return {} if self.namespace is None else {"target_namespace": self.namespace}
