"""What Kontext Edit Folder does: the batch of the command, in ComfyUI's folders. Loaded when the node first runs."""

from __future__ import annotations

import sqlite3
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image

from ... import host
from ...batch.asking import Asking
from ...batch.columns import remote_columns
from ...batch.contact_sheet import contact_sheet
from ...batch.journal import read_journal
from ...batch.made import FAILED, LimitReached, RunStopped
from ...batch.meter import Meter
from ...batch.naming import folds_names
from ...batch.owed import left_to_spend, settle
from ...batch.planning import Counts, RowPlan
from ...batch.remote_rows import RemoteRows, RemoteTerms
from ...batch.row_maker import Spending
from ...batch.row_price import private_folder
from ...batch.running import BatchRun, Places, RunWishes, not_planned
from ...batch.source_rows import Clashing, SourceError, SourceRow, Taken, Unwritable
from ...batch.walking import PATTERNS, walk
from ...editing.words import SEED, SEEDS, USD_LIMIT, VARIATIONS
from ...host.turns import EACH
from ...imaging.codec import DecodedImage, to_tensors
from ...oxen.choices import SendAs, WaitMode
from ...oxen.control import Control
from ...oxen.errors import InvalidParameters, LocalTrouble, OxenError, SomeFailed, SpendLimitReached, checked
from ...oxen.jobs.trouble import in_words
from ..checks import member, number, switch, text, whole, within
from ..media import folder_to_read, folder_to_write, found_folders

_GOES_ON = "Run again to go on where it was: nothing is paid again."
# For a run that was cancelled to end in its thread.
_PATIENCE = 60.0
_NAMED = 20
_REASONS = 3


@dataclass(frozen=True)
class FolderOrder:
    """What the widgets ask for, checked. values: of every picture's edit."""

    source: Path
    results: Path
    values: Mapping[str, Any]
    variations: int
    terms: RemoteTerms
    usd: float
    patterns: tuple[str, ...]
    deep: bool
    whole_names: bool
    replaces: bool
    again: bool

    @classmethod
    def read(
        cls,
        *,
        folder: str,
        output: str = "",
        variations: int = 1,
        wait: str = WaitMode.EVENTS.value,
        send_as: str = SendAs.AUTO.value,
        timeout: float = 300.0,
        usd_limit: float = 10.0,
        pattern: str = "",
        subfolders: bool = True,
        whole_names: bool = False,
        replace: bool = False,
        retry_failed: bool = False,
        pay_for_lost: bool = False,
        **values: Any,
    ) -> FolderOrder:
        """Raises InvalidParameters, and Misconfigured where there are no folders to work in."""
        columns = remote_columns()
        checked(columns.check, values)
        source = folder_to_read(folder, "folder")
        results = folder_to_write(output if text(output, "output").strip() else folder, "output")
        if results == found_folders().output:
            raise InvalidParameters("Nothing was sent. Give the results a folder of their own in output.")
        if source.resolve().is_relative_to(results.resolve()):
            raise InvalidParameters(
                f"The results would lie among the pictures of {source}. Nothing was sent. Give another output."
            )
        return cls(
            source,
            results,
            values,
            whole(variations, "variations", VARIATIONS),
            RemoteTerms(
                seconds=number(timeout, "timeout"),
                wait=member(WaitMode, wait, "wait"),
                send_as=member(SendAs, send_as, "send_as"),
                for_lost=switch(pay_for_lost, "pay_for_lost"),
                run_id=host.run_id(),
            ),
            within(usd_limit, "usd_limit", USD_LIMIT),
            tuple(one.strip() for one in text(pattern, "pattern").split(";") if one.strip()) or PATTERNS,
            switch(subfolders, "subfolders"),
            switch(whole_names, "whole_names"),
            switch(replace, "replace"),
            switch(retry_failed, "retry_failed"),
        )

    def rows(self) -> Iterator[SourceRow]:
        """A row for each picture of the folder, or for each of its variations."""
        for row in walk(self.source, self.patterns, deep=self.deep, skip=self.results):
            if self.variations == 1:
                yield row
                continue
            name = row.image if self.whole_names else str(PurePosixPath(row.image).with_suffix(""))
            first = (row.number - 1) * self.variations
            for place in range(self.variations):
                seed = (int(self.values.get(SEED.name, 0)) + place) % SEEDS
                # below the results: a picture's name may begin as a drive's does, which a path must not
                output = f"./{name}_{place + 1}"
                yield replace(row, number=first + place + 1, output=output, given={SEED.name: seed})


@dataclass(frozen=True)
class EditedFolder:
    """What the node gives: IMAGE [1,H,W,3], the report, the folder of results; and what it shows and says."""

    sheet: torch.Tensor
    report: str
    path: str
    shown: dict[str, Any]
    line: str


class _HowFar:
    """What the node's bar and line show, told by the thread that does the work."""

    def __init__(self) -> None:
        self.meter: Meter | None = None
        self.seen = 0
        self.ending = False

    @property
    def fraction(self) -> float:
        return 0.0 if self.meter is None else self.meter.fraction

    @property
    def text(self) -> str:
        if self.ending:
            return "drawing the contact sheet"
        if self.meter is not None:
            return self.meter.text
        return f"looking at the folder · {self.seen:,} pictures" if self.seen else "looking at the folder"

    @property
    def stopped_text(self) -> str:
        done = "" if self.meter is None else f" after {self.meter.done:,}"
        return f"stopped{done}; what was under way is kept: run again to go on"


class _Detached:
    """Cancel of a folder only stops waiting: jobs under way go on at the service, where the next run finds them.
    Cancelled, they might be paid for and lost."""

    def __init__(self, control: Control) -> None:
        self.interrupt = self.detach = control.detach


async def edit_folder(widgets: dict[str, Any], node_id: str | None) -> EditedFolder:
    """Edit the pictures of a folder; raises OxenError where none has a result, or what stops them all."""
    voice = host.Voice(node_id)
    how_far, control = _HowFar(), Control()
    try:
        order = FolderOrder.read(**widgets)
        made = await host.run_off_loop(
            lambda: _edited(order, how_far, control), _Detached(control), status=how_far, node_id=node_id, load=EACH
        )
    except OxenError as error:
        voice.say(error.line)
        raise
    except BaseException as error:
        if host.is_interruption(error):
            voice.say(how_far.stopped_text)
        raise
    voice.say(made.line)
    return made


def _edited(order: FolderOrder, how_far: _HowFar, control: Control) -> EditedFolder:
    places = Places.below(order.results)
    with in_words("The run"):
        try:
            with places.alone(control, _PATIENCE) as began:
                return _alone(order, places, how_far, control, began)
        except Taken as error:
            raise InvalidParameters(
                f"{error.what} Nothing was sent. Give another output, or switch replace on to have them written over."
            ) from None
        except Unwritable as error:
            raise InvalidParameters(f"{error.what} Nothing was sent. Give another output.") from None
        except Clashing as error:
            raise InvalidParameters(f"{error.what} Nothing was sent. Set whole_names.") from None
        except SourceError as error:
            raise InvalidParameters(str(error)) from None
        except sqlite3.Error as error:
            raise LocalTrouble(not_planned(error, _GOES_ON)) from error


def _alone(order: FolderOrder, places: Places, how_far: _HowFar, control: Control, began: float) -> EditedFolder:
    plan = RowPlan(
        Asking(
            order.source,
            "remote",
            remote_columns(),
            order.values,
            order.whole_names and order.variations == 1,
            folds=folds_names(places.work),
        )
    )
    try:
        plan.read(_watched(order.rows(), how_far, control))
        plan.read_report(read_journal(places.report))
        plan.refuse_overwriting(places.results, replaces=order.replaces)
        usd = None if order.usd == 0 else _cents(order.usd)
        run = BatchRun(places, plan, RunWishes(usd=usd, again=order.again, replaces=order.replaces, goes_on=_GOES_ON))
        before = run.counts()
        if not before.all:
            raise InvalidParameters(
                f"There is nothing in {order.source} that fits {' '.join(order.patterns)}. Nothing was sent. "
                "Check folder and patterns."
            )
        stopped = _made(order, run, plan, before, how_far, control, began)
        return _told(order, places, run, plan, how_far, stopped)
    finally:
        plan.close()


def _made(
    order: FolderOrder, run: BatchRun, plan: RowPlan, before: Counts, how_far: _HowFar, control: Control, began: float
) -> RunStopped | None:
    """Make what is left; gives what stopped it."""
    if not before.left:
        settle(run.spending(began))
        return None
    how_far.meter = Meter(before.left, plan.spent, None, "pictures")

    def maker(spending: Spending) -> RemoteRows:
        left = left_to_spend(private_folder(), spending)
        return RemoteRows(replace(order.terms, usd=left, began=spending.began), control=control)

    try:
        run.make(maker, how_far.meter, began)
    except RunStopped as error:
        return error
    return None


def _told(
    order: FolderOrder, places: Places, run: BatchRun, plan: RowPlan, how_far: _HowFar, stopped: RunStopped | None
) -> EditedFolder:
    how_far.ending = True
    after, failed = run.counts(), _Failures(run.entries())
    paid = f", {plan.spent_in_words}" if plan.spent_in_words else ""
    lines = [f"{after.done:,} of {after.mine:,} pictures are done{paid}"]
    if isinstance(stopped, LimitReached):
        lines.append(
            f"Stopped before passing usd_limit, ${order.usd:.2f}: {_left(after, failed):,} are left. With a higher "
            "limit the next run goes on with them, and pays for nothing again."
        )
    if not after.done or (stopped is not None and not isinstance(stopped, LimitReached)):
        raise _error(order, after, failed, stopped)
    lines += failed.lines
    run.write_page(order.source, ", ".join([lines[0], f"{failed.count:,} failed"] if failed.count else lines[:1]))
    lines.append(f"Results, report.html and report.jsonl: {places.results}")
    sheet = contact_sheet(run.entries, results=places.results, images=order.source)
    report = "\n".join(lines)
    shown = {"images": [_saved(sheet)], "text": (report,)}
    return EditedFolder(_as_image(sheet), report, str(places.results), shown, _line(after, failed, plan, how_far))


class _Failures:
    """The rows that have failed, the first of them by name; however many there are."""

    def __init__(self, entries: Iterator[Mapping[str, Any]]) -> None:
        self.count = 0
        self.may_have_been_billed = 0
        self._named: list[str] = []
        self.reasons: Counter[str] = Counter()
        for entry in entries:
            if entry["state"] != FAILED:
                continue
            self.count += 1
            self.may_have_been_billed += bool(entry.get("over"))
            error = str(entry.get("error", ""))
            if len(self._named) < _NAMED:
                self._named.append(f"{entry.get('image')}: {error}")
            if error in self.reasons or len(self.reasons) < _NAMED:
                self.reasons[error] += 1

    @property
    def lines(self) -> list[str]:
        """For the report."""
        if not self.count:
            return []
        more = self.count - len(self._named)
        lines = [f"{self.count:,} failed:", *self._named]
        lines += [f"and {more:,} more, all in report.html"] if more else []
        billed = self.may_have_been_billed
        if billed:
            those = "They" if billed == self.count else f"{billed:,} of them"
            lines.append(
                f"{those} failed at Oxen.ai, where each try may be billed: switch retry_failed on to try them again."
            )
        if billed < self.count:
            lines.append(f"{'The others' if billed else 'They'} are tried again by the next run.")
        return lines


def _error(order: FolderOrder, after: Counts, failed: _Failures, stopped: RunStopped | None) -> OxenError:
    """What ended the run, or what all pictures failed of."""
    if stopped is None:
        told = " ".join(f"{count:,} of them: {reason}" for reason, count in failed.reasons.most_common(_REASONS))
        advice = next(iter(failed.reasons)) if len(failed.reasons) == 1 else told
        return SomeFailed(f"None of the {after.mine:,} pictures in {order.source} could be edited: {advice}")
    kept = f" {after.done:,} of {after.mine:,} pictures are done and kept." if after.done else ""
    if isinstance(stopped, LimitReached):
        if failed.may_have_been_billed:
            return SpendLimitReached(
                f"usd_limit, ${order.usd:.2f}, does not suffice for another edit, as what failed at Oxen.ai may have "
                "been billed. Raise it and run again."
            )
        return SpendLimitReached(
            f"usd_limit, ${order.usd:.2f}, does not suffice for one edit. Nothing was sent. Raise it and run again."
        )
    cause = stopped.__cause__
    if isinstance(cause, OxenError):
        return cause.reworded(f"{cause.message}{kept} {_GOES_ON}" if kept else cause.message)
    return LocalTrouble(f"{stopped}{kept} Run again to go on where it was: nothing is paid again.")


def _left(after: Counts, failed: _Failures) -> int:
    """How many were not tried yet."""
    return after.mine - after.done - failed.count


def _line(after: Counts, failed: _Failures, plan: RowPlan, how_far: _HowFar) -> str:
    """What became of the run, in the one line on the node."""
    new = 0 if how_far.meter is None else how_far.meter.done
    done = f"{after.done:,} of {after.mine:,} done"
    parts = [done if new else f"{done}, nothing new"]
    parts += [f"{failed.count:,} failed"] if failed.count else []
    left = _left(after, failed)
    parts += [f"{left:,} left"] if left else []
    parts += [f"${plan.spent:.2f}"] if plan.spent else []
    return " · ".join(parts)


def _watched(rows: Iterator[SourceRow], how_far: _HowFar, control: Control) -> Iterator[SourceRow]:
    """The rows, with Cancel looked at between them: a folder may be on a slow disk."""
    for row in rows:
        control.check()
        how_far.seen = row.number
        yield row


def _as_image(sheet: Image.Image) -> torch.Tensor:
    return to_tensors([DecodedImage(np.asarray(sheet), None, "")]).image


def _saved(sheet: Image.Image) -> dict[str, str]:
    """The sheet as a file that the front end can show."""
    folder = found_folders().temp
    folder.mkdir(parents=True, exist_ok=True)
    name = f"kontext_folder_{uuid.uuid4().hex[:12]}.webp"
    sheet.save(folder / name, "WEBP", quality=85, method=2)
    return {"filename": name, "subfolder": "", "type": "temp"}


def _cents(dollars: float) -> Decimal:
    return Decimal(f"{dollars:.2f}")
