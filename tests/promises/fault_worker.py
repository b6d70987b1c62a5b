"""One run of an edit or two in a process that may be killed, forked from one that has imported the client already.

The child writes what came of the run as JSON; all that it logs, down to DEBUG, goes into the job's log file.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import json
import logging
import os
import resource
import signal
import struct
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from forking import serve
from kontext_bridge.oxen.api import client
from kontext_bridge.oxen.api.models import ModelSpec, bundled
from kontext_bridge.oxen.api.models.shape import AS_PICTURE
from kontext_bridge.oxen.api.request import Beside, EditParameters
from kontext_bridge.oxen.api.uploads import upload
from kontext_bridge.oxen.choices import WaitMode
from kontext_bridge.oxen.control import Control
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.errors import Interrupted, OxenError
from kontext_bridge.oxen.http import fetch, transport
from kontext_bridge.oxen.jobs import batch, doubt, waiting
from kontext_bridge.oxen.jobs.batch import Batch
from kontext_bridge.oxen.jobs.order import Edit, Outcome, Terms
from kontext_bridge.oxen.jobs.session import Session
from kontext_bridge.oxen.settings import Settings

MAX_SIDE = 4096
SETTLE_SECONDS = 1.6  # well above the seconds by which the stand-in's lists lag: a busy machine takes a request late


HOST_GRACE = 1.0  # how long the host waits for work that was cancelled
LONGEST_STOP = 5.0


def png(width: int, height: int, shade: int = 0x80) -> bytes:
    """A whole PNG in one shade of grey."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + bytes([shade]) * width for _ in range(height))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def whole_png(data: bytes) -> str:
    """The SHA-256 of a PNG that is whole and of modest size; raises ValueError for any other bytes."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("The bytes are no PNG.")
    at, kind = 8, b""
    while kind != b"IEND":
        if len(data) < at + 12:
            raise ValueError("The PNG ends early.")
        (length,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        if data[at + 8 + length : at + 12 + length] != struct.pack(">I", zlib.crc32(kind + body)):
            raise ValueError("The PNG is damaged.")
        if kind == b"IHDR" and max(struct.unpack_from(">II", body)) > MAX_SIDE:
            raise ValueError("The PNG is too large.")
        at += 12 + length
    return hashlib.sha256(data).hexdigest()


def shorten_patience() -> None:
    """The client's own waits a tenth as long, so that hundreds of silent services fit into a minute or two."""
    sleep = Control.sleep
    Control.sleep = lambda self, seconds: sleep(self, seconds * 0.1)  # type: ignore[method-assign]
    for module, values in {
        batch: {"_SUBSCRIBE_SECONDS": 0.4},
        client: {"_ENQUEUE_SECONDS": 0.7, "_IMPATIENT_SECONDS": 0.6},
        fetch: {"READ_SECONDS": 0.5},
        waiting: {"FIRST_PAUSE": 0.03, "LONGEST_PAUSE": 0.15, "_OUTAGE_SECONDS": 0.8, "_LOOK_SECONDS": 0.6},
    }.items():
        for name, value in values.items():
            assert hasattr(module, name), name
            setattr(module, name, value)
    assert transport.Transport.send.__kwdefaults__ is not None
    transport.Transport.send.__kwdefaults__["seconds"] = 0.6
    fetch.FetchLimits.__init__.__defaults__ = (fetch.MAX_BYTES, 1.0)


def set_everywhere(**values: float) -> None:
    """Set constants of the client in whichever of its modules they are; each has to be in one."""
    ours = [module for at, module in sys.modules.items() if at.startswith("kontext_bridge.oxen.")]
    for name, value in values.items():
        having = [module for module in ours if hasattr(module, name)]
        assert having, name
        for module in having:
            setattr(module, name, value)


def shift_clock(seconds: float) -> None:
    """Set this process's clock ahead, as every module sees it."""
    now = time.time
    time.time = lambda: now() + seconds


def fill_disk(room: int, mark: Path) -> None:
    """From now on no file of this process may grow beyond so many bytes, nor be written beyond them.

    It stands for a full disk, needs no rights and leaves nothing behind; Python ignores the signal that comes with it.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    mark.touch()


def empty_disk() -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def give_up_rights() -> None:
    """Let folders that this user may not write be closed to root as well, as they are to everybody else."""
    if os.geteuid() == 0 and sys.platform == "linux":
        words = (ctypes.c_uint32 * 6)()
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.capget(header, words) == 0:
            words[0] &= ~0b1111  # chown, and the three that pass by a file's permissions
            libc.capset(header, words)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Do the edits, and tell what came of them, in memory and in time."""
    control = Control()
    stopped: list[float] = []

    def stop(*_: object) -> None:
        stopped.append(time.monotonic())
        control.interrupt()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGUSR1, lambda *_: fill_disk(0, Path(job["full"])))
    if job["rightless"]:
        give_up_rights()
    if job["clock"]:
        shift_clock(job["clock"])
    if job["short"]:
        shorten_patience()
    if job["room"] is not None:
        fill_disk(job["room"], Path(job["full"]))
    peak, since = _peak(), time.monotonic()
    first = _Aside(lambda: _outcomes(job, "edits", control))
    try:
        # a signal is heard while the main thread waits, however long it waits
        while not first.ended(0.02 if job["then"] else 60.0):
            if job["then"] and stopped and time.monotonic() - stopped[0] > HOST_GRACE:
                break
        report: dict[str, Any] = {}
        if job["then"]:
            (outcome,) = _outcomes(job, "then", Control())
            report["then"] = {**_told(outcome), "seconds": time.monotonic() - (stopped or [since])[0]}
            report["lingers"] = not first.ended(LONGEST_STOP)
        report["outcomes"] = [_told(outcome) for outcome in first.outcomes(len(job["edits"]))]
        report["mib"] = (_peak() - peak) / 2**20
        if stopped:
            report["stopping"] = first.until - stopped[0]
    except BaseException:
        return {"crash": traceback.format_exc()}
    return report


class _Aside:
    """Work on a thread of its own, as the host runs it: signals are heard at once, what is stopped is left behind."""

    def __init__(self, work: Callable[[], list[Outcome[str]]]) -> None:
        self._work = work
        self._outcomes: list[Outcome[str]] | None = None
        self._failed: BaseException | None = None
        self.until = float("inf")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcomes = self._work()
        except BaseException as error:  # raised again by whoever asks for the outcomes
            self._failed = error
        self.until = time.monotonic()

    def ended(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def outcomes(self, count: int) -> list[Outcome[str]]:
        if self._failed is not None:
            raise self._failed
        return self._outcomes or [Outcome(error=Interrupted("It was stopped, and left behind."))] * count


def _told(outcome: Outcome[str]) -> dict[str, Any]:
    if outcome.error is not None:
        return {"error": type(outcome.error).__name__, "text": str(outcome.error)}
    return {"picture": outcome.picture, "how": outcome.how and outcome.how.value}


def _outcomes(job: dict[str, Any], which: str, control: Control) -> list[Outcome[str]]:
    """What came of some edits; the same error for all where the run raised one."""
    wanted, limit = job[which], job["limits"].get(which)
    settings = Settings(usd_per_day=limit and Decimal(limit), max_in_flight=job["max_in_flight"])
    try:
        with Session(Account(job["url"], job["key"]), Path(job["folder"]), settings, control) as session:
            return _edit(session, job, wanted)
    except OxenError as error:
        return [Outcome(error=error)] * len(wanted)


def _one(session: Session, job: dict[str, Any], wanted: dict[str, Any]) -> Edit:
    source = png(8, 8, wanted["shade"])

    def input_image() -> str:
        if job["upload"]:
            return upload(session.client, source, "image/png", None)
        return "data:image/png;base64," + base64.b64encode(source).decode()

    model = bundled()[job["model"]]
    given = {name: wanted[name] for name in ("prompt", "seed") if name in model.named}
    if model.shape is not None:
        given |= model.shape.fit(AS_PICTURE, 8, 8).values
    beside = partial(_beside, model)
    return Edit(EditParameters(model, **given), hashlib.sha256(source).hexdigest(), input_image, beside)


def _beside(model: ModelSpec) -> Beside:
    """Another picture and a mask that marks everything, where the model takes them."""
    other, white = ("data:image/png;base64," + base64.b64encode(png(8, 8, shade)).decode() for shade in (0x20, 0xFF))
    return Beside((other,) if model.pictures.most > 1 else (), None if model.mask is None else white)


def _edit(session: Session, job: dict[str, Any], wanted: list[dict[str, Any]]) -> list[Outcome[str]]:
    edits = [_one(session, job, one) for one in wanted]
    submit = job["mode"] == "submit"
    wait = WaitMode.EVENTS if submit else WaitMode[job["mode"].upper()]
    terms = Terms(wait=wait, reuse=not job["anew"], seconds=job["seconds"], submit_only=submit)
    batch = Batch(session, whole_png, terms)
    outcomes = list(batch.edit(edits))
    if submit:
        records = [outcome.record for outcome in outcomes if outcome.error is None and outcome.record is not None]
        batch = Batch(session, whole_png, Terms(wait=wait, seconds=job["seconds"]))
        collected = iter(batch.collect(records))
        outcomes = [outcome if outcome.error is not None else next(collected) for outcome in outcomes]
    batch.handed_over(outcomes)
    return outcomes


def _child(job: dict[str, Any]) -> int:
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.DEBUG)
    report = Path(job["report"])
    partial = report.with_suffix(".part")
    told = json.dumps(run(job))
    empty_disk()
    partial.write_text(told)
    partial.replace(report)
    logging.shutdown()
    return 0


def main() -> None:
    set_everywhere(SETTLE_SECONDS=SETTLE_SECONDS, CERTAIN_SECONDS=SETTLE_SECONDS, _BLOCKING_SECONDS=0.0)
    # longer than the second by which the stand-in has a result late
    set_everywhere(_LATE_SECONDS=4.0)
    doubt._FIRST_PAUSE = 0.2
    doubt._HELD_SECONDS = 0.0  # no line is ever down for a while here
    serve(_child)


if __name__ == "__main__":
    main()
