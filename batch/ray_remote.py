"""Rows at Oxen.ai with the work on their pictures spread over a Ray cluster; `paymaster.py` says who does what."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from ..imaging.codec import decode, encode
from ..imaging.pixels import digest
from ..oxen.errors import Interrupted
from .made import PlannedRow, RowFailed, RowResult, RunStopped
from .paymaster import Paymaster, Sendable, key_pipe
from .pictures import picture_in
from .ray_cluster import answered, file_of, joined, value
from .remote_rows import Paid, Payer, RemoteTerms, finished

# Rows whose pictures are worked on while the service has as many as it may.
_AHEAD = 2
# Calls of the paymaster beside its edits: what was delivered, and to stop.
_BESIDE = 8
_TRIES = 3
_CLOSING_SECONDS = 10.0


class RayRemoteRows:
    """Makes rows at the service; a context manager. Raises OxenError, SourceError, RunStopped."""

    def __init__(self, address: str, terms: RemoteTerms) -> None:
        payer = Payer.here()
        self.width = _AHEAD * payer.settings.max_in_flight
        self._measures = terms.measures
        self._is_stopped = False
        with contextlib.ExitStack() as opened:
            self._ray = opened.enter_context(joined(address))
            with key_pipe(payer.account.key) as pipe:
                self._paymaster = self._hired(replace(payer, account=replace(payer.account, key=None)), terms, pipe)
                self.price: Decimal | None = self._got(self._paymaster.opened.remote())
            opened.callback(self._close)
            self._opened = opened.pop_all()
        once_more = {"max_retries": _TRIES, "num_cpus": 1}
        self._prepared = self._ray.remote(**once_more)(prepared)
        self._finished = self._ray.remote(**once_more)(finished_file)

    def __enter__(self) -> RayRemoteRows:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._opened.close()

    def stop(self) -> None:
        """Stop waiting. Jobs go on at the service, where the next run finds them: cancelled, they might be paid for."""
        self._is_stopped = True
        self._paymaster.stop.remote()

    def arrange(self, rows: Iterator[PlannedRow]) -> Iterator[PlannedRow]:
        return rows

    def make(self, row: PlannedRow) -> RowResult:
        """A row's result; raises RowFailed, RunStopped, Interrupted, ImageError, OSError."""
        file = self._ray.put(file_of(row.path))
        paid = self._paymaster.pay.remote(row.values, self._prepared.remote(file))
        made = self._finished.remote(file, paid, row.values, self._measures)
        data, facts, record, cost, is_paid = self._got(made)
        return RowResult(data, facts, cost, is_paid, lambda: self._got(self._paymaster.delivered.remote(record)))

    def _hired(self, payer: Payer, terms: RemoteTerms, pipe: Any) -> Any:
        """The paymaster, on this machine, where the ledger is. Ray neither starts it again nor repeats a call."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": here}
        actor = self._ray.remote(**options, max_concurrency=self.width + _BESIDE)(Paymaster)
        return actor.remote(payer, terms, pipe)

    def _got(self, answer: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return value(self._ray.get(answer))
        except (
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.NodeDiedError,
            errors.ObjectLostError,
        ) as error:
            raise RowFailed(
                f"Each of the {_TRIES + 1} processes that worked on its picture ended before it was done "
                f"({type(error).__name__}). What was paid for it is in the ledger."
            ) from error
        except errors.RayError as error:
            # a task that could not begin, as what it works on came of the paymaster, ends with the actor's error
            if isinstance(error, errors.RayTaskError) and not isinstance(error, errors.RayActorError):
                raise
            if self._is_stopped:
                raise Interrupted("The run was stopped.") from None
            raise RunStopped(
                f"Stopped: Ray's process with the ledger, on this machine, has ended ({type(error).__name__}). What "
                "was sent is in the ledger. The same command goes on where it was, and pays for nothing again."
            ) from error

    def _close(self) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.get(self._paymaster.close.remote(), timeout=_CLOSING_SECONDS)


def prepared(file: bytes) -> Sendable | Exception:
    """Of a picture's file, what is sent."""

    def work() -> Sendable:
        before = decode(file)
        return Sendable(digest(before.rgb), encode(before.rgb))

    return answered(work)


def finished_file(file: bytes, paid: Paid | Exception, values: Mapping[str, Any], measures: bool) -> Any:
    """Of what came, the row's result and all that the driver notes of it."""
    if isinstance(paid, Exception):
        return paid
    came = paid

    def work() -> tuple[Any, ...]:
        data, facts = finished(picture_in(file), came, values, measures=measures)
        return data, facts, came.record, came.cost, came.is_paid

    return answered(work)
