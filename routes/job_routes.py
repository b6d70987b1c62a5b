"""What the panel *Edits* does with a job at Oxen.ai. Neither costs anything.

POST  edits/ID/cancel    {}: cancels it there; a run that waits for it ends. {"cancelled": true, "text"}
POST  edits/ID/collect   {}: fetches its picture, waiting for it a little; from then on it is in the grid
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from aiohttp import web

from .. import host
from ..oxen.control import Control
from ..oxen.credentials import find_account
from ..oxen.errors import Interrupted, TimedOut
from ..oxen.jobs.record import Record, State
from ..oxen.jobs.session import Session
from ..oxen.jobs.trouble import in_words
from ..oxen.settings import load_settings
from .answers import answering
from .bodies import read_object
from .edit_routes import of_edit
from .guard import Refused, check_writer

_CANCEL_SECONDS = 20.0
_COLLECT_SECONDS = 30.0
# Waiting for a picture, and then fetching it.
_FETCH_SECONDS = 120.0
_at_once = threading.BoundedSemaphore(4)
_STILL = "It is still being made at Oxen.ai. Collect it again in a while; collecting costs nothing."
_NO_ANSWER = "Oxen.ai did not answer in time. Nothing was paid; try again."


def add_to(table: web.RouteTableDef, prefix: str) -> None:
    table.post(f"{prefix}edits/{{edit}}/cancel")(answering(cancel))
    table.post(f"{prefix}edits/{{edit}}/collect")(answering(collect))


async def cancel(request: web.Request) -> dict[str, Any]:
    record = await _asked_for(request)
    id = record.generation_id
    if id is None or record.state is not State.SENT:
        raise Refused(409, "It is not under way at Oxen.ai, or its number there is not known yet. Nothing was changed.")

    def work() -> dict[str, Any]:
        from ..oxen.jobs.afterwards import cancelled

        with _session(_CANCEL_SECONDS) as session:
            text = cancelled(session, id)
        return {"cancelled": text == "cancelled", "text": text}

    return await _on_a_thread(work)


async def collect(request: web.Request) -> dict[str, Any]:
    record = await _asked_for(request)

    def work() -> dict[str, Any]:
        with _session(_FETCH_SECONDS) as session:
            _collected(session, record)
        return {"text": "collected"}

    return await _on_a_thread(work)


def _collected(session: Session, record: Record) -> None:
    from ..imaging.codec import decode
    from ..oxen.jobs.afterwards import as_collected
    from ..oxen.jobs.batch import Batch
    from ..oxen.jobs.order import Terms

    batch = Batch(session, decode, Terms(seconds=_COLLECT_SECONDS))
    (outcome,) = (as_collected(one) for one in batch.collect([session.ledger.current(record)]))
    if isinstance(outcome.error, TimedOut):
        raise Refused(409, _STILL)
    if outcome.error is not None:
        raise outcome.error
    # the artist has it: it is in the grid from here on, and its file may be pruned in its time
    batch.handed_over([outcome])


async def _asked_for(request: web.Request) -> Record:
    """The ledger's record of the edit that a request names."""
    check_writer(request)
    await read_object(request, frozenset())
    record = await of_edit(request, lambda _, found: found.record)
    if record is None:
        raise Refused(409, "It was made on this machine, not at Oxen.ai.")
    return record


@contextmanager
def _session(seconds: float) -> Iterator[Session]:
    """This machine's session, in which nothing waits any longer after so many seconds."""
    control = Control()
    ends = threading.Timer(seconds, control.detach)
    ends.daemon = True
    ends.start()
    home = host.user_folder()
    try:
        account, settings = find_account(home), load_settings(home)
        with in_words("It"), Session(account, home, settings, control, prunes=False) as session:
            yield session
    except Interrupted:
        raise Refused(504, _NO_ANSWER) from None
    finally:
        ends.cancel()


async def _on_a_thread(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What work gives that may wait long, done on a daemon thread of its own; a few at once."""
    if not _at_once.acquire(blocking=False):
        raise Refused(429, "Several jobs are being cancelled or collected already. Try again in a moment.")
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[dict[str, Any]] = loop.create_future()

    def settle(value: dict[str, Any] | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(value or {})

    def call() -> None:
        value: dict[str, Any] | None = None
        failed: BaseException | None = None
        try:
            value = work()
        except BaseException as error:  # handed to whoever waits for it
            failed = error
        finally:
            _at_once.release()
        with suppress(RuntimeError):  # the server is gone
            loop.call_soon_threadsafe(settle, value, failed)

    try:
        threading.Thread(target=call, name="kontext-bridge panel", daemon=True).start()
    except RuntimeError:
        _at_once.release()
        raise Refused(503, "The system starts no further thread. Restart ComfyUI.") from None
    return await outcome
