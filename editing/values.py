"""Values from outside, which the host checks for nobody: a list on a STRING socket, a text on an INT one. Pure."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from enum import Enum
from numbers import Integral, Real
from typing import TypeVar

Bounds = tuple[float, float]
Member = TypeVar("Member", bound=Enum)

# A seed of ComfyUI's has 64 bits; nothing else that a node takes has more.
ANY = (-(2.0**64), 2.0**64)
_SHOWN = 60
_HALF = re.compile("[\ud800-\udfff]")
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a Python list",
    tuple: "a Python list",
    dict: "a dictionary",
    bytes: "bytes",
    type(None): "nothing",
}


class Unfit(ValueError):
    """A value that does not fit: its text names it, what it is, and what is taken."""


def text(value: object, name: str) -> str:
    """A STRING as it is; raises Unfit for anything else, and for one with half of a character in it."""
    if not isinstance(value, str):
        advice = " To have the node run once for each of its texts, make it a list of ComfyUI's."
        raise _another_kind(value, name, "a text", advice * isinstance(value, list))
    if half := _HALF.search(value):
        raise Unfit(f"The {name} holds half of a character, which no text may, at place {half.end()}; type it again.")
    return value


def sendable(value: object, name: str, most: int) -> str:
    """A text of at most so many characters, none of them one that cannot be seen; raises Unfit for anything else."""
    found = text(value, name)
    if len(found) > most:
        raise Unfit(f"The {name} has {len(found):,} characters, beginning {shown(found)}; it takes at most {most:,}.")
    for place, character in enumerate(found, 1):
        if unicodedata.category(character) == "Cc" and character not in "\t\n\r":
            raise Unfit(
                f"The {name} holds the control character U+{ord(character):04X} at place {place}, which cannot be seen "
                "and may not be sent; delete it, or type the text again."
            )
    return found


def whole(value: object, name: str, bounds: Bounds = ANY) -> int:
    """An INT, also where it comes as a FLOAT without a fraction; raises Unfit for anything else."""
    found = _number(value)
    if found is None or not math.isfinite(found) or found % 1:
        raise _another_kind(value, name, "a whole number")
    return int(_inside(found, name, bounds))


def number(value: object, name: str) -> float:
    """A FLOAT or an INT as it is; raises Unfit for anything else."""
    found = _number(value)
    if found is None:
        raise _another_kind(value, name, "a number")
    return found


def within(value: object, name: str, bounds: Bounds) -> float:
    """A FLOAT or an INT within bounds; raises Unfit for anything else, NaN too."""
    return _inside(number(value, name), name, bounds)


def switch(value: object, name: str) -> bool:
    """A BOOLEAN, also where it comes as 0 or 1; raises Unfit for anything else."""
    if isinstance(value, Real) and value in (0, 1):
        return bool(value)
    raise _another_kind(value, name, "true or false")


def member(kind: type[Member], value: object, name: str) -> Member:
    """The member of an enum by its value; raises Unfit listing the choices."""
    return kind(one_of([str(one.value) for one in kind], value, name))


def one_of(choices: Sequence[str], value: object, name: str) -> str:
    """One of some texts, or the member of an enum that stands for it; raises Unfit listing them."""
    text = value.value if isinstance(value, Enum) else value
    if isinstance(text, str) and text in choices:
        return text
    raise Unfit(f"{name} is {shown(value)}; it takes one of {', '.join(choices)}.")


def shown(value: object) -> str:
    """A value for an error's text, cut where it is long."""
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return "a number of very many digits"  # Python itself prints no more than some thousands
    told = ascii(value[:_SHOWN] if isinstance(value, str) else value)
    return told if len(told) <= _SHOWN else f"{told[:_SHOWN]}…"


def _number(value: object) -> int | float | None:
    """Python's own number for any kind of one, NumPy's among them; None for what is none, or has too many digits."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return int(value) if isinstance(value, Integral) else found


def _inside(value: float, name: str, bounds: Bounds) -> float:
    low, high = bounds
    if not low <= value <= high:
        upto = f" to {high:g}" if high < ANY[1] - 1 else " or more"
        raise Unfit(f"{name} is {shown(value)}; it takes {low:g}{upto}.")
    return value


def _another_kind(value: object, name: str, wanted: str, advice: str = "") -> Unfit:
    kind = _KINDS.get(type(value), f"of the kind {type(value).__name__}")
    if isinstance(value, Real) and not isinstance(value, bool) and _number(value) is None:
        kind = "one too large"
    brief = isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 10**39)
    told = f" ({value!r})" if brief and len(repr(value)) <= 40 else ""
    return Unfit(f"{name} takes {wanted}; what is connected gives it {kind}{told}.{advice}")
