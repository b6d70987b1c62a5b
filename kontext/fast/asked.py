"""Approximations as words on a command line: cache=0.1, reference=2, mask=FILE, settled=0.05, measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import BadRequest

# Where a word comes without a number.
USUAL = {"cache": 0.1, "reference": 2.0, "settled": 0.1}


@dataclass(frozen=True)
class FastOptions:
    """mask: the name of a picture file, not looked at yet."""

    cache: float = 0.0
    reference: float = 1.0
    mask: str | None = None
    settled: float = USUAL["settled"]
    measure: bool = False


def asked(words: Sequence[str]) -> FastOptions:
    """What is asked for; raises BadRequest for a word that is unknown or comes twice, and for what is no number."""
    given: dict[str, float | str | bool] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name in given:
            raise BadRequest(f"--fast {name} is given twice: give it once.")
        if name == "measure" and not equals:
            given[name] = True
        elif name == "mask" and value:
            given[name] = value
        elif name in USUAL:
            given[name] = _number(name, value) if equals else USUAL[name]
        else:
            raise BadRequest(
                f"--fast does not know {word!r}: it takes cache, reference and settled, each alone or with a number as "
                "in cache=0.1, mask=FILE, and measure."
            )
    if "settled" in given and "mask" not in given:
        raise BadRequest("--fast settled is about a mask: give --fast mask=FILE with it.")
    if given.keys() == {"measure"}:
        raise BadRequest("--fast measure compares with the exact edit, and nothing else is asked for: add cache, say.")
    return FastOptions(**given)  # type: ignore[arg-type]


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise BadRequest(f"--fast {name} is {value!r}, which is no number.") from error
