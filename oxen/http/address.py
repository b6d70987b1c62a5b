"""Which network addresses a URL from a workflow may reach, and a connection that reaches no other.

Where a proxy of the environment applies to a URL, it is the proxy that looks the name up and connects, and nobody here
can know where to. What can be known is refused all the same: a literal address in any spelling, a name that by its form
lies inside (no dot, .local, .internal ...), and one that leads inside when it is looked up here. A name that is not
known here goes to the proxy, as behind many a company's proxy no outside name is. What is left, a name that means
something else to the proxy than here, is for the proxy to judge: it was put there to decide what this machine reaches.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
import requests.utils
import urllib3.connectionpool

from ..errors import UrlRefused
from .connections import CONNECT_SECONDS, Addresses, HeadersInTime, HTTPSOnALine, InTimeAdapter, resolve

# What older Pythons take for public: special-purpose blocks (IANA's registries), metadata services among them, and
# the one public number at which a cloud (Azure) answers its virtual machines itself.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(block)
    for block in (
        "168.63.129.16/32",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "100::/64",
        "2001::/23",
        "3fff::/20",
        "5f00::/16",
    )
)
_INSIDE = (".localhost", ".local", ".internal", ".intranet", ".private", ".lan", ".home", ".corp", ".home.arpa")
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")
_A_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
# A resolver that knows no outside names may take its time to say so, before each picture.
_LOOK_UP_SECONDS = 2.0
_V4_IN_V6 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also when it wraps an IPv4 address in IPv6."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if embedded is None and (any(ip in net for net in _V4_IN_V6) or int(ip) >> 32 == 0):
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
        if ip.is_site_local:
            return False
    if any(ip in block for block in _NOT_PUBLIC):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def resolve_public(host: str, port: int | None, seconds: float = CONNECT_SECONDS) -> Addresses:
    """`getaddrinfo` results of a host, all of them public.

    Raises UrlRefused where even one is not: a name that points inside as well as outside is not to be trusted; and
    what `connections.resolve` raises.
    """
    found = resolve(host, port, seconds)
    for *_, address in found:
        if not is_public(str(address[0])):
            raise _refused(host)
    return found


def check_for_proxy(host: str) -> None:
    """Raise UrlRefused where a proxy asked for `host`, as it stands in a URL, would be led inside (see the module)."""
    name = host.strip("[]").rstrip(".").lower()
    literal = _literal(name)
    if literal is not None:
        if not is_public(literal):
            raise _refused(host)
        return
    if not _HOST.fullmatch(name) or name.endswith(_INSIDE) or _A_NUMBER.fullmatch(name.rsplit(".", 1)[-1]):
        raise _refused(host)
    try:
        resolve_public(name, None, _LOOK_UP_SECONDS)
    except (TimeoutError, socket.gaierror, UnicodeError):
        return  # it is the proxy that knows names here


def _literal(name: str) -> str | None:
    """The address that a name spells, in all the ways in which C libraries read IPv4 ones; None for a real name."""
    try:
        return str(ipaddress.ip_address(name.split("%", 1)[0]))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(name))
    except (OSError, UnicodeError, ValueError):
        return None


def _refused(host: str) -> UrlRefused:
    return UrlRefused(
        f"The URL's host {host[:100]} leads to a private, loopback or link-local address and is not fetched. "
        "If you run that machine yourself, set allow_private_urls in the settings."
    )


class _PublicHTTPConnection(HeadersInTime):
    """Connects to an address that was checked, the very one and not its name again."""

    def _addresses(self, host: str, seconds: float) -> Addresses:
        return resolve_public(host, self.port or self.default_port, seconds)


class _PublicHTTPSConnection(HTTPSOnALine):
    def _addresses(self, host: str, seconds: float) -> Addresses:
        return resolve_public(host, self.port or self.default_port, seconds)


class _PublicHTTPPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _PublicHTTPConnection


class _PublicHTTPSPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _PublicHTTPSConnection


class PublicOnlyAdapter(InTimeAdapter):
    """A requests adapter that connects to public addresses alone, whatever the name says a moment later."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PublicHTTPPool, "https": _PublicHTTPSPool}

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        proxies: Mapping[str, str] = kwargs.get("proxies") or {}
        url = str(request.url)
        if requests.utils.select_proxy(url, dict(proxies)):
            check_for_proxy(urlsplit(url).hostname or "")
        return super().send(request, *args, **kwargs)
