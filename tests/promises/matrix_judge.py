"""What is wrong with what came of a cell: something lost, something paid twice by itself, a wrong picture, a bound."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_cells import Action, Cell, Mode
from fault_worker import png
from kontext_bridge.oxen import errors
from kontext_bridge.standin.records import Bill, Job, Status
from kontext_bridge.standin.server import StandIn

KEY = "SFMyNTY.g2gDdAAAAAF3BGRhdGFtAAAABHVzZXI.Zq81mvXKtUcW-0bLrNpEyHfoJd93TixA"
PIECE = 12
DOCUMENTED = frozenset(
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.OxenError)
) - {"OxenError", "GenerationError", "ReplyError"}
# Above the 192 MB of an answer with a picture in it, held twice for a moment.
MIB_ALLOWED = 420.0
STOPPING_SECONDS = 3.0
NEXT_SECONDS = 10.0
Report = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """One edit of a cell: what is asked, and the shade of grey of its picture."""

    prompt: str
    seed: int
    shade: int

    def made(self, job: Job) -> bool:
        """Whether a job is this edit's; by the prompt alone where the picture was uploaded."""
        sent = job.params["input_image"]
        _, comma, data = str(sent[0] if isinstance(sent, list) else sent).partition("base64,")
        is_mine = not comma or base64.b64decode(data) == png(8, 8, self.shade)
        return job.params.get("prompt", self.prompt) == self.prompt and is_mine


# Spaces at the ends and a letter with two Unicode forms, so that an echo may differ from what was sent.
TWINS = (Wanted(" make the façade blue ", 7, 0x80), Wanted(" make the façade blue ", 7, 0x5A))
NEXT = Wanted("make it red", 8, 0x80)


def asks(cell: Cell, outcome: Report) -> bool:
    """Whether a run stopped at an edit that may be on the bill, and left it to the artist to pay anew."""
    error = outcome.get("error")
    return error == "OutcomeUnknown" or (error == "ResultUnavailable" and cell.may_ask)


def alive(service: StandIn) -> list[Bill]:
    """What was billed for jobs that the service did not end itself."""
    ended = {job.billed_as for job in service.jobs.values() if job.status in (Status.FAILED, Status.CANCELLED)}
    return [bill for bill in service.billed if bill.what not in ended]


@dataclass(frozen=True)
class Trial:
    """What is known of a cell at its end.

    before: what was billed and alive before any run was told to pay anew. asked: the numbers of the edits for which
    one was.
    """

    cell: Cell
    service: StandIn
    folder: Path
    reports: Sequence[Report]
    before: Sequence[Bill]
    asked: frozenset[int]
    reached: bool

    @property
    def outcome(self) -> str:
        if self.asked:
            return "asked anew"
        if all("picture" in outcome for outcome in outcomes(self.reports[0])):
            return "at once"
        return "anew" if len(alive(self.service)) < len(self.service.billed) else "next run"

    def problems(self) -> list[str]:
        found = [*_crashes(self.reports), *_secrets(self.folder), *self._bounds()]
        if self.service.leaks:
            found.append("the key went to another host")
        for number, wanted in enumerate(TWINS[: self.cell.pictures]):
            found += self._of_edit(number, wanted)
        if self.cell.smooth and self.outcome != "at once":
            found.append(f"nothing was amiss, and yet the first run said: {outcomes(self.reports[0])}")
        return found

    def _of_edit(self, number: int, wanted: Wanted) -> Iterable[str]:
        jobs = {job.billed_as: job for job in self.service.jobs.values() if wanted.made(job)}
        bills = [bill for bill in alive(self.service) if bill.what in jobs]
        unasked = [bill for bill in self.before if bill.what in jobs]
        last, asked = outcomes(self.reports[-1])[number], number in self.asked
        if "picture" not in last:
            yield f"the last run delivered nothing: {last.get('error')} {last.get('text')}"
        elif last["picture"] not in _digests(jobs.values()):
            others = _digests(self.service.jobs.values())
            yield "the last run delivered another " + ("edit's picture" if last["picture"] in others else "picture")
        if asked and not self._may_ask(len(unasked)):
            yield f"asked whether to pay anew without need ({len(unasked)} on the bill): {self._question(number)}"
        if asked and len(bills) != len(unasked) + 1:
            yield f"told to pay anew, and billed {len(bills) - len(unasked)} times more"
        if len(unasked) > 1:
            yield f"billed {len(unasked)} times"
        delivered = [bill for bill in bills if bill.what in self.service.delivered]
        if len(delivered) != len(bills) and not (asked and set(bills) - set(unasked) <= set(delivered)):
            yield "billed and never delivered"
        if asked and self._was_dropped(number, jobs):
            yield "the picture came and was not handed over"
        if len({bill.digest for bill in self.service.billed if bill.what in jobs}) > 1:
            yield "the request changed between two runs"

    def _may_ask(self, billed: int) -> bool:
        if self.cell.may_ask:
            return True
        return self.cell.mode is Mode.BLOCKING and (not billed or self.cell.is_unlisted)

    def _question(self, number: int) -> str:
        told = (outcomes(report)[number] for report in self.reports)
        return next((outcome["text"] for outcome in told if asks(self.cell, outcome)), "")

    def _was_dropped(self, number: int, jobs: dict[str, Job]) -> bool:
        """Whether a run that only lacked room on its disk got a picture and kept it from the artist."""
        if self.cell.room is None and self.cell.action is not Action.FULL:
            return False
        handed = {outcomes(report)[number].get("picture") for report in self.reports[:-1]}
        came = [jobs[bill.what] for bill in self.before if bill.what in jobs and bill.what in self.service.delivered]
        return not _digests(came) <= handed

    def _bounds(self) -> Iterable[str]:
        for report in self.reports:
            if report.get("mib", 0.0) > MIB_ALLOWED:
                yield f"a run took {report['mib']:.0f} MiB"
        then = self.reports[0].get("then", {})
        if self.cell.is_followed and self.cell.needs_spend_limit and self.cell.smooth:
            if then.get("error") != "SpendLimitReached":
                yield f"the edit after it was to pass the day's limit, and came to {then}"
        elif self.cell.is_followed:
            yield from self._hung(then)

    def _hung(self, then: Report) -> Iterable[str]:
        first = self.reports[0]
        if not self.reached:
            yield "the request that was to hang was never sent"
        # what is paid for may be left to its answer, so that its fate is known; it must not be in anybody's way
        paid = self.cell.route in {"edit", "enqueue"}
        if not paid and first.get("stopping", 0.0) > STOPPING_SECONDS:
            yield f"the cancelled run ended {first['stopping']:.1f} s later"
        jobs = [job for job in self.service.jobs.values() if NEXT.made(job)]
        if then.get("picture") not in _digests(jobs) or len(jobs) != 1:
            yield f"the edit after the cancelled one was billed {len(jobs)} times and came to {then}"
        elif then["seconds"] > NEXT_SECONDS:
            yield f"the edit after the cancelled one took {then['seconds']:.1f} s"


def outcomes(report: Report) -> list[Report]:
    """What a run told of each of its edits; nothing where it was killed."""
    return report.get("outcomes") or [{}] * len(TWINS)


def _digests(jobs: Iterable[Job]) -> set[str]:
    return {hashlib.sha256(job.result).hexdigest() for job in jobs if job.result}


def _crashes(reports: Sequence[Report]) -> Iterable[str]:
    for report in reports:
        if "crash" in report:
            yield report["crash"]
        for outcome in (*report.get("outcomes", ()), report.get("then", {})):
            if "error" in outcome and outcome["error"] not in DOCUMENTED:
                yield f"an error that is not documented: {outcome['error']}"


def _secrets(folder: Path) -> Iterable[str]:
    return (f"a piece of the key is in {path.name}" for path in files_with_a_piece(folder))


def files_with_a_piece(folder: Path, key: str = KEY) -> list[Path]:
    """The files below a folder that hold any 12 characters in a row of the key."""
    pieces = [key[i : i + PIECE].encode() for i in range(len(key) - PIECE + 1)]
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if any(piece in data for data in [path.read_bytes()] for piece in pieces)]
