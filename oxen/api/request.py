"""One edit as plain, checked data: a model, its fields' values, and who pays."""

from __future__ import annotations

from copy import copy
from typing import Any

from ...editing import values
from ..errors import checked
from .models import DEFAULT, ModelSpec

_NAMESPACE_CHARACTERS = 200


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

    def changed(self, **given: Any) -> EditParameters:
        """The same edit with some other values; raises InvalidParameters."""
        return EditParameters(self.model, namespace=self.namespace, **(self._values | given))

    def variation(self, number: int) -> EditParameters:
        """The same edit for the picture of this number, counted from 0: with a seed that is so much higher."""
        other = copy(self)
        if "seed" in self._values:
            other._values = self._values | {"seed": self._values["seed"] + number}
        return other

    def body(self) -> dict[str, Any]:
        """The JSON fields of the request except the picture."""
        return self.model.body(self._values) | self._payer()

    def identity(self) -> dict[str, Any]:
        """What makes it this request and no other."""
        return self.model.identity(self._values) | self._payer()

    def _payer(self) -> dict[str, str]:
        return {} if self.namespace is None else {"target_namespace": self.namespace}
