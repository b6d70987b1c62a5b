"""What the person who runs the machine decides, never a workflow: limits, storage, upload repository."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from .errors import Misconfigured

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SETTINGS_FILE = "settings.toml"
ENVIRONMENT_PREFIX = "KONTEXT_BRIDGE_"
# Not a setting: it says where the settings are.
_FOLDER_VARIABLE = ENVIRONMENT_PREFIX + "HOME"
_REPOSITORY_PARTS = 2
# More is a slip of the pen, or arithmetic that no clock and no file system can do.
_MOST = 1_000_000_000


def _whole(value: Any) -> int | None:
    """The whole number that a TOML value or a variable's text stands for, None where it is none."""
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _in_flight(value: Any) -> int:
    number = _whole(value)
    if number is None or not 1 <= number <= 8:
        raise ValueError("a whole number from 1 to 8")
    return number


def _positive(value: Any) -> int:
    number = _whole(value)
    if number is None or not 1 <= number <= _MOST:
        raise ValueError(f"a whole number above 0, at most {_MOST}")
    return number


def _dollars(value: Any) -> Decimal:
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise ValueError("an amount in US dollars such as 0.50") from None
    if not amount.is_finite() or not 0 <= amount <= _MOST:
        raise ValueError("an amount in US dollars such as 0.50")
    return amount


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"", "0", "false", "no", "off"}:
        return False
    raise ValueError("true or false")


def _repository(value: Any) -> str:
    text = str(value).strip().strip("/")
    parts = text.split("/")
    if len(parts) != _REPOSITORY_PARTS or not all(part.strip(". ") for part in parts):
        raise ValueError("a repository as NAMESPACE/NAME")
    return text


@dataclass(frozen=True)
class Settings:
    """One machine's settings.

    max_in_flight: edits under way at once, 1 to 8.
    usd_per_run, usd_per_day: spend limits in US dollars; None means no limit.
    store_megabytes: size limit of the kept result files.
    keep_days: age in days after which a collected result's file may go.
    allow_private_urls: let URL inputs reach private, loopback and link-local addresses.
    upload_repository: NAMESPACE/NAME of a public Oxen repository that "Oxen upload" writes to.
    allow_key_page: let Settings > Kontext Bridge show and change the key and the limits also where ComfyUI serves
    several users, or is reached under a public name without https.
    """

    max_in_flight: int = 8
    usd_per_run: Decimal | None = None
    usd_per_day: Decimal | None = None
    store_megabytes: int = 2048
    keep_days: int = 90
    allow_private_urls: bool = False
    upload_repository: str | None = None
    allow_key_page: bool = False


# What a TOML value, or a variable's text, means; a ValueError says what the setting takes.
READERS: dict[str, Callable[[Any], Any]] = {
    "max_in_flight": _in_flight,
    "usd_per_run": _dollars,
    "usd_per_day": _dollars,
    "store_megabytes": _positive,
    "keep_days": _positive,
    "allow_private_urls": _switch,
    "upload_repository": _repository,
    "allow_key_page": _switch,
}


def load_settings(folder: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from `folder`/settings.toml, each overridden by KONTEXT_BRIDGE_<NAME> in the environment.

    Raises Misconfigured naming the file or variable, the setting and what it takes.
    """
    path = folder / SETTINGS_FILE
    given: dict[str, tuple[str, Any]] = {}
    given.update({name: (f"{path}: {name}", value) for name, value in read_toml(path).items()})
    variables = {variable_of(field.name): field.name for field in fields(Settings)}
    for variable, value in environ.items():
        if variable.startswith(ENVIRONMENT_PREFIX) and variable != _FOLDER_VARIABLE and value.strip():
            given[variables.get(variable, variable)] = (variable, value)
    values: dict[str, Any] = {}
    for name, (where, value) in given.items():
        if name not in READERS:
            raise Misconfigured(f"{where} is not a setting. Known settings: {', '.join(READERS)}. Nothing was sent.")
        try:
            values[name] = READERS[name](value)
        except ValueError as error:
            raise Misconfigured(f"{where} is {value!r}; it takes {error}. Nothing was sent.") from None
    return Settings(**values)


def variable_of(name: str) -> str:
    """The environment variable that goes before the file for this setting."""
    return ENVIRONMENT_PREFIX + name.upper()


def read_toml(path: Path) -> dict[str, Any]:
    """What the file says, nothing where there is none."""
    try:
        # Notepad begins a file with a byte order mark.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Misconfigured(f"{path} cannot be read: {error}. Mend it, or remove it. Nothing was sent.") from None
