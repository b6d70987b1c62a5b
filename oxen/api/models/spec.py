"""A model as data: its fields, from which widgets, checks, the request's body and its identity are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ....editing.fields import Field
from ....editing.values import Unfit


@dataclass(frozen=True)
class ModelSpec:
    """A model of the service: the id that requests name it by, and its fields in the order of the node's widgets."""

    id: str
    fields: tuple[Field, ...]

    @cached_property
    def named(self) -> Mapping[str, Field]:
        return {field.name: field for field in self.fields}

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
        return {"model": self.id} | {field.wire: field.sent(values[field.name]) for field in self.fields}

    def identity(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The body without what changes nothing in its picture."""
        idle = {one.wire for one in self.fields if one.idle is not None and values[one.idle[0]] == one.idle[1]}
        return {name: value for name, value in self.body(values).items() if name not in idle}
