"""The way out of this machine, as its environment tells it: by which proxy, and whose certificates are trusted.

Looked at before a request is made, so that what is wrong with it is told by name, and nothing was sent. The addresses
of proxies are never shown: they hold passwords.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import requests
import requests.utils
import urllib3.exceptions
from urllib3.util import parse_url

from ..errors import Misconfigured

# The first that is set counts, in the order of requests and then of Python itself.
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_SOCKS = frozenset(["socks4", "socks4a", "socks5", "socks5h"])
_HTTP = frozenset(["http", "https"])
_MEND = "Nothing was sent. Correct or unset it where ComfyUI is started, then start it again."


@dataclass(frozen=True)
class Way:
    """How one URL is reached, in the forms in which requests takes it: `verify` is a file, a folder, or True."""

    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: bool | str = True


def way_to(url: str, session: requests.Session, *, proxied: bool | None = None) -> Way:
    """The way to a URL for a session; its own `verify` comes before the environment's.

    proxied: whether proxies of the environment are used; None asks the session's `trust_env`.
    Raises Misconfigured naming the variable that is wrong.
    """
    proxies: dict[str, str] = {}
    if session.trust_env if proxied is None else proxied:
        proxies = requests.utils.get_environ_proxies(url, no_proxy=None)
        proxy = requests.utils.select_proxy(url, proxies)
        if proxy:
            _check_proxy(proxy, _variable_of(proxy))
    verify: bool | str = session.verify if session.verify is not None else True
    if verify is True and urlsplit(url).scheme == "https":
        verify = _trusted() or True
    return Way(proxies, verify)


def _trusted() -> str | None:
    for variable in CA_VARIABLES:
        path = os.environ.get(variable, "").strip()
        if path:
            _check_certificates(variable, Path(path))
            return path
    return None


def _check_certificates(variable: str, path: Path) -> None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        raise Misconfigured(
            f"{variable} names {path} for the certificates to trust, and there is no such file. {_MEND}"
        ) from None
    if path.is_dir():
        return
    why = _unusable(str(path), found.st_mtime_ns, found.st_size)
    if why:
        raise Misconfigured(f"{variable} names {path} for the certificates to trust, and {why}. {_MEND}")


@functools.lru_cache(maxsize=16)
def _unusable(path: str, changed: int, size: int) -> str:
    """Why a file cannot be used for certificates, empty where it can; asked once for each state of it."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        return "it holds none that can be read"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return ""


def _variable_of(proxy: str) -> str:
    for name, value in os.environ.items():
        if value == proxy and name.lower() in {"http_proxy", "https_proxy", "all_proxy"}:
            return name
    return "The system's proxy setting"


def _check_proxy(proxy: str, variable: str) -> None:
    try:
        parts = parse_url(proxy if "://" in proxy else f"http://{proxy}")
    except (urllib3.exceptions.HTTPError, requests.RequestException, ValueError):
        parts = None
    scheme = (parts.scheme or "").lower() if parts is not None else ""
    if parts is None or not parts.host or scheme not in _HTTP | _SOCKS or any(sign.isspace() for sign in proxy):
        raise Misconfigured(f"{variable} is no address of a proxy, such as http://proxy.example.com:8080. {_MEND}")
    if scheme in _SOCKS and importlib.util.find_spec("socks") is None:
        raise Misconfigured(
            f"{variable} names a SOCKS proxy, for which Python's package PySocks is missing. Nothing was sent. Run "
            "`python -m pip install pysocks` with ComfyUI's Python and start it again, or name an HTTP proxy."
        )
