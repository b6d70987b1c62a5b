"""Values that came over a link, which the host checks for nobody: a list on a STRING socket, a text on an INT one."""

from __future__ import annotations

import math
from numbers import Real

from ..oxen.errors import InvalidParameters

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
    """A STRING as it is; raises InvalidParameters for anything else."""
    if isinstance(value, str):
        return value
    advice = " To have the node run once for each of its texts, make it a list of ComfyUI's." * isinstance(value, list)
    raise _refused(value, name, "a text", advice)


def whole(value: object, name: str) -> int:
    """An INT, also where it comes as a FLOAT without a fraction; raises InvalidParameters for anything else."""
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and value == int(value):  # type: ignore[call-overload]
        return int(value)  # type: ignore[call-overload, no-any-return]
    raise _refused(value, name, "a whole number")


def number(value: object, name: str) -> float:
    """A FLOAT or an INT; raises InvalidParameters for anything else."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return value if isinstance(value, int) else float(value)
    raise _refused(value, name, "a number")


def switch(value: object, name: str) -> bool:
    """A BOOLEAN, also where it comes as 0 or 1; raises InvalidParameters for anything else."""
    if isinstance(value, Real) and value in (0, 1):
        return bool(value)
    raise _refused(value, name, "true or false")


def _refused(value: object, name: str, wanted: str, advice: str = "") -> InvalidParameters:
    kind = _KINDS.get(type(value), f"of the kind {type(value).__name__}")
    shown = f" ({value!r})" if isinstance(value, str | int | float) and len(repr(value)) <= 40 else ""
    return InvalidParameters(
        f"{name} takes {wanted}; what is connected gives it {kind}{shown}.{advice} Nothing was sent."
    )
