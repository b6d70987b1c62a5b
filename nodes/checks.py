"""The values that a node was given, checked before anything is sent; each raises InvalidParameters."""

from __future__ import annotations

from ..editing import values
from ..editing.values import ANY, Bounds, Member
from ..oxen.errors import checked


def text(value: object, name: str) -> str:
    return checked(values.text, value, name)


def whole(value: object, name: str, bounds: Bounds = ANY) -> int:
    return checked(values.whole, value, name, bounds)


def number(value: object, name: str) -> float:
    return checked(values.number, value, name)


def within(value: object, name: str, bounds: Bounds) -> float:
    return checked(values.within, value, name, bounds)


def switch(value: object, name: str) -> bool:
    return checked(values.switch, value, name)


def member(kind: type[Member], value: object, name: str) -> Member:
    return checked(lambda: values.member(kind, value, name))
