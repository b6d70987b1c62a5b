"""A model as data: pictures and fields, from which widgets, checks, the request's body and its identity are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from ....editing.fields import Field
from ....editing.values import Unfit
from ..prices import UNKNOWN, Price
from .shape import Shape

# Offered where the service does not say how many it takes.
_UNTOLD_MOST = 10


class Form(str, Enum):
    """How pictures stand in a request: as one text, as a list of texts, as a text in a field each, as objects."""

    ONE = "one"
    LIST = "list"
    FIELDS = "fields"
    OBJECTS = "objects"


class Marks(str, Enum):
    """Which pixels of a mask are the part to change. UNKNOWN: nobody says, so that none is ever sent."""

    WHITE = "white"
    TRANSPARENT = "transparent"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Pictures:
    """The pictures that a model takes.

    fields: the service's names, several only for FIELDS. told_most: how many it takes at most; None where the service
    does not say. key: of OBJECTS, the address's name in each. each: of OBJECTS, our names of the fields whose values
    stand in each of them and not in the body.
    """

    fields: tuple[str, ...] = ("input_image",)
    form: Form = Form.ONE
    told_most: int | None = 1
    key: str = ""
    each: tuple[str, ...] = ()

    @property
    def least(self) -> int:
        return len(self.fields)

    @property
    def most(self) -> int:
        return len(self.fields) if self.form is Form.FIELDS else self.told_most or _UNTOLD_MOST

    def body(self, addresses: Sequence[str], each: Mapping[str, Any]) -> dict[str, Any]:
        """Pictures, as data URIs or addresses, in the request's fields; `each` are the wire values of `self.each`."""
        if self.form is Form.ONE:
            return {self.fields[0]: addresses[0]}
        if self.form is Form.FIELDS:
            return dict(zip(self.fields, addresses, strict=True))
        if self.form is Form.LIST:
            return {self.fields[0]: list(addresses)}
        return {self.fields[0]: [{self.key: address, **each} for address in addresses]}


@dataclass(frozen=True)
class MaskRule:
    """The mask that a model takes, in the picture's own size. field: the service's name."""

    field: str
    marks: Marks
    required: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """A model of the service: the id that requests name it by, and its fields in the order of the node's widgets.

    name, about: for people. never: the service's fields that must not be sent. shape: None where nothing sets it.
    route: of a blocking request, after `images/`.
    """

    id: str
    fields: tuple[Field, ...]
    name: str = ""
    about: str = ""
    pictures: Pictures = Pictures()
    mask: MaskRule | None = None
    shape: Shape | None = None
    never: tuple[str, ...] = ()
    price: Price = UNKNOWN
    route: str = "edit"

    @cached_property
    def named(self) -> Mapping[str, Field]:
        return {field.name: field for field in self.fields}

    @property
    def has_seed(self) -> bool:
        return "seed" in self.named

    def read(self, given: Mapping[str, object]) -> dict[str, Any]:
        """Every field's value, checked, with defaults for what is not given; raises Unfit."""
        for name in given:
            if name not in self.named:
                raise Unfit(f"{self.id} has no {name}; it has {', '.join(self.named)}.")
        for field in self.fields:
            if field.name not in given and field.default is None:
                raise Unfit(f"{self.id} needs a {field.name}.")
        return {field.name: field.read(given.get(field.name, field.default)) for field in self.fields}

    def body(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Checked values under the service's names. All are sent: the service's own defaults reframe and compress."""
        own = [field for field in self.fields if field.name not in self.pictures.each]
        return {"model": self.id} | self._wire(own, values)

    def identity(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The body without what changes nothing in its picture, and with what stands beside each picture."""
        idle = {one.wire for one in self.fields if one.idle is not None and values[one.idle[0]] == one.idle[1]}
        whole = {"model": self.id} | self._wire(self.fields, values)
        return {name: value for name, value in whole.items() if name not in idle}

    def with_pictures(self, values: Mapping[str, Any], addresses: Sequence[str], mask: str | None) -> dict[str, Any]:
        """What stands in the request for its pictures and its mask, each a data URI or an address."""
        each = self._wire([self.named[name] for name in self.pictures.each], values)
        body = self.pictures.body(addresses, each)
        if mask is not None and self.mask is not None:
            body[self.mask.field] = mask
        return body

    @staticmethod
    def _wire(fields: Sequence[Field], values: Mapping[str, Any]) -> dict[str, Any]:
        said = ((field, field.sent(values[field.name])) for field in fields)
        return {field.wire: value for field, value in said if value != "" or not field.omits_empty}
