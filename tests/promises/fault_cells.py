"""What a cell of the fault matrix is: what goes wrong, a way to wait, and a moment at which the run is stopped."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from kontext_bridge.standin.faults import Fault, Switch, Value
from kontext_bridge.standin.records import Status
from kontext_bridge.standin.server import StandIn

KONTEXT = "flux-kontext-dev"


class Mode(str, Enum):
    EVENTS = "events"
    POLLING = "polling"
    BLOCKING = "blocking"
    SUBMIT = "submit"


class Action(str, Enum):
    KILL = "kill -9"
    CANCEL = "cancel"
    FULL = "disk full"


STOPS = (Action.KILL, Action.CANCEL)


@dataclass(frozen=True)
class Scene:
    """What can be seen from outside of a run under way."""

    service: StandIn
    folder: Path
    pictures: int = 1

    def asked(self, route: str) -> bool:
        return any(request.route == route for request in self.service.requests)

    def posted(self) -> bool:
        """Whether every edit of the run was sent."""
        return sum(request.route in ("enqueue", "edit") for request in self.service.requests) >= self.pictures

    def job_is(self, *states: Status) -> bool:
        return any(job.status in states for job in self.service.jobs.values())

    def ledger_says(self, state: str) -> bool:
        path = self.folder / "ledger.sqlite3"
        if not path.exists():
            return False
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
        try:
            return bool(database.execute("SELECT 1 FROM jobs WHERE state = ?", (state,)).fetchall())
        except sqlite3.OperationalError:  # the table is not there yet
            return False
        finally:
            database.close()


@dataclass(frozen=True)
class Stage:
    """A moment of a run. `switches` and `held` keep the run there; `reached` says that it is there."""

    name: str
    reached: Callable[[Scene], bool]
    switches: Mapping[str, Switch] = field(default_factory=dict)
    held: Status | None = None
    shut: bool = False


BEFORE = Stage("before the POST", lambda scene: scene.ledger_says("sending"), shut=True)
NO_ANSWER = "POST sent, no answer"
QUEUE_STAGES = (
    BEFORE,
    Stage(NO_ANSWER, Scene.posted, {"answer_delayed": Fault(30)}),
    Stage("id known", lambda scene: scene.ledger_says("sent"), held=Status.QUEUED),
    Stage("queued", lambda scene: scene.asked("row"), held=Status.QUEUED),
    Stage(
        "processing",
        lambda scene: scene.asked("row") and scene.job_is(Status.PROCESSING),
        held=Status.PROCESSING,
    ),
    Stage(
        "finished",
        lambda scene: scene.asked("result"),
        {"poll_never_answers": Fault(times=1, route="result")},
    ),
    Stage(
        "downloading",
        lambda scene: scene.service.shown["result_hangs"] > 0,
        {"result_hangs": Fault(times=1)},
    ),
)
BLOCKING_STAGES = (
    BEFORE,
    Stage(NO_ANSWER, Scene.posted, held=Status.QUEUED),
    Stage("processing", lambda scene: scene.job_is(Status.PROCESSING), held=Status.PROCESSING),
    Stage("finished", lambda scene: scene.job_is(Status.SUCCEEDED), {"answer_delayed": Fault(30)}),
    Stage(
        "downloading",
        lambda scene: scene.service.shown["answer_hangs"] > 0,
        {"answer_hangs": Fault(times=1)},
    ),
)
STAGE_NAMES = tuple(stage.name for stage in QUEUE_STAGES)
HUNG = "hung"


def stages(mode: Mode) -> tuple[Stage, ...]:
    return BLOCKING_STAGES if mode is Mode.BLOCKING else QUEUE_STAGES


@dataclass(frozen=True)
class Clock:
    """How many seconds this machine's clock is ahead, in the first run and in all that follow."""

    name: str
    first: float = 0.0
    later: float = 0.0


@dataclass(frozen=True)
class Cell:
    """One case. fault: a switch of the stand-in, None for none. once: it misbehaves a single time.

    value, route: the switch's, as in `Fault`.
    also: other switches, on as long as this one. kept: they stay on for the runs that follow the first.
    lost: the first answer to each edit is lost besides.
    pictures: how many edits there are, alike but for their pictures.
    clock: what this machine's clock does. room: bytes that a file may hold in the first run, None without bounds.
    smooth: nothing here is a reason to fail: the first run is patient and delivers.
    may_ask: the edit's fate is in doubt, so that a run may stop and ask whether to pay anew.
    model: of the service, whose other fields are at their defaults.
    """

    fault: str | None
    mode: Mode
    stage: str | None = None
    action: Action | None = None
    once: bool = False
    value: Value = True
    route: str = ""
    also: tuple[tuple[str, Value], ...] = ()
    kept: bool = False
    lost: bool = False
    pictures: int = 1
    clock: Clock | None = None
    room: int | None = None
    smooth: bool = False
    may_ask: bool = False
    model: str = KONTEXT

    @property
    def row(self) -> str:
        """What goes wrong, in words."""
        words = [self.fault or ""]
        words[0] += f"@{self.route}" if self.route else ""
        words[0] += f"={self.value}" if self.value is not True else ""
        words += [f"{name}={value}" for name, value in self.also]
        words += ["an answer lost"] if self.lost else []
        words += [self.model] if self.model != KONTEXT else []
        words += [f"{self.pictures} pictures"] if self.pictures > 1 else []
        words += [self.clock.name] if self.clock else []
        words += ["no room on the disk"] if self.room is not None or self.action is Action.FULL else []
        return ", ".join(filter(None, words)) or "(no fault)"

    @property
    def name(self) -> str:
        room = "" if self.room is None else f" above {self.room} bytes"
        stop = f"{self.action.value} {self.stage}" if self.action else "not stopped"
        return f"{self.row}{room}{' (once)' if self.once else ''} / {self.mode.value} / {stop}"

    @property
    def moment(self) -> Stage | None:
        if self.stage == HUNG:
            return Stage(HUNG, lambda scene: scene.service.shown[self.fault or ""] > 0)
        return next((stage for stage in stages(self.mode) if stage.name == self.stage), None)

    @property
    def switches(self) -> dict[str, Switch]:
        """The stand-in's switches for the first run, those of the moment left out."""
        switches: dict[str, Switch] = dict(self.also)
        if self.lost:
            switches["answer_dropped"] = Fault(times=self.pictures)
        if self.fault is not None:
            value = 100 if self.fault == "body_limit" else self.value  # bytes, below which no request stays
            times = 1 if self.once or self.stage == HUNG else None
            switches[self.fault] = Fault(value, times=times, route=self.route)
        return switches

    @property
    def is_followed(self) -> bool:
        """Whether another edit follows in the same process, which the first must not harm."""
        return self.stage == HUNG or (self.fault == "cost_odd" and self.smooth)

    @property
    def is_patient(self) -> bool:
        """Whether the first run has the patience of a real one."""
        return self.smooth or self.stage == HUNG or self.room is not None

    @property
    def needs_upload(self) -> bool:
        return self.fault == "upload_refused" or self.route in {"me", "upload", "context", "presign"}

    @property
    def needs_spend_limit(self) -> bool:
        limited = {"models_missing", "price_missing", "json_request_schema", "cost_odd"}
        return self.fault in limited or self.route == "model"

    @property
    def is_unlisted(self) -> bool:
        """Whether the service leaves this cell's edit out of its lists, once its answer is lost."""
        return self.mode is Mode.BLOCKING and self.fault == "history_without_sync"
