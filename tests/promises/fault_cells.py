"""The cells of the fault matrix: a switch of the stand-in, a way to wait, and a moment at which the run is stopped."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from kontext_bridge.standin.faults import NAMES, Fault, Switch
from kontext_bridge.standin.records import Status
from kontext_bridge.standin.server import StandIn


class Mode(str, Enum):
    EVENTS = "events"
    POLLING = "polling"
    BLOCKING = "blocking"
    SUBMIT = "submit"


class Action(str, Enum):
    KILL = "kill -9"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Scene:
    """What can be seen from outside of a run under way."""

    service: StandIn
    folder: Path

    def asked(self, route: str) -> bool:
        return any(request.route == route for request in self.service.requests)

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


def _posted(scene: Scene) -> bool:
    return scene.asked("enqueue") or scene.asked("edit")


BEFORE = Stage("before the POST", lambda scene: scene.ledger_says("sending"), shut=True)
QUEUE_STAGES = (
    BEFORE,
    Stage("POST sent, no answer", _posted, {"answer_delayed": Fault(30)}),
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
    Stage("POST sent, no answer", _posted, held=Status.QUEUED),
    Stage("processing", lambda scene: scene.job_is(Status.PROCESSING), held=Status.PROCESSING),
    Stage("finished", lambda scene: scene.job_is(Status.SUCCEEDED), {"answer_delayed": Fault(30)}),
    Stage(
        "downloading",
        lambda scene: scene.service.shown["answer_hangs"] > 0,
        {"answer_hangs": Fault(times=1)},
    ),
)
STAGE_NAMES = tuple(stage.name for stage in QUEUE_STAGES)


def stages(mode: Mode) -> tuple[Stage, ...]:
    return BLOCKING_STAGES if mode is Mode.BLOCKING else QUEUE_STAGES


@dataclass(frozen=True)
class Cell:
    """One case. fault: a switch of the stand-in, None for none. once: it misbehaves a single time."""

    fault: str | None
    mode: Mode
    stage: str | None = None
    action: Action | None = None
    once: bool = False

    @property
    def name(self) -> str:
        fault = (self.fault or "no fault") + (" (once)" if self.once else "")
        stop = f"{self.action.value} {self.stage}" if self.action else "not stopped"
        return f"{fault} / {self.mode.value} / {stop}"

    @property
    def moment(self) -> Stage | None:
        return next((stage for stage in stages(self.mode) if stage.name == self.stage), None)

    @property
    def needs_upload(self) -> bool:
        return self.fault == "upload_refused"

    @property
    def needs_spend_limit(self) -> bool:
        return self.fault in {"models_missing", "price_missing", "json_request_schema"}

    @property
    def is_unlisted(self) -> bool:
        """Whether the service leaves this cell's edit out of its lists, once its answer is lost."""
        return self.mode is Mode.BLOCKING and self.fault == "history_without_sync"


def all_cells() -> Iterator[Cell]:
    """Every switch, times every wait mode, times nothing, a cancel and a kill at each stage; thousands."""
    for fault in (None, *NAMES):
        for mode in Mode:
            yield Cell(fault, mode)
            if fault is not None:
                yield Cell(fault, mode, once=True)
            for stage in stages(mode):
                if fault not in stage.switches:
                    for action in Action:
                        yield Cell(fault, mode, stage.name, action)


def can_show(fault: str, mode: Mode, action: Action | None) -> bool:
    """Whether a switch has an occasion to misbehave in such a run."""
    if fault.startswith("event"):
        return mode in {Mode.EVENTS, Mode.SUBMIT}
    if fault in {"image_url_reply", "url_though_b64", "b64_though_url", "b64_garbage", "history_without_sync"}:
        return mode is Mode.BLOCKING
    if fault.startswith("cancel"):
        return mode is not Mode.BLOCKING and action is Action.CANCEL
    if fault in {"upload_refused", "models_missing", "price_missing", "json_request_schema"}:
        return action is None
    return True


def chosen_cells() -> Iterator[Cell]:
    """What runs in CI: every switch in every mode, no switch at every stage in every mode, and every switch at every
    stage in one mode, cancelled and killed in turns; without those in which the switch cannot show.
    """
    modes, actions = tuple(Mode), tuple(Action)
    for cell in all_cells():
        if cell.fault is None or (cell.action is None and not cell.once and can_show(cell.fault, cell.mode, None)):
            yield cell
    for row, fault in enumerate(NAMES):
        for column, name in enumerate(STAGE_NAMES):
            wanted = modes[(row + column) % len(modes)]
            action = Action.CANCEL if fault.startswith("cancel") else actions[(row // len(modes) + column) % 2]
            able = [
                mode
                for mode in (wanted, *modes)
                if can_show(fault, mode, action)
                and any(stage.name == name and fault not in stage.switches for stage in stages(mode))
            ]
            if able:
                yield Cell(fault, able[0], name, action)
