"""Past edits as the panel shows them: from the ledger and the album of a folder, together."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..album import notes
from ..album.folder import is_inside, read_inside
from ..oxen.api.models import DEFAULT
from ..oxen.jobs.glance import Glance, glance
from ..oxen.jobs.ledger import DAY_SECONDS
from ..oxen.jobs.record import Record, State
from ..oxen.settings import load_settings
from .public_ids import EditId

logger = logging.getLogger(__name__)
T = TypeVar("T")
# A folder, and the name of a file in it.
_File = tuple[Path, str]

MOST_LISTED = 50_000
_MOST_JOBS = 100
_PROMPT_SHOWN = 200
# How long a run may hold back what came of it: until all of it is there.
_IN_HAND_SECONDS = 3600.0
# What lies between the picture's coming and its being handed over.
_HANDING_SECONDS = 10.0
# One that was fetched on another day did not take a day.
_LONGEST_SECONDS = 3600.0
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class ShownEdit:
    """One edit: its record in the ledger or its note in the album, and where it came from."""

    id: EditId
    record: Record | None
    local: notes.LocalEdit | None
    asked: notes.Origin | None


def listed(home: Path, search: str) -> dict[str, Any]:
    """The ids of all edits that came, newest first."""
    with glance(home) as ledger:
        remote = [] if ledger is None else ledger.finished(search, MOST_LISTED)
    found = [(one.created_at, str(EditId.of_ledger(one.id, one.key))) for one in remote]
    local: list[tuple[int, str, float]] = _of_album(home, lambda album: album.locals(search, MOST_LISTED), [])
    for number, tag, made_at in local:
        found.append((made_at, str(EditId.of_album(number, tag))))
    found.sort(key=lambda one: one[0], reverse=True)
    return {"ids": [id for _, id in found[:MOST_LISTED]], "more": len(found) > MOST_LISTED}


def now(home: Path) -> dict[str, Any]:
    """What was spent, what runs, what is owed, and a stamp that changes with what `listed` gives."""
    limit = load_settings(home).usd_per_day
    with glance(home) as ledger:
        spent = "0" if ledger is None else format(ledger.spent_since(time.time() - DAY_SECONDS), "f")
        stamp = "" if ledger is None else ledger.stamp()
        running, owed = ([], []) if ledger is None else _jobs(ledger)
    keys = [record.key for record in (*running, *owed)]
    asked: dict[str, notes.Origin] = _of_album(home, lambda album: album.asked_all(keys), {}) if keys else {}
    return {
        "spent": spent,
        "limit": None if limit is None else format(limit, "f"),
        "running": [_job(record, asked) for record in running],
        "owed": [_job(record, asked) for record in owed],
        "stamp": f"{stamp}/{_of_album(home, lambda album: album.newest_local(), 0)}",
    }


def find(home: Path, id: EditId) -> ShownEdit | None:
    """An edit by its id; None where there is none."""
    if id.remote:
        with glance(home) as ledger:
            record = None if ledger is None else ledger.by_id(id.number)
        if record is None or EditId.of_ledger(record.id, record.key) != id:
            return None
        key = record.key
        return ShownEdit(id, record, None, _of_album(home, lambda album: album.asked(key), None))
    local = _of_album(home, lambda album: album.local(id.number), None)
    return None if local is None or local.tag != id.tag else ShownEdit(id, None, local, local.asked)


def told(home: Path, found: ShownEdit) -> dict[str, Any]:
    """All that is known of an edit."""
    about = _of_record(found.record) if found.record is not None else _of_local(found.local)
    return {
        "id": str(found.id),
        **about,
        "picture": _is_there(_picture_of(home, found)),
        "before": _is_there(_before_of(home, found)),
        "graph": graph(home, found) is not None,
    }


def picture(home: Path, found: ShownEdit) -> bytes | None:
    """The file bytes of an edit's picture, None where they are not here."""
    return _read(_picture_of(home, found))


def before(home: Path, found: ShownEdit) -> bytes | None:
    """A JPEG of the picture that an edit was made from, None where there is none."""
    return _read(_before_of(home, found))


def graph(home: Path, found: ShownEdit) -> dict[str, Any] | None:
    """The workflow that an edit was made in, None where there is none."""
    digest = None if found.asked is None else found.asked.graph
    return None if digest is None else _of_album(home, lambda album: album.graph(digest), None)


def _picture_of(home: Path, found: ShownEdit) -> _File | None:
    if found.record is not None:
        return home / "results", found.record.file or ""
    return None if found.local is None else (_album(home) / notes.LOCAL, found.local.file)


def _before_of(home: Path, found: ShownEdit) -> _File | None:
    return None if found.asked is None else (_album(home) / notes.BEFORE, found.asked.before or "")


def _read(file: _File | None) -> bytes | None:
    return None if file is None else read_inside(*file, MOST_BYTES)


def _is_there(file: _File | None) -> bool:
    return file is not None and is_inside(*file, MOST_BYTES)


def _jobs(ledger: Glance) -> tuple[list[Record], list[Record]]:
    """Those that some run is working on, and those that nobody waits for."""
    unfinished = ledger.unfinished(_MOST_JOBS)
    running = [one for one in unfinished if one.state is not State.DONE and ledger.is_held(one)]
    rest = [one for one in unfinished if one not in running]
    recent = time.time() - (_IN_HAND_SECONDS if running else _HANDING_SECONDS)
    rest = [one for one in rest if one.state is not State.DONE or (one.finished_at or 0) <= recent]
    return running, rest


def _job(record: Record, asked: dict[str, notes.Origin]) -> dict[str, Any]:
    known = asked.get(record.key)
    return {
        "id": str(EditId.of_ledger(record.id, record.key)),
        "state": record.state.value,
        "prompt": (record.prompt or "")[:_PROMPT_SHOWN],
        "seconds": round(max(0.0, time.time() - record.created_at), 1),
        "picture": record.file is not None,
        "before": known is not None and known.before is not None,
        "cancel": record.state is State.SENT and record.generation_id is not None,
    }


def _of_record(record: Record) -> dict[str, Any]:
    seconds = None if record.finished_at is None else record.finished_at - record.created_at
    known = dict(record.parameters)
    model = known.pop("model", DEFAULT.id if known else None)
    return {
        "place": "remote",
        "state": record.state.value,
        "prompt": record.prompt,
        "seed": None if record.seed is None else str(record.seed),
        "model": model,
        "parameters": {name: value for name, value in known.items() if name not in {"prompt", "seed"}},
        "made_at": record.created_at,
        "seconds": None if seconds is None or not 0 <= seconds < _LONGEST_SECONDS else round(seconds, 1),
        "cost": None if record.cost is None else format(record.cost, "f"),
        "price": None if record.price is None else format(record.price, "f"),
        "generation_id": record.generation_id,
    }


def _of_local(local: notes.LocalEdit | None) -> dict[str, Any]:
    assert local is not None
    return {
        "place": "local",
        "state": State.DONE.value,
        "prompt": local.prompt,
        "seed": local.seed,
        "model": None,
        "parameters": local.parameters,
        "made_at": local.made_at,
        "seconds": None if local.seconds is None else round(local.seconds, 1),
        "cost": None,
        "price": None,
        "generation_id": None,
    }


def _album(home: Path) -> Path:
    return home / "album"


def _of_album(home: Path, ask: Callable[[notes.Notes], T], otherwise: T) -> T:
    """What an album says; `otherwise` where it cannot be read: the edits of the ledger are shown all the same."""
    with contextlib.suppress(OSError):
        try:
            with notes.reading(_album(home)) as album:
                return ask(album)
        except (sqlite3.Error, ValueError) as error:
            logger.debug("The album cannot be read: %s", error)
    return otherwise
