"""Finding a job whose answer was lost, so that it is never paid a second time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from .client import Client
from .errors import UnexpectedReply
from .ledger import Ledger, Record, text_digest
from .replies import Row

logger = logging.getLogger(__name__)

# How far the service's clock may still differ after its replies' dates were taken into account, in seconds.
CLOCK_SKEW = 300.0
# A row may echo its whole picture as a data URI, and a page of them has to stay within what an answer may be.
_PAGE_SIZE = 10
_MAX_PAGES = 100


def find_lost(client: Client, ledger: Ledger, record: Record) -> Row | None:
    """The row of the job that `record` became, from the queue and then the history; None where it became none.

    A row is taken where every parameter that it echoes equals what was sent, the prompt and the seed among them,
    and no other record owns it: of several the one nearest in time, as a blocking request for the same picture may
    have left one that no record names. Where the service does not echo the picture, only a single candidate is taken.
    Raises what the requests raise.
    """
    candidates = [row for row in _rows(client, record) if _same_request(row, record)]
    known = ledger.known_generations([row.generation_id for row in candidates])
    free = {row.generation_id: row for row in candidates if row.generation_id not in known}
    certain = [row for row in free.values() if _same_picture(row, record)]
    if certain:
        return min(certain, key=lambda row: abs(row.enqueued_at - _sent_at(client, record)))
    unsure = [row for row in free.values() if "input_image" not in row.parameters]
    return unsure[0] if len(unsure) == 1 else None


def _rows(client: Client, record: Record) -> Iterator[Row]:
    model = str(record.parameters["model"])
    namespace = record.parameters.get("target_namespace")
    try:
        active = client.active(model=model, namespace=namespace)
    except UnexpectedReply as error:
        # It comes in one piece, which many large pictures make too large; the history has its rows as well, by pages.
        logger.info("The queue cannot be read, so the history alone is searched: %s", error)
        active = ()
    yield from _since(active, _sent_at(client, record) - CLOCK_SKEW)
    for page in range(1, _MAX_PAGES + 1):
        history = client.history(page=page, page_size=_PAGE_SIZE, model=model, namespace=namespace)
        since = _sent_at(client, record) - CLOCK_SKEW
        yield from _since(history.rows, since)
        times = [row.enqueued_at for row in history.rows]
        newest_first = times == sorted(times, reverse=True)
        if page >= history.pages or (newest_first and times and times[-1] < since):
            return


def _sent_at(client: Client, record: Record) -> float:
    """When the request was sent, by the service's clock as far as its last reply told it."""
    return record.created_at + (client.transport.clock_offset or 0.0)


def _since(rows: Iterable[Row], since: float) -> Iterator[Row]:
    return (row for row in rows if row.enqueued_at >= since)


def _same_request(row: Row, record: Record) -> bool:
    sent = record.parameters
    if any(row.parameters.get(name) != sent[name] for name in ("prompt", "seed")):
        return False
    return all(row.parameters[name] == value for name, value in sent.items() if name in row.parameters)


def _same_picture(row: Row, record: Record) -> bool:
    picture = row.parameters.get("input_image")
    return isinstance(picture, str) and text_digest(picture) == record.input_digest
