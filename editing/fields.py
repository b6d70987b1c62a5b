"""A field of a request as data: widgets, checks, the request's body, its identity and the help are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from . import values
from .values import Bounds, Unfit


class Kind(Enum):
    TEXT = "text"
    WHOLE = "whole number"
    NUMBER = "number"
    SWITCH = "switch"
    CHOICE = "choice"


@dataclass(frozen=True)
class Field:
    """One thing that an edit asks for.

    name: ours, as the widget and `--set` have it. wire: the service's. tooltip: what it does, in a sentence or two.
    default: None where it must be given. bounds: the least and the most, both included; of a text, the most
    characters. choices: the values of a CHOICE. step, decimals: of a NUMBER's widget.
    wraps: what is sent is the value modulo this. idle: a field and a value with which the service ignores this one,
    which then makes no other request of it. omits_empty: an empty text is not sent. advanced: whether the node folds it
    away.
    """

    name: str
    wire: str
    kind: Kind
    tooltip: str
    default: Any = None
    bounds: Bounds = values.ANY
    choices: tuple[str, ...] = ()
    step: float | None = None
    decimals: float | None = None
    wraps: int | None = None
    idle: tuple[str, Any] | None = None
    placeholder: str = ""
    omits_empty: bool = False
    advanced: bool = False

    def read(self, value: object) -> Any:
        """The value, checked; raises Unfit."""
        if self.kind is Kind.TEXT:
            found = values.sendable(value, self.name, int(self.bounds[1]))
            if not found.strip() and self.default is None:
                raise Unfit(f"The {self.name} is empty: say in a sentence what to change.")
            return found
        if self.kind is Kind.WHOLE:
            return values.whole(value, self.name, self.bounds)
        if self.kind is Kind.NUMBER:
            # one number is one request, as 3 in a list of rows and 3.0 in a widget, or nought of either sign
            return float(values.within(value, self.name, self.bounds)) + 0.0
        if self.kind is Kind.SWITCH:
            return values.switch(value, self.name)
        return values.one_of(self.choices, value, self.name)

    def sent(self, value: Any) -> Any:
        """A checked value as the service gets it."""
        return value if self.wraps is None else value % self.wraps
