"""Presigned addresses: anyone who has one may fetch, until it expires."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from urllib.parse import quote


class Signer:
    """Signs paths and judges signatures, with a secret of its own."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(16)

    def sign(self, path: str, seconds: float) -> str:
        """The path, quoted, with the query that opens it for so many seconds."""
        expires = f"{time.time() + seconds:.6f}"
        return f"{quote(path)}?oxen_signature={self._signature(path, expires)}&oxen_expires={expires}"

    def opens(self, path: str, query: Mapping[str, str]) -> bool | None:
        """True for a good signature, False for a bad or expired one, None where there is none."""
        signature, expires = query.get("oxen_signature"), query.get("oxen_expires", "")
        if signature is None:
            return None
        if not hmac.compare_digest(signature.encode(), self._signature(path, expires).encode()):
            return False
        return time.time() < float(expires)

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()[:32]
