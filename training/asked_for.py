"""What the commands of training are asked for: numbers that can be, and errors that their user can mend in one line."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from typing import TypeVar

from ..kontext.errors import KontextError

_Kind = TypeVar("_Kind", int, float)


def carried_out(command: Callable[[], None]) -> None:
    """Ends the program with one line on stderr where the command fails by what its user can mend, or is stopped."""
    try:
        command()
    except (KontextError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped. What was kept last is whole.")


def above_zero(text: str) -> int:
    """For argparse: a whole number from 1 on."""
    return _number(text, int, 1)


def from_zero(text: str) -> int:
    """For argparse: a whole number from 0 on."""
    return _number(text, int, 0)


def some_time(text: str) -> float:
    """For argparse: seconds, or another number from 0 on."""
    return _number(text, float, 0)


def sides(text: str) -> tuple[int, int]:
    """For argparse: WIDTHxHEIGHT in pixels, multiples of 16."""
    both = text.split("x")
    if len(both) != 2 or not all(side.isdecimal() and int(side) and int(side) % 16 == 0 for side in both):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 128x96, in multiples of 16")
    return int(both[0]), int(both[1])


def _number(text: str, kind: type[_Kind], least: int) -> _Kind:
    try:
        number = kind(text)
    except ValueError:
        number = kind(least - 1)
    if not math.isfinite(number) or number < least:
        what = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text!r} is not {what} from {least} on")
    return number
