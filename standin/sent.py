"""Fetching pictures and masks: data URIs, this server's own files, and servers on loopback. Nothing else."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import aiohttp

MAX_BYTES = 64_000_000
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Sources:
    """The files of a request: its pictures in order, and its mask where it has one."""

    pictures: tuple[bytes, ...]
    mask: bytes | None = None


class BadInput(Exception):
    """`input_image` could not be had; the text is what the service's worker would report."""


def client_error(status: int, url: str) -> BadInput:
    """The wording of python-requests, in which the service reports a failed download."""
    side = "Client" if status < 500 else "Server"
    return BadInput(f"{status} {side} Error: {HTTPStatus(status).phrase} for url: {url}")


async def fetch_all(pictures: Sequence[Any], mask: Any, own_file: Callable[[str], bytes | None]) -> Sources:
    """The files behind what a request holds; own_file as for `fetch`. Raises BadInput."""
    files = [await fetch(one, own_file) for one in pictures]
    return Sources(tuple(files), None if mask is None else await fetch(mask, own_file))


async def fetch(value: Any, own_file: Callable[[str], bytes | None]) -> bytes:
    """The picture's bytes. own_file answers for addresses of this server. Raises BadInput."""
    if not isinstance(value, str):
        raise client_error(403, str(value)[:200])
    if value.startswith("data:"):
        return _from_data_uri(value)
    own = own_file(value)
    return own if own is not None else await _download(value)


def _from_data_uri(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise BadInput("Invalid data URI in input_image: expected data:image/...;base64,...")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as e:
        raise BadInput(f"Invalid data URI in input_image: {e}") from e


async def _download(url: str) -> bytes:
    if not _is_loopback(url):
        raise client_error(403, url)
    try:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, allow_redirects=False) as reply:
            if reply.status != 200:
                raise client_error(403 if reply.status < 400 else reply.status, url)
            body = bytearray()
            async for piece in reply.content.iter_any():
                body += piece
                if len(body) > MAX_BYTES:
                    raise BadInput(f"input_image is larger than {MAX_BYTES} bytes: {url}")
            return bytes(body)
    except (aiohttp.ClientError, asyncio.TimeoutError) as e:
        raise BadInput(f"Connection error: {type(e).__name__} for url: {url}") from e


def _is_loopback(url: str) -> bool:
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return False
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False
