"""What is remembered of one request, and by what a request is known again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from ..api.prices import read_amount
from ..api.request import EditParameters
from ..http.large import in_turn, pieces


class State(str, Enum):
    """How far a request came.

    SENDING is written before the request: without a live holder of the key's lock its outcome is unknown.
    REFUSED means that the service did not take it, so that nothing was billed; GONE that neither this machine nor
    the service has its picture any more.
    """

    SENDING = "sending"
    SENT = "sent"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    GONE = "gone"


@dataclass(frozen=True)
class Record:
    """One request. Times are unix seconds, `price` (published, at the time) and `cost` (told afterwards) US dollars.

    input_digest: `sent_digest` of the pictures as sent, by which a lost job is recognised.
    blocking: sent as one blocking request, which the service may not list, so that not listed does not mean not billed.
    collected_at: when its picture was handed to a graph; None while it is still owed.
    file, bytes: its picture's file in the folder of results, and the size; only the size where the file was pruned,
    and neither where no picture came or none could be kept.
    clock_offset: seconds that the service's clock was ahead of this machine's when the request was opened; None where
    it was not known.
    opened, taken: places in the order of what this ledger wrote: when the request was opened, and when its generation
    id was noted. A job whose id was noted before another was opened is the older one, whatever the clocks say.
    departed: whether its last block may have left this machine; until then the service cannot have taken it.
    left_at: when that block left; a large request over a slow line is opened minutes before. None where it has not, or
    an earlier version did not note it.
    given_up_at: when its run no longer waited for the answer: what a line that is down holds up gets to the service
    until then. None where it still waits, or was killed.
    sent_by: the `mark` of the account that it was sent by; None where an earlier version did not note it.
    prompt, seed: None for a model that takes none.
    told: whether the artist has been told that it may have been paid for, and how to pay for another; no longer
    once its picture was handed over.
    """

    id: int
    key: str
    state: State
    generation_id: str | None
    result_url: str | None
    prompt: str | None
    seed: int | None
    parameters: dict[str, Any]
    input_digest: str
    blocking: bool
    created_at: float
    finished_at: float | None
    collected_at: float | None
    price: Decimal | None
    cost: Decimal | None
    error: str | None
    file: str | None
    bytes: int | None
    clock_offset: float | None
    opened: int | None
    taken: int | None
    departed: bool
    left_at: float | None
    given_up_at: float | None
    sent_by: str | None
    told: bool

    @property
    def sent_at(self) -> float:
        """When the service got it at the earliest, as far as that is known, by this machine's clock."""
        return self.created_at if self.left_at is None else self.left_at

    @property
    def suffix(self) -> str:
        """Of the names of its picture's files, for example "png"."""
        return str(self.parameters.get("output_format", "image"))

    @property
    def is_retired(self) -> bool:
        """Whether only its number is left, so that no other request gets it."""
        return not self.key


# How the ledger writes what a model does not take; its first version knew only models that take both.
NO_PROMPT = ""
NO_SEED = -1
COLUMNS = tuple(field.name for field in fields(Record))


def read_record(row: tuple[Any, ...]) -> Record:
    """A record from its columns, in the order of `COLUMNS`; raises sqlite3.DatabaseError for what is none."""
    values = dict(zip(COLUMNS, row, strict=True))
    try:
        values["state"] = State(values["state"])
        values["parameters"] = dict(json.loads(values["parameters"]))
        for name in ("seed", "created_at"):
            values[name] + 0
        values["prompt"] = None if values["prompt"] == NO_PROMPT else values["prompt"]
        values["seed"] = None if values["seed"] == NO_SEED else values["seed"]
    except (TypeError, ValueError) as error:
        raise sqlite3.DatabaseError(f"the row of edit {values['id']} cannot be read: {error}") from None
    for name in ("blocking", "departed", "told"):
        values[name] = bool(values[name])
    for name in ("price", "cost"):
        values[name] = read_amount(values[name])
    return Record(**values)


def request_key(base_url: str, parameters: EditParameters, pixels: str) -> str:
    """SHA-256 over provider, model, canonical parameters and decoded pixels: equal for what must not be paid twice.

    pixels: a digest of the picture's decoded pixels, so that another file format of the same picture is the same.
    """
    whole = {"provider": urlsplit(base_url).netloc, "pixels": pixels, **parameters.identity()}
    return hashlib.sha256(json.dumps(whole, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def text_digest(text: str) -> str:
    digest = hashlib.sha256()
    with in_turn(len(text)):
        for piece in pieces(text):
            digest.update(piece.encode())
    return digest.hexdigest()


def sent_digest(pictures: Iterable[str]) -> str:
    """SHA-256 of each picture's text as sent, a mask's last, joined by commas."""
    return ",".join(map(text_digest, pictures))
