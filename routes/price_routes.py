"""The price that stands on a node before Run.

GET  prices   {"usd": {"flux-kontext-dev": "0.04"}}: what the service publishes; without an answer of it, nothing
"""

from __future__ import annotations

import logging
import threading
import time
from decimal import Decimal
from typing import Any

from aiohttp import web

from ..oxen.api.client import Client
from ..oxen.api.models import DEFAULT, bundled
from ..oxen.credentials import Account, find_base_url
from ..oxen.errors import OxenError
from .answers import answering, beside

logger = logging.getLogger(__name__)

_FRESH_SECONDS = 3600.0
_FAILED_SECONDS = 60.0
_WITHIN_SECONDS = 5.0

_guard = threading.Lock()
_known: dict[str, tuple[Decimal | None, float]] = {}


def add_to(table: web.RouteTableDef, prefix: str) -> None:
    table.get(f"{prefix}prices")(answering(show))


async def show(_: web.Request) -> dict[str, Any]:
    """Prices are public, and asking for them needs no key: whoever asks costs the service one question an hour."""
    price = await beside(_price)
    return {"usd": {} if price is None else {DEFAULT.id: str(price)}, "listed": await beside(_listed)}


def _listed() -> dict[str, Any]:
    """The prices of all models as they were published when this version was made, where they were."""
    found: dict[str, Any] = {}
    for id, spec in bundled().items():
        flat, grid = spec.price.flat, spec.price.grid
        if grid:
            found[id] = {"grid": {row: {one: str(usd) for one, usd in of.items()} for row, of in grid.items()}}
        elif flat is not None:
            found[id] = {"flat": str(flat)}
    return found


def _price() -> Decimal | None:
    with _guard:
        base_url = find_base_url()
        price, until = _known.get(base_url, (None, 0.0))
        if time.monotonic() >= until:
            price = _published(base_url)
            _known[base_url] = price, time.monotonic() + (_FAILED_SECONDS if price is None else _FRESH_SECONDS)
        return price


def _published(base_url: str) -> Decimal | None:
    client = Client(Account(base_url, None))
    stop = threading.Timer(_WITHIN_SECONDS, client.control.detach)
    stop.daemon = True
    stop.start()
    try:
        return client.model().cost_per_image
    except OxenError as error:
        logger.debug("No price: %s", error)
        return None
    finally:
        stop.cancel()
        client.close()
