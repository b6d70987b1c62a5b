"""Which names mean this machine: those alone may be spoken to without TLS, and past a proxy."""

from __future__ import annotations

import ipaddress


def is_loopback_name(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
