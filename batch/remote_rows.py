"""Rows at Oxen.ai: each an edit of the ledger's, so that none is lost and none is paid twice."""

from __future__ import annotations

import itertools
import logging
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..imaging.codec import DecodedImage, EncodedImage, decode, encode
from ..imaging.pixels import digest
from ..imaging.uri import to_data_uri
from ..oxen.api.uploads import upload
from ..oxen.choices import SendAs, WaitMode
from ..oxen.control import Control
from ..oxen.credentials import Account, find_account
from ..oxen.errors import Interrupted, OxenError, SpendLimitReached
from ..oxen.jobs.batch import HOPELESS, Batch
from ..oxen.jobs.given_up import Decision
from ..oxen.jobs.order import Edit, How, Outcome, Terms
from ..oxen.jobs.record import Record
from ..oxen.jobs.session import Session
from ..oxen.jobs.spend import spent_by
from ..oxen.jobs.trouble import in_words
from ..oxen.jobs.waiting import ONCE_MORE, may_be_billed
from ..oxen.settings import Settings, load_settings
from .columns import keeps, parameters_of
from .made import LimitReached, PlannedRow, RowFailed, RowResult, RunStopped
from .pictures import (
    RowPicture,
    as_file,
    facts_of_keep,
    health,
    is_as_asked,
    laid_back,
    measured,
    noted,
    read_picture,
    size_of,
    tensor_of,
)
from .row_price import private_folder, published_price

logger = logging.getLogger(__name__)

# Rows after which old results are removed from the ledger's folder: at the end of 100,000 the disk would be full.
_TIDIED_EVERY = 250


@dataclass(frozen=True)
class RemoteTerms:
    """How the rows are made. usd: what may be spent from here on, None for no limit but the settings'. measures:
    whether every edit is measured as Keep does. for_lost: rows that may have been paid for and cannot be had are paid
    for anew. began: when the batch began, in unix seconds: what was paid since is its own. run_id: names the run of the
    whole graph, whose limit holds for all its nodes together."""

    seconds: float = 300.0
    wait: WaitMode = WaitMode.EVENTS
    send_as: SendAs = SendAs.AUTO
    usd: Decimal | None = None
    measures: bool = False
    for_lost: bool = False
    began: float = 0.0
    run_id: str | None = None


@dataclass(frozen=True)
class Payer:
    """Who pays, and where it is written down. folder: the ledger's."""

    account: Account
    folder: Path
    settings: Settings

    @classmethod
    def here(cls) -> Payer:
        """As the nodes find it on this machine; raises Misconfigured."""
        folder = private_folder()
        return cls(find_account(folder), folder, load_settings(folder))


@dataclass(frozen=True)
class Paid:
    """A row's edit as it came. data: its file's bytes, where they are at hand. cost, is_paid: as in RowResult."""

    record: Record
    how: How | None
    picture: DecodedImage
    data: bytes | None
    cost: Decimal | None
    is_paid: bool


class RemoteRows:
    """Makes rows at the service; a context manager, whose parts are shared by all of them. Raises OxenError."""

    def __init__(self, terms: RemoteTerms, payer: Payer | None = None, control: Control | None = None) -> None:
        payer = payer or Payer.here()
        settings = payer.settings
        self.control = control or Control()
        self._session = Session(payer.account, payer.folder, settings, self.control)
        self._terms = terms
        self._since = time.time()
        ledger = self._session.ledger
        with in_words("The run"):
            undecided = ledger.undecided_keys()
        self._run_id = terms.run_id or uuid.uuid4().hex
        # counted on from what other nodes of the run have spent
        own = None if terms.usd is None else spent_by(self._run_id) + terms.usd
        limits = [one for one in (settings.usd_per_run, own) if one is not None]
        self._session.settings = replace(settings, usd_per_run=min(limits) if limits else None)
        self._is_own_limit = own is not None and own == min(limits)
        self._hopeless: list[OxenError] = []
        self._delivered = itertools.count(1)
        self._decision = Decision(undecided)
        self.price = published_price(self._session.client)

    @property
    def width(self) -> int:
        return self._session.settings.max_in_flight

    def __enter__(self) -> RemoteRows:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._session.__exit__(*raised)

    def stop(self) -> None:
        """Stop waiting. Jobs go on at the service, where the next run finds them: cancelled, they might be paid for."""
        self.control.detach()

    def arrange(self, rows: Iterator[PlannedRow]) -> Iterator[PlannedRow]:
        return rows

    def make(self, row: PlannedRow) -> RowResult:
        """A row's result; raises RowFailed, RunStopped, Interrupted, ImageError, OSError."""
        before = read_picture(row.path)
        pixels = before.picture.rgb
        edit = Edit(parameters_of(row.values), digest(pixels), lambda: self.sent_as(encode(pixels)))
        paid = self.pay(edit)
        data, facts = finished(before, paid, row.values, measures=self._terms.measures)
        return RowResult(data, facts, paid.cost, paid.is_paid, lambda: self.delivered(paid.record))

    def pay(self, edit: Edit) -> Paid:
        """An edit, made or brought from the ledger; raises as `make`."""
        outcome = self._edited(edit)
        picture, record = outcome.picture, outcome.record
        assert picture is not None and record is not None
        data = None
        if is_as_asked(picture, str(edit.parameters["output_format"])):
            data = self._session.ledger.picture(record)
        cost = record.cost if record.cost is not None else record.price if record.price is not None else self.price
        is_owed = record.collected_at is None and self._terms.began <= record.created_at < self._since
        is_paid = outcome.how in (How.NEW, How.FOUND) or is_owed
        return Paid(record, outcome.how, picture, data, cost, is_paid)

    def delivered(self, record: Record) -> None:
        """A row's result is in its place: its picture may leave the ledger's folder some day."""
        try:
            self._session.ledger.collected(record)
        except sqlite3.Error as error:  # such as a full disk, which must not cost the result
            logger.warning("The ledger could not be written: %s", error)
        if next(self._delivered) % _TIDIED_EVERY == 0:
            self._session.prune()

    def sent_as(self, encoded: EncodedImage) -> str:
        """What a request names its picture by: the picture itself, or where it was uploaded to."""
        if self._terms.send_as is not SendAs.UPLOAD:
            return to_data_uri(encoded)
        session = self._session
        return upload(session.client, encoded.data, encoded.media_type, session.settings.upload_repository)

    def _edited(self, edit: Edit) -> Outcome[DecodedImage]:
        terms = Terms(self._terms.wait, not self._terms.for_lost, self._terms.seconds)
        batch = Batch(
            self._session,
            decode,
            terms,
            self._run_id,
            self._hopeless,
            for_lost=self._terms.for_lost,
            decision=self._decision,
        )
        try:
            (outcome,) = batch.edit([edit])
        except SpendLimitReached as error:
            raise self._stopped_by(error) from error
        except HOPELESS as error:
            raise RunStopped(str(error)) from error
        failed = outcome.error
        if failed is None:
            return outcome
        if isinstance(failed, SpendLimitReached):
            raise self._stopped_by(failed)
        if isinstance(failed, HOPELESS):
            raise RunStopped(str(failed))
        if isinstance(failed, Interrupted):
            raise failed
        # in a batch that is --retry-failed's, or the node's retry_failed's
        said = str(failed).replace(f" {ONCE_MORE}", "")
        facts = {"generation_id": failed.generation_id}
        raise RowFailed(said, is_over=may_be_billed(failed), facts=facts, price=self.price)

    def _stopped_by(self, error: SpendLimitReached) -> RunStopped:
        if not self._is_own_limit or "usd_per_run)" not in error.message:
            return RunStopped(str(error))
        return LimitReached()


def finished(
    given: RowPicture, paid: Paid, values: Mapping[str, Any], *, measures: bool
) -> tuple[bytes, dict[str, Any]]:
    """The file of a row's result, and what the report says of it. given: the row's picture. values: the row's.

    measures: as in RemoteTerms. Raises ImageError.
    """
    before, picture, edited = given.picture, paid.picture, tensor_of(paid.picture)
    parameters = parameters_of(values)
    output_format, quality = str(parameters["output_format"]), int(parameters["output_quality"])
    facts: dict[str, Any] = {
        "generation_id": paid.record.generation_id,
        "seed": paid.record.parameters.get("seed"),
        "how": None if paid.how is None else paid.how.value,
        "size_before": size_of(before),
        "size": size_of(picture),
        "health": health(before, picture) or None,
    }
    if keeps(values):
        image, told = laid_back(before, edited)
        facts |= {"size": f"{image.shape[2]}x{image.shape[1]}", **facts_of_keep(told)}
        return noted(as_file(image[0], output_format, quality), given.notes, image, told), facts
    facts |= facts_of_keep(measured(before, edited)) if measures else {}
    data = as_file(edited[0], output_format, quality) if paid.data is None else paid.data
    return noted(data, given.notes, picture), facts
