"""Which network addresses a URL from a workflow may reach, and a connection that reaches no other."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import requests.adapters
import urllib3
import urllib3.connection
import urllib3.connectionpool

from .body import HeadersInTime
from .errors import UrlRefused

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


def resolve_public(host: str, port: int) -> list[tuple[Any, ...]]:
    """`getaddrinfo` results of a host, all of them public.

    Raises UrlRefused where even one is not: a name that points inside as well as outside is not to be trusted.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, address in found:
        if not is_public(str(address[0])):
            raise UrlRefused(
                f"The URL's host {host} leads to a private, loopback or link-local address and is not fetched. "
                "If you run that machine yourself, set allow_private_urls in the settings."
            )
    return list(found)


def _connect_public(connection: urllib3.connection.HTTPConnection) -> socket.socket:
    """Open the TCP connection to an address that was checked, the very one and not its name again."""
    # urllib3 keeps the name to look up (a trailing dot included) apart from the name for TLS
    host = connection._dns_host.strip("[]")
    try:
        found = resolve_public(host, connection.port or connection.default_port)
    except (socket.gaierror, UnicodeError) as error:
        raise urllib3.exceptions.NewConnectionError(connection, f"{host} cannot be resolved") from error
    failure: OSError | None = None
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        timeout = connection.timeout
        sock.settimeout(float(timeout) if isinstance(timeout, int | float) else 10.0)
        try:
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise urllib3.exceptions.NewConnectionError(connection, f"{host} cannot be reached") from failure


class _PublicHTTPConnection(HeadersInTime):
    def _new_conn(self) -> socket.socket:
        return _connect_public(self)


class _PublicHTTPSConnection(HeadersInTime, urllib3.connection.HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connect_public(self)


class _PublicHTTPPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _PublicHTTPConnection


class _PublicHTTPSPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _PublicHTTPSConnection


class PublicOnlyAdapter(requests.adapters.HTTPAdapter):
    """A requests adapter that connects to public addresses alone, whatever the name says a moment later."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PublicHTTPPool, "https": _PublicHTTPSPool}
