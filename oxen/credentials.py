"""Where the API key comes from, and the one host that it goes to."""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import Misconfigured
from .loopback import is_loopback_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

logger = logging.getLogger(__name__)

DEFAULT_BASE_URL = "https://hub.oxen.ai"
KEY_VARIABLE = "OXEN_API_KEY"
BASE_VARIABLE = "OXEN_BASE_URL"
KEY_FILE = "oxen_api_key"
KEY_PAGE = "https://oxen.ai/settings/profile"
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

    def require_key(self) -> str:
        """The key; raises Misconfigured with every place to put one where there is none."""
        if self.key:
            return self.key
        host = urlsplit(self.base_url).netloc
        raise Misconfigured(
            f"No Oxen.ai API key was found, nothing was sent. Get one at {KEY_PAGE}, then set the environment "
            f"variable {KEY_VARIABLE} before ComfyUI starts, or run `oxen config --auth {host} KEY`, or write it to "
            f"the file {self.key_file} (chmod 600)."
        )


def find_account(user_folder: Path, environ: Mapping[str, str] = os.environ) -> Account:
    """The account to use: environment, then Oxen's own config file, then a file in `user_folder`.

    Raises Misconfigured for an unusable base URL, a key with line breaks or other unprintable characters in it,
    or a key file that others can read.
    """
    base_url = find_base_url(environ)
    from_environment = environ.get(KEY_VARIABLE, "").strip()
    if from_environment:
        return Account(base_url, _checked(from_environment, KEY_VARIABLE), KEY_VARIABLE)
    config = _config_file(environ)
    from_config = _key_in_config(config, urlsplit(base_url).netloc)
    if from_config:
        return Account(base_url, _checked(from_config, config.name), "Oxen's auth_config.toml")
    key_file = user_folder / KEY_FILE
    if key_file.is_file():
        return Account(base_url, _checked(_read_private(key_file), str(key_file)), f"the file {key_file}")
    return Account(base_url, None, key_file=key_file)


def find_base_url(environ: Mapping[str, str] = os.environ) -> str:
    """The service's origin, which needs no key to be known; raises Misconfigured as `normalise_base_url` does."""
    return normalise_base_url(environ.get(BASE_VARIABLE, "") or DEFAULT_BASE_URL)


def normalise_base_url(text: str) -> str:
    """Scheme and host of a base URL given as https://host, …/api or …/api/ai.

    The scheme's own port is left out, so that one service has one name. Raises Misconfigured unless it is https, or
    http to a loopback address.
    """
    unusable = Misconfigured(f"{BASE_VARIABLE} must be a URL such as {DEFAULT_BASE_URL}, without user name or path.")
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
            "for a loopback address)."
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if port in {None, _PORTS[parts.scheme]} else f":{port}")


def is_sendable(key: str) -> bool:
    """Whether a key can stand in a header."""
    return key.isascii() and key.isprintable() and " " not in key


def _checked(key: str, where: str) -> str:
    if not is_sendable(key):
        raise Misconfigured(f"The API key in {where} contains spaces or unprintable characters; copy it again.")
    return key


def _config_file(environ: Mapping[str, str]) -> Path:
    folder = environ.get("OXEN_CONFIG_DIR", "").strip()
    base = Path(folder) if folder else Path.home() / ".config" / "oxen"
    return base / "auth_config.toml"


def _key_in_config(path: Path, host: str) -> str | None:
    if not path.is_file():
        return None
    try:
        config: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        logger.warning("Oxen's auth_config.toml cannot be read and is ignored.")
        return None
    entries = config.get("host_configs", [])
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or not isinstance(entry.get("auth_token"), str):
            continue
        if str(entry.get("host")).lower() == host:
            return str(entry["auth_token"]).strip() or None
    return None


def _read_private(path: Path) -> str:
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Misconfigured(f"The key file {path} can be read by other users; run `chmod 600` on it.")
    try:
        # Windows' editors put a mark before the text
        return path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError):
        raise Misconfigured(f"The key file {path} cannot be read; write the key into it as plain text.") from None
