"""What the commands print. Whatever stands where a terminal was meant to be, printing ends no run: a line about a
picture that was paid for is worth less than the picture.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import TextIO


def open_console() -> None:
    """Let stdout and stderr take every text: what their encoding lacks is shown as an escape, never raised."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def parsed(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The options of a command line; ends the command in argparse's own way where they are none."""
    options = parser.parse_args(arguments)
    for name, value in vars(options).items():
        # argparse takes the -- of --option=-- away and leaves an empty list in place of a text
        is_empty = value == [] and parser.get_default(name) != []
        if is_empty or (isinstance(value, list) and [] in value):
            parser.error(f"-- is no value of {name.replace('_', '-')}")
    return options


def say(text: str, stream: TextIO | None, end: str = "\n") -> OSError | None:
    """Print a text at once; gives the error where the stream takes nothing any more, and silences it from then on.

    stream: None, as Python has it for a stream that was closed before it began, takes nothing and is no error.
    """
    if stream is None:
        return None
    try:
        try:
            stream.write(text + end)
        except UnicodeEncodeError:  # a stream that is none of Python's own
            stream.write((text + end).encode("ascii", "backslashreplace").decode("ascii"))
        stream.flush()
    except OSError as error:
        _silence(stream)
        return error
    except ValueError as error:  # it is closed
        return OSError(str(error))
    return None


def tell(text: str) -> bool:
    """Print what a command was run for; False, with the reason on stderr, where it could not be written.

    A reader that has read enough, as `head` has, is no failure.
    """
    error = say(text, sys.stdout)
    if error is None or isinstance(error, BrokenPipeError):
        return True
    say(f"The result could not be printed: {error.strerror or error}.", sys.stderr)
    return False


def harmless(text: str) -> str:
    """A text as a terminal may have it: what would move its cursor, or turn its writing round, stands as an escape."""
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person watches the stream, so that a line may be drawn again in place."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def typed(text: str) -> str:
    """A text from the command line where the locale knows less than the terminal: its bytes read as UTF-8."""
    if not any("\udc80" <= character <= "\udcff" for character in text):
        return text
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return text


def _silence(stream: TextIO) -> None:
    # what is still in its buffer is written when Python ends, and would fail once more
    # a stream that is none of Python's own may have no file behind it
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
