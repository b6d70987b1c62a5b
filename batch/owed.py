"""What is left of a batch's limit: less what a run that was killed had paid for, and its report does not tell of."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from .. import host
from ..oxen.errors import OxenError
from ..oxen.jobs.ledger import FILE_NAME
from ..oxen.jobs.record import Record
from ..oxen.jobs.session import open_ledger
from ..oxen.jobs.trouble import in_words
from .row_maker import Spending


def left_to_spend(folder: Path, spending: Spending) -> Decimal | None:
    """US dollars that may be spent from here on; None without a limit. folder: the ledger's.

    What the report tells of, and lies in its place, the ledger learns of on this occasion: a run that was killed just
    before could not note it any more. Raises Misconfigured, LocalTrouble.
    """
    with in_words("The run"), contextlib.closing(open_ledger(folder)) as ledger:
        unfinished = ledger.owed_since(spending.began)
        for record in unfinished:
            if record.generation_id is not None and spending.is_placed(record.generation_id):
                with contextlib.suppress(sqlite3.Error):  # such as a full disk: the next run comes by here, too
                    ledger.collected(record)
        if spending.usd is None:
            return None
        return max(Decimal(0), spending.usd - sum(_untold(unfinished, spending), Decimal(0)))


def settle(spending: Spending) -> None:
    """Have the ledger learn of what is done, where nothing is left to do."""
    with contextlib.suppress(OxenError, host.NoFolder):  # for which a batch that is done does not fail
        folder = host.user_folder(make=False)
        if (folder / FILE_NAME).is_file():
            left_to_spend(folder, spending)


def _untold(records: tuple[Record, ...], spending: Spending) -> Iterator[Decimal]:
    for record in records:
        if record.generation_id is None or not spending.is_told(record.generation_id):
            amount = record.price if record.cost is None else record.cost
            yield amount or Decimal(0)
