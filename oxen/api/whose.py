"""Whose key it is, asked once; it costs nothing, and says nothing of credits."""

from __future__ import annotations

from dataclasses import dataclass

from ..credentials import Account
from ..errors import ConnectionFailed, OxenError, Unauthenticated
from .client import Client

_SHOWN = 80


@dataclass(frozen=True)
class KeyCheck:
    """What is known of a key. result: good, refused or unknown. text: that in words."""

    result: str
    text: str


def ask_whose_key(account: Account, seconds: float) -> KeyCheck:
    """Ask the service once whose key the account's is; raises Misconfigured where there is none.

    That the route tells a good key from a bad one is known from others' clients alone, so that only an answer which
    names a user, and the service's own refusal, are believed.
    """
    client = Client(account)
    try:
        name = client.username(within=seconds)
    except Unauthenticated as error:
        if error.definite:
            return KeyCheck("refused", error.message)
        return KeyCheck("unknown", f"{error.message} That may be the word of a proxy in between, and not Oxen.ai's.")
    except ConnectionFailed as error:
        return KeyCheck("unknown", f"{error.message} Whether the key is good is not known.")
    except OxenError as error:
        return KeyCheck("unknown", f"Whether the key is good is not known. {error.message}")
    finally:
        client.close()
    return KeyCheck(
        "good", f"Oxen.ai accepts the key: it is {name[:_SHOWN]}'s. Whether that account has credits was not asked."
    )
