"""Values that came over a link, which the host checks for nobody: a list on a STRING socket, a text on an INT one."""

from __future__ import annotations

import math
import re
from numbers import Real
from typing import TypeGuard

from ..oxen.errors import InvalidParameters

# A seed of ComfyUI's has 64 bits; nothing else that a node takes has more.
_MOST = 2**64
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


def text(value: object, name: str) -> str:
    """A STRING as it is; raises InvalidParameters for anything else, and for one with half of a character in it."""
    if isinstance(value, str):
        half = _HALF.search(value)
        if half is None:
            return value
        raise InvalidParameters(
            f"The {name} holds half of a character, which no text may, at place {half.end()}; type it again. "
            "Nothing was sent."
        )
    advice = " To have the node run once for each of its texts, make it a list of ComfyUI's." * isinstance(value, list)
    raise _refused(value, name, "a text", advice)


def whole(value: object, name: str, bounds: tuple[int, int] = (-_MOST, _MOST)) -> int:
    """An INT, also where it comes as a FLOAT without a fraction; raises InvalidParameters for anything else, and for
    one out of bounds.
    """
    if not _is_number(value) or not math.isfinite(value) or value != int(value):
        raise _refused(value, name, "a whole number")
    if not bounds[0] <= value <= bounds[1]:
        raise _out_of(bounds, value, name)
    return int(value)


def number(value: object, name: str) -> float:
    """A FLOAT or an INT; raises InvalidParameters for anything else."""
    if _is_number(value):
        return value if isinstance(value, int) else float(value)
    raise _refused(value, name, "a number")


def within(value: object, name: str, bounds: tuple[float, float]) -> float:
    """A FLOAT or an INT within bounds; raises InvalidParameters for anything else, NaN too."""
    found = number(value, name)
    if not bounds[0] <= found <= bounds[1]:
        raise _out_of(bounds, found, name)
    return found


def _is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number that Python's own arithmetic takes; a whole one may have more digits than that."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _out_of(bounds: tuple[float, float], value: float, name: str) -> InvalidParameters:
    return InvalidParameters(f"{name} is {value:g}; it takes {bounds[0]:g} to {bounds[1]:g}. Nothing was sent.")


def switch(value: object, name: str) -> bool:
    """A BOOLEAN, also where it comes as 0 or 1; raises InvalidParameters for anything else."""
    if isinstance(value, Real) and value in (0, 1):
        return bool(value)
    raise _refused(value, name, "true or false")


def _refused(value: object, name: str, wanted: str, advice: str = "") -> InvalidParameters:
    kind = _KINDS.get(type(value), f"of the kind {type(value).__name__}")
    kind = kind if not isinstance(value, Real) or _is_number(value) or isinstance(value, bool) else "one too large"
    short = isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 10**39)
    shown = f" ({value!r})" if short and len(repr(value)) <= 40 else ""
    return InvalidParameters(
        f"{name} takes {wanted}; what is connected gives it {kind}{shown}.{advice} Nothing was sent."
    )
