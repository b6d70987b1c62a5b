"""Where the API key comes from, and the one host that it goes to."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import Misconfigured
from .key_file import KEY_FILE, read_key_file, write_key_file
from .loopback import is_loopback_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "KEY_FILE",
    "Account",
    "Place",
    "find_account",
    "find_base_url",
    "is_sendable",
    "keep_key",
    "normalise_base_url",
    "places_of_key",
]

logger = logging.getLogger(__name__)

DEFAULT_BASE_URL = "https://hub.oxen.ai"
KEY_VARIABLE = "OXEN_API_KEY"
BASE_VARIABLE = "OXEN_BASE_URL"
KEY_PAGE = "https://oxen.ai/settings/profile"
_CONFIG_FILE = "auth_config.toml"
_LONGEST = 2048
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Account:
    """A service origin and the key for it.

    base_url: scheme, host and port without a path, for example https://hub.oxen.ai.
    key: None where none was found; public routes still work then.
    source: where the key came from, for people; never the key.
    key_file: where a key may be written to.
    """

    base_url: str
    key: str | None = field(repr=False)
    source: str = "nowhere"
    key_file: Path = Path(KEY_FILE)

    @property
    def mark(self) -> str | None:
        """By which a key is known again and from which it cannot be had; None where there is none."""
        return None if self.key is None else hashlib.sha256(self.key.encode()).hexdigest()[:16]

    def require_key(self) -> str:
        """The key; raises Misconfigured with every place to put one where there is none."""
        if self.key:
            return self.key
        host = urlsplit(self.base_url).netloc
        raise Misconfigured(
            f"No Oxen.ai key: Settings > Kontext Bridge. Nothing was sent. Get a key at {KEY_PAGE} and paste it there, "
            f"in ComfyUI. Or set the environment variable {KEY_VARIABLE} before ComfyUI starts, run "
            f"`oxen config --auth {host} KEY`, or write the key to the file {self.key_file} (chmod 600)."
        )


@dataclass(frozen=True)
class Place:
    """One of the places that a key is looked for in.

    name: variable, oxen or file. source: as in `Account`.
    read: the key there, None where there is none; raises Misconfigured where what is there cannot be used.
    """

    name: str
    source: str
    read: Callable[[], str | None] = field(repr=False)


def find_account(user_folder: Path, environ: Mapping[str, str] = os.environ) -> Account:
    """The account to use: environment, then Oxen's own config file, then a file in `user_folder`.

    Raises Misconfigured for an unusable base URL, a key with line breaks or other unprintable characters in it,
    or a key file that others can read and whose rights cannot be changed.
    """
    base_url = find_base_url(environ)
    key_file = user_folder / KEY_FILE
    for place in places_of_key(user_folder, base_url, environ):
        key = place.read()
        if key:
            return Account(base_url, key, place.source, key_file)
    return Account(base_url, None, key_file=key_file)


def places_of_key(user_folder: Path, base_url: str, environ: Mapping[str, str] = os.environ) -> tuple[Place, ...]:
    """The places that a key for `base_url` is looked for in; the first one that has a key gives it."""
    host, key_file = urlsplit(base_url).netloc, user_folder / KEY_FILE
    readers: tuple[tuple[str, str, Callable[[], str | None]], ...] = (
        ("variable", KEY_VARIABLE, lambda: environ.get(KEY_VARIABLE, "").strip() or None),
        ("oxen", f"Oxen's {_CONFIG_FILE}", lambda: _key_in_config(environ, host)),
        ("file", f"the file {key_file}", lambda: read_key_file(key_file)),
    )
    return tuple(Place(name, source, partial(_checked, read, source)) for name, source, read in readers)


def keep_key(user_folder: Path, key: str) -> None:
    """Write a key to the pack's own file, where the next run finds it.

    Raises Misconfigured for what cannot be a key, and OSError; nothing has changed then.
    """
    if not key or len(key) > _LONGEST or not is_sendable(key):
        raise Misconfigured(
            "That is no key: it is empty, longer than any, or has blanks, line breaks or other characters that cannot "
            "be sent. Copy it again. Nothing was changed."
        )
    write_key_file(user_folder / KEY_FILE, key)


def find_base_url(environ: Mapping[str, str] = os.environ) -> str:
    """The service's origin, which needs no key to be known; raises Misconfigured as `normalise_base_url` does."""
    return normalise_base_url(environ.get(BASE_VARIABLE, "") or DEFAULT_BASE_URL)


def normalise_base_url(text: str) -> str:
    """Scheme and host of a base URL given as https://host, …/api or …/api/ai.

    The scheme's own port is left out, so that one service has one name. Raises Misconfigured unless it is https, or
    http to a loopback address.
    """
    unusable = Misconfigured(
        f"{BASE_VARIABLE} must be a URL such as {DEFAULT_BASE_URL}, without user name or path. Nothing was sent."
    )
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise unusable from None
    path = parts.path.rstrip("/")
    usable = parts.hostname and path in {"", "/api", "/api/ai"} and "@" not in parts.netloc
    if not usable or parts.query or parts.fragment or parts.scheme not in _PORTS:
        raise unusable
    assert parts.hostname is not None
    if parts.scheme == "http" and not is_loopback_name(parts.hostname):
        raise Misconfigured(
            f"{BASE_VARIABLE} is plain http to {parts.hostname}; the key is only sent over https (http is allowed "
            "for a loopback address). Nothing was sent. Write it with https."
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if port in {None, _PORTS[parts.scheme]} else f":{port}")


def is_sendable(key: str) -> bool:
    """Whether a key can stand in a header."""
    return key.isascii() and key.isprintable() and " " not in key


def _checked(read: Callable[[], str | None], source: str) -> str | None:
    key = read()
    if key is not None and not is_sendable(key):
        raise Misconfigured(
            f"The API key in {source} contains spaces or unprintable characters; copy it again. Nothing was sent."
        )
    return key


def _key_in_config(environ: Mapping[str, str], host: str) -> str | None:
    folder = environ.get("OXEN_CONFIG_DIR", "").strip()
    try:
        path = (Path(folder) if folder else Path.home() / ".config" / "oxen") / _CONFIG_FILE
        if not path.is_file():
            return None
        config: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except RuntimeError:  # a user who has no home
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        logger.warning("Oxen's %s cannot be read and is ignored.", _CONFIG_FILE)
        return None
    entries = config.get("host_configs", [])
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or not isinstance(entry.get("auth_token"), str):
            continue
        if str(entry.get("host")).lower() == host:
            return str(entry["auth_token"]).strip() or None
    return None
