"""Changing settings in settings.toml: whole or not at all, and everything else in the file stays as it is."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from .errors import Misconfigured
from .private_files import make_folder, replace_file, sync_if_possible
from .settings import READERS, SETTINGS_FILE, read_toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MOST_DIGITS = 20
_guard = threading.Lock()


def change_settings(folder: Path, changes: Mapping[str, Any]) -> None:
    """Write whole numbers and amounts into `folder`/settings.toml, where the next run reads them.

    changes: the new values by their settings' names, as `load_settings` takes them; None takes one out of the file.
    Raises Misconfigured for values that a setting does not take and for a file that cannot be changed line by line, and
    OSError; nothing has changed then.
    """
    values = {name: None if value is None else _read(name, value) for name, value in changes.items()}
    path = folder / SETTINGS_FILE
    with _guard:
        before = read_toml(path)
        old = path.read_bytes().decode("utf-8-sig") if path.exists() else ""
        wanted = {name: value for name, value in before.items() if values.get(name, value) is not None}
        wanted.update(
            {name: tomllib.loads(_line(name, value))[name] for name, value in values.items() if value is not None}
        )
        new = _changed(old, values)
        if _parsed(new) != wanted:
            raise Misconfigured(
                f"{path} is written in a way that only a text editor can change. Change it there. Nothing was changed."
            )
        make_folder(folder)
        replace_file(path, new.encode())
        sync_if_possible(folder)


def _read(name: str, value: Any) -> int | Decimal:
    """A value as its setting takes it. The error does not repeat it: whatever is pasted into a form may be a secret."""
    try:
        read = READERS[name](value)
    except ValueError as error:
        raise Misconfigured(f"{name} takes {error}. Nothing was changed.") from None
    if isinstance(read, Decimal) and int(read.as_tuple().exponent) < -_MOST_DIGITS:
        raise Misconfigured(f"{name} takes at most {_MOST_DIGITS} digits after the point. Nothing was changed.")
    assert isinstance(read, (int, Decimal))
    return read


def _changed(text: str, values: Mapping[str, Any]) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    for name, value in values.items():
        begins = rf"^[ \t]*(?:{name}|\"{name}\"|'{name}')[ \t]*="
        if value is None:
            text = re.sub(rf"{begins}.*(?:\n|\Z)", "", text, flags=re.MULTILINE)
            continue
        said = rf"({begins}[ \t]*)(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s#]+)"
        text, found = re.subn(said, rf"\g<1>{_toml(value)}", text, flags=re.MULTILINE)
        if not found:
            text += end if text and not text.endswith("\n") else ""
            text += _line(name, value) + end
    return text


def _line(name: str, value: Any) -> str:
    return f"{name} = {_toml(value)}"


def _toml(value: int | Decimal) -> str:
    """A number as TOML; an amount that a float does not hold exactly is a text, which the settings take too."""
    text = format(value, "f") if isinstance(value, Decimal) else str(value)
    return text if Decimal(str(float(text))) == Decimal(text) else f'"{text}"'


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
