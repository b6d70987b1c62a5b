"""Rows through a workflow in API format, run without ComfyUI: a column's value goes into an input of a node."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

from .. import host
from ..editing.fields import Field
from ..headless.__main__ import pack_nodes
from ..headless.builtin import picture_path
from ..headless.changes import SettingError, apply_setting
from ..headless.folders import RunFolders
from ..headless.given import COMBO, input_specs
from ..headless.graph import Problem, Workflow, WorkflowError, parse_workflow, read_workflow
from ..headless.outputs import RunResult
from ..headless.run import NodeFailed, RunInterrupted, node_table, run_workflow
from ..oxen.errors import Interrupted, OxenError, SomeFailed, SpendLimitReached
from ..oxen.jobs.batch import HOPELESS
from ..oxen.jobs.handover import Consignment, Handed, carrying
from ..oxen.jobs.ledger import Ledger
from ..oxen.jobs.order import How
from ..oxen.jobs.record import Record
from ..oxen.jobs.session import open_ledger
from ..oxen.jobs.waiting import may_be_billed
from ..oxen.settings import load_settings, variable_of
from .columns import IMAGE, OUTPUT, Columns
from .made import LimitReached, PlannedRow, RowFailed, RowResult, RunStopped
from .naming import inside
from .owed import left_to_spend
from .placing import RUN
from .row_maker import Spending
from .row_price import asked_price, private_folder
from .source_rows import RowError, SourceError

logger = logging.getLogger(__name__)

# What cannot be saved for one row, cannot be for another, and each would be paid for.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
# What a value that a row gave may be found wrong for.
_OF_VALUES = {
    "custom_validation_failed",
    "invalid_input_type",
    "value_bigger_than_max",
    "value_not_in_list",
    "value_smaller_than_min",
}


class Recipe:
    """A workflow and where the columns' values go. mapping: column=NODE.INPUT, settings: NODE.INPUT=VALUE, each.

    Raises SourceError for what does not fit together, before any row is looked at.
    """

    def __init__(self, path: Path, mapping: Sequence[str], settings: Sequence[str]) -> None:
        self.classes = asyncio.run(pack_nodes())
        self.table = node_table(self.classes)
        self.folder = path.resolve().parent
        try:
            workflow = read_workflow(path)
            for setting in settings:
                apply_setting(workflow, self.table, setting)
        except (WorkflowError, SettingError) as error:
            raise SourceError(str(error)) from None
        self.document = workflow.prompt
        self.targets: dict[str, tuple[str, ...]] = {}
        self._texts: set[str] = set()
        self._pictures: set[str] = set()
        for one in mapping:
            column, target = self._target(workflow, one)
            if any(target in taken for taken in self.targets.values()):
                raise SourceError(f"--map {one}: {target} has a column already. An input takes one.")
            self.targets[column] = (*self.targets.get(column, ()), target)
        if IMAGE not in self.targets:
            raise SourceError("Say which input takes the picture: --map image=NODE.INPUT, as image=1.image.")

    @property
    def digest(self) -> str:
        """Of the workflow and of what goes where."""
        whole = json.dumps([self.document, self.targets], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()[:24]

    def columns(self) -> Columns:
        """SaveImage writes PNG, also where a column says what the service is to send."""
        fields: dict[str, Field | None] = {name: None for name in self.targets if name != IMAGE}
        return Columns(fields, saves="png", further=self._further)

    def own_pictures(self) -> list[Path]:
        """The pictures that the workflow itself names, and no column."""
        mapped = {target for targets in self.targets.values() for target in targets}
        names = [
            node["inputs"].get("image")
            for id, node in self.document.items()
            if node["class_type"] == "LoadImage" and f"{id}.image" not in mapped
        ]
        paths = [picture_path(self.folder, name) for name in names if isinstance(name, str)]
        return [path for path in paths if path.is_file()]

    def _further(self, values: Mapping[str, Any], images: Path) -> tuple[str, ...]:
        """The sizes of the further pictures that a row names."""
        named = [
            (target, values[column])
            for column, targets in self.targets.items()
            if column != IMAGE and values.get(column) is not None
            for target in targets
            if target in self._pictures
        ]
        found = [(target, self._found(images, value)) for target, value in named]
        return tuple(f"{target} {path.stat().st_size}" for target, path in found if path is not None)

    def filled(self, row: PlannedRow) -> Workflow:
        """The workflow with a row's values in it; raises SettingError."""
        workflow = parse_workflow(self.document)
        for column, targets in self.targets.items():
            value = os.fspath(row.path.resolve()) if column == IMAGE else row.values.get(column)
            for target in targets if value is not None else ():
                if column != IMAGE and target in self._pictures:
                    value = os.fspath(self._picture(row, target, value))
                self._fill(workflow, target, value)
        return workflow

    def _picture(self, row: PlannedRow, target: str, value: object) -> Path:
        """The file of a further picture that a row names, among the list's pictures or beside the workflow, and nowhere
        else, as with `inside`; raises SettingError."""
        images = row.path.parents[len(PurePosixPath(row.image).parts) - 1]
        if (path := self._found(images, value)) is not None:
            return path
        raise SettingError(
            f"{target}: there is no picture {_name_of(value)[:80]!r} in {images}, nor beside the workflow. A list, "
            "which may come from anywhere, names pictures there alone: put it there, or name with --images a folder "
            "that all of the list's pictures are in."
        )

    def _found(self, images: Path, value: object) -> Path | None:
        for folder in (images, self.folder):
            with contextlib.suppress(RowError, OSError, ValueError):
                if (path := inside(folder, _name_of(value))).is_file():
                    return path
        return None

    def _fill(self, workflow: Workflow, target: str, value: Any) -> None:
        """A cell is a value: no link to another node, and a text as it stands, with quotes and all."""
        id, _, name = target.partition(".")
        if isinstance(value, str) and target in self._texts:
            workflow.nodes[id].inputs[name] = value
            return
        text = value if isinstance(value, str) else json.dumps(value)
        if text.lstrip().startswith(("[", "{")):
            raise SettingError(f"{target} takes one value, and the row has {text[:40]!r}.")
        apply_setting(workflow, self.table, f"{target}={text}")

    def _target(self, workflow: Workflow, text: str) -> tuple[str, str]:
        column, equals, target = text.partition("=")
        id, dot, name = target.partition(".")
        if not equals or not dot or not column or column == OUTPUT:
            raise SourceError(f"--map {text}: write it as COLUMN=NODE.INPUT, as prompt=2.prompt.")
        node = workflow.nodes.get(id)
        if node is None:
            has = ", ".join(f"{one.id} ({one.class_type})" for one in workflow.nodes.values())
            raise SourceError(f"--map {text}: the workflow has no node {id}. It has: {has}.")
        specs = input_specs(self.table[node.class_type], node.inputs) if node.class_type in self.table else {}
        if specs and name not in specs:
            raise SourceError(f"--map {text}: {node.class_type} has no input {name}. It has: {', '.join(specs)}.")
        if specs and specs[name].type in ("STRING", COMBO):
            self._texts.add(target)
        if (node.class_type, name) == ("LoadImage", "image"):
            self._pictures.add(target)
        return column, target


class WorkflowRows:
    """Makes rows through a workflow; a context manager. Raises OxenError."""

    def __init__(self, recipe: Recipe, work: Path, spending: Spending) -> None:
        folder = private_folder()
        settings = load_settings(folder)
        self._folder = folder
        self._began = spending.began
        own = left_to_spend(folder, spending)
        limits = [one for one in (settings.usd_per_run, own) if one is not None]
        self._is_own_limit = own is not None and own == min(limits)
        self._opened = contextlib.ExitStack()
        if limits:
            # where the nodes look; the run of all rows of this process is one run for them
            self._opened.enter_context(_set_to(variable_of("usd_per_run"), str(min(limits))))
        self.width = settings.max_in_flight
        self.price = asked_price()
        self._recipe = recipe
        self._work = work
        self._numbers = itertools.count()
        self._guard = threading.Lock()
        self._counted: set[int] = set()
        self._under_way: set[Consignment] = set()
        self._ledger: Ledger | None = None
        host.set_local(None)

    def __enter__(self) -> WorkflowRows:
        return self

    def __exit__(self, *raised: Any) -> None:
        with self._guard:
            left = list(self._under_way)
        for consignment in left:
            consignment.dropped()
        self._opened.close()

    def stop(self) -> None:
        """Nothing: cancelled jobs might be paid for. They go on at the service, where the next run finds them."""

    def arrange(self, rows: Iterator[PlannedRow]) -> Iterator[PlannedRow]:
        return rows

    def make(self, row: PlannedRow) -> RowResult:
        """A row's result; raises RowFailed, RunStopped, Interrupted, OSError."""
        output = self._work / f"{RUN}{next(self._numbers)}"
        shutil.rmtree(output, ignore_errors=True)
        try:
            folders = RunFolders(source=self._recipe.folder, output=output)
            with carrying() as consignment:
                result = run_workflow(self._recipe.filled(row), self._recipe.classes, folders)
                return self._made(result, folders, consignment)
        except WorkflowError as error:
            if any(self._is_everywhere(problem) for problem in error.problems):
                raise RunStopped(f"The workflow cannot run. {error}") from None
            raise RowFailed(str(error)) from None
        except SettingError as error:
            raise RowFailed(str(error)) from None
        except NodeFailed as error:
            if self._is_own_limit and isinstance(error.error, SpendLimitReached) and "usd_per_run)" in str(error):
                raise LimitReached from error
            if isinstance(error.error, HOPELESS) or _errno_of(error.error) in _OF_THE_DISK:
                raise RunStopped(str(error)) from error
            raise self._failed(str(error), error.error) from None
        except RunInterrupted as error:
            raise Interrupted(str(error)) from None
        finally:
            shutil.rmtree(output, ignore_errors=True)

    def _failed(self, said: str, error: BaseException) -> RowFailed:
        """A row with an edit, or several, that failed. Those of them that came are kept, and owed."""
        parts = (isinstance(error, OxenError) and error.parts) or (error,)
        billed = sum(map(may_be_billed, parts)) or int(parts == (error,) and isinstance(error, SomeFailed))
        price = None if self.price is None else billed * self.price
        return RowFailed(said, is_over=bool(billed), facts=_id_of(error), price=price)

    def _is_everywhere(self, problem: Problem) -> bool:
        """Whether what is wrong with the workflow is so in every row, as no value of a row went there."""
        nodes = {target.partition(".")[0] for targets in self._recipe.targets.values() for target in targets}
        return problem.node_id not in nodes or problem.kind not in _OF_VALUES

    def _made(self, result: RunResult, folders: RunFolders, consignment: Consignment) -> RowResult:
        files = [file for node in result.nodes.values() for file in node.files if not file.is_relative_to(folders.temp)]
        blocked = "; ".join(message for message in result.blocked.values() if message)
        if not files:
            said = blocked or "The workflow saved no picture. Has it a SaveImage?"
            raise RowFailed(said, is_over=bool(blocked), price=self.price)
        edits = [edit for node in result.nodes.values() for text in node.texts.values() for edit in _edits_in(text)]
        first = edits[0] if edits else {}
        handed = consignment.handed
        paid = self._paid_of(handed)
        ids = [one.record.generation_id for one in handed]
        data, *more = ((file.suffix, file.read_bytes()) for file in files)
        facts = {
            "generation_id": first.get("generation_id"),
            "generation_ids": ids if len(ids) > 1 else None,
            "seed": first.get("seed"),
            "how": first.get("how"),
            "size_before": first.get("size_sent"),
            "size": first.get("size_returned"),
            "error": blocked or None,
        }
        cost = sum(map(self._cost_of, paid), Decimal(0)) if handed else None
        with self._guard:
            self._under_way.add(consignment)
        return RowResult(data[1], facts, cost, bool(paid), lambda: self._delivered(consignment), tuple(more))

    def _paid_of(self, handed: Sequence[Handed]) -> list[Record]:
        """What this batch paid for, each of them in one row alone: made by this run, or by one of its own that was
        killed before it was delivered."""
        with self._guard:
            paid = {
                one.record.id: one.record
                for one in handed
                if one.how in (How.NEW, How.FOUND)
                or (one.record.collected_at is None and one.record.created_at >= self._began)
            }
            new = [record for id, record in paid.items() if id not in self._counted]
            self._counted.update(paid)
        return new

    def _cost_of(self, record: Record) -> Decimal:
        cost = record.price if record.cost is None else record.cost
        return (self.price or Decimal(0)) if cost is None else cost

    def _delivered(self, consignment: Consignment) -> None:
        """A row's result is in its place: its pictures may leave the ledger's folder some day."""
        try:
            with self._guard:
                self._under_way.discard(consignment)
                if self._ledger is None and consignment.handed:
                    self._ledger = self._opened.enter_context(contextlib.closing(open_ledger(self._folder)))
        except OxenError as error:  # which must not cost the result
            logger.warning("%s", error)
        if self._ledger is None:
            consignment.dropped()
        else:
            consignment.arrived(self._ledger.collected)


@contextlib.contextmanager
def _set_to(variable: str, value: str) -> Iterator[None]:
    """An environment variable has this value in the with block."""
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        os.environ.pop(variable) if before is None else os.environ.update({variable: before})


def _errno_of(error: BaseException) -> int | None:
    """Of what the system said; nodes say it in words of their own."""
    found = (one.errno for one in (error, error.__cause__) if isinstance(one, OSError))
    return next(filter(None, found), None)


def _name_of(value: object) -> str:
    return str(value).removesuffix(" [input]").replace("\\", "/")


def _edits_in(text: str) -> list[dict[str, Any]]:
    """The edits that a remote node's info tells of; none for any other text."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return []
    edits = told.get("edits") if isinstance(told, dict) else None
    return [edit for edit in edits if isinstance(edit, dict)] if isinstance(edits, list) else []


def _id_of(error: BaseException) -> dict[str, Any]:
    return {"generation_id": error.generation_id} if isinstance(error, OxenError) else {}
