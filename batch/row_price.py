"""What a row costs, as the service publishes it; loads no codec, so that a dry run is quick."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from pathlib import Path

from .. import host
from ..oxen.api.client import Client
from ..oxen.api.models import DEFAULT
from ..oxen.credentials import Account, find_base_url
from ..oxen.errors import Misconfigured, OxenError


def private_folder() -> Path:
    """Where the ledger lives; raises Misconfigured."""
    try:
        return host.user_folder()
    except host.NoFolder as error:
        raise Misconfigured(str(error)) from None


def published_price(client: Client) -> Decimal | None:
    """US dollars a picture; None where the service publishes none, or cannot be asked."""
    try:
        return client.model(DEFAULT.id).cost_per_image
    except OxenError:
        return None


def asked_price() -> Decimal | None:
    """The same without a session. Raises Misconfigured for a base URL that is none."""
    with contextlib.closing(Client(Account(find_base_url(), None))) as client:
        return published_price(client)
