"""Rows at Oxen.ai: each an edit of the ledger's, so that none is lost and none is paid twice."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from ..imaging.codec import DecodedImage, decode, encode
from ..imaging.pixels import digest
from ..imaging.uri import to_data_uri
from ..oxen.api.uploads import upload
from ..oxen.choices import SendAs, WaitMode
from ..oxen.control import Control
from ..oxen.credentials import find_account
from ..oxen.errors import (
    GenerationCancelled,
    GenerationFailed,
    Interrupted,
    OxenError,
    SpendLimitReached,
)
from ..oxen.jobs.batch import HOPELESS, Batch
from ..oxen.jobs.given_up import Decision
from ..oxen.jobs.order import Edit, How, Outcome, Terms
from ..oxen.jobs.session import Session
from ..oxen.jobs.spend import spent_by
from ..oxen.jobs.waiting import ONCE_MORE
from ..oxen.settings import load_settings
from .columns import keeps, parameters_of
from .made import LimitReached, PlannedRow, RowFailed, RowResult, RunStopped
from .pictures import (
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


class RemoteRows:
    """Makes rows at the service; a context manager, whose parts are shared by all of them. Raises OxenError."""

    def __init__(self, terms: RemoteTerms, control: Control | None = None) -> None:
        folder = private_folder()
        settings = load_settings(folder)
        self.control = control or Control()
        self._session = Session(find_account(folder), folder, settings, self.control)
        self._terms = terms
        self._since = time.time()
        ledger = self._session.ledger
        # what a run that was killed had paid for, and its report does not tell of
        self._left = None if terms.usd is None else max(Decimal(0), terms.usd - ledger.owed_since(terms.began))
        self._run_id = terms.run_id or uuid.uuid4().hex
        # counted on from what other nodes of the run have spent
        own = None if self._left is None else spent_by(self._run_id) + self._left
        limits = [one for one in (settings.usd_per_run, own) if one is not None]
        self._session.settings = replace(settings, usd_per_run=min(limits) if limits else None)
        self._is_own_limit = own is not None and own == min(limits)
        self._hopeless: list[OxenError] = []
        self._decision = Decision(ledger.undecided_keys())
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
        before, notes = read_picture(row.path)
        edit = Edit(parameters_of(row.values), digest(before.rgb), lambda: self._sent_as(before))
        outcome, batch = self._edited(edit)
        picture, record = outcome.picture, outcome.record
        assert picture is not None and record is not None
        output_format = str(edit.parameters["output_format"])
        facts: dict[str, Any] = {
            "generation_id": record.generation_id,
            "seed": record.parameters.get("seed"),
            "how": None if outcome.how is None else outcome.how.value,
            "size_before": size_of(before),
            "size": size_of(picture),
            "health": health(before, picture) or None,
        }
        quality = int(edit.parameters["output_quality"])
        if keeps(row.values):
            image, told = laid_back(before, tensor_of(picture))
            facts |= {"size": f"{image.shape[2]}x{image.shape[1]}", **facts_of_keep(told)}
            data = noted(as_file(image[0], output_format, quality), notes, image, told)
        else:
            facts |= facts_of_keep(measured(before, tensor_of(picture))) if self._terms.measures else {}
            kept = self._session.ledger.picture(record) if is_as_asked(picture, output_format) else None
            data = noted(kept or as_file(tensor_of(picture)[0], output_format, quality), notes, picture)
        cost = record.cost if record.cost is not None else record.price if record.price is not None else self.price
        is_owed = record.collected_at is None and self._terms.began <= record.created_at < self._since
        is_paid = outcome.how in (How.NEW, How.FOUND) or is_owed
        return RowResult(data, facts, cost, is_paid, lambda: batch.handed_over([outcome]))

    def _edited(self, edit: Edit) -> tuple[Outcome[DecodedImage], Batch[DecodedImage]]:
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
            return outcome, batch
        if isinstance(failed, SpendLimitReached):
            raise self._stopped_by(failed)
        if isinstance(failed, HOPELESS):
            raise RunStopped(str(failed))
        if isinstance(failed, Interrupted):
            raise failed
        is_over = isinstance(failed, GenerationFailed | GenerationCancelled)
        # in a batch that is --retry-failed's, or the node's retry_failed's
        said = str(failed).replace(f" {ONCE_MORE}", "")
        raise RowFailed(said, is_over=is_over, facts={"generation_id": failed.generation_id})

    def _stopped_by(self, error: SpendLimitReached) -> RunStopped:
        if not self._is_own_limit or "usd_per_run)" not in error.message:
            return RunStopped(str(error))
        return LimitReached(
            "Stopped before passing --usd. Nothing was sent for the rows that are left: the same command with a higher "
            "--usd goes on with them."
        )

    def _sent_as(self, before: DecodedImage) -> str:
        encoded = encode(before.rgb)
        if self._terms.send_as is not SendAs.UPLOAD:
            return to_data_uri(encoded)
        session = self._session
        return upload(session.client, encoded.data, encoded.media_type, session.settings.upload_repository)
