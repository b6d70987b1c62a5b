"""Rows by models on the GPUs of a Ray cluster: an actor each, which loads its model once.

A worker that dies costs the row that it was at some time: the row goes to another worker, while Ray starts the process
anew. It comes back into the pool once its model can be read again.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..oxen.errors import Interrupted
from .local_rows import AHEAD, LocalModel, LocalRows
from .made import PlannedRow, RowFailed, RowResult, RunStopped
from .pictures import picture_in
from .ray_cluster import answered, file_of, joined, value
from .source_rows import SourceError

_TICK = 0.2
# Workers that one row may see die: it may be the row.
_TRIES = 3
# How often a worker's process is started anew.
_LIVES = 20


@dataclass(frozen=True)
class Share:
    """How many workers there are, and what of a machine each takes. gpus: 0 is a worker on CPUs alone."""

    workers: int
    gpus: float
    cpus: int


def share_of(resources: Mapping[str, float], machines: Sequence[float], workers: int | None, *, on_gpus: bool) -> Share:
    """What each worker takes of a cluster. machines: the CPUs of each. workers: None for one a GPU, or else a machine.

    More workers than GPUs take an even part of one each.
    """
    gpus = int(resources.get("GPU", 0)) if on_gpus else 0
    if gpus:
        count = workers or gpus
        return Share(count, 1.0 if count <= gpus else 1.0 / math.ceil(count / gpus), 1)
    count = workers or max(1, len(machines))
    evenly = int(resources.get("CPU", 1)) // count
    return Share(count, 0.0, max(1, min(evenly, int(max(machines, default=1)))))


class LocalWorker:
    """A Ray actor with a model; every call gives its answer as `answered` does."""

    def __init__(self, model: LocalModel, measures: bool) -> None:
        self._model = model
        self._measures = measures
        self._rows: LocalRows | None = None

    def opened(self) -> bool | Exception:
        """Whether the model can be used; it is loaded with the first row."""
        return answered(lambda: bool(self._opened()))

    def make(self, file: bytes, values: Mapping[str, Any], ahead: Sequence[str]) -> Any:
        """A row's file and facts. ahead: prompts to encode together, where this row's is not known yet."""

        def work() -> tuple[bytes, dict[str, Any]]:
            rows = self._opened()
            if not rows.knows(str(values["prompt"])):
                rows.learn(ahead)
            return rows.made(picture_in(file), values)

        return answered(work)

    def _opened(self) -> LocalRows:
        if self._rows is None:
            self._rows = LocalRows(self._model, measures=self._measures)
        return self._rows


class RayLocalRows:
    """Makes rows with the models of a cluster; a context manager. Raises SourceError, RunStopped.

    workers: as for `share_of`.
    """

    price = None

    def __init__(self, address: str, model: LocalModel, *, measures: bool = False, workers: int | None = None) -> None:
        if model.device not in (None, "cuda", "cpu"):
            raise SourceError(f"--device {model.device}: with --ray it takes cuda or cpu; which GPU is Ray's to say.")
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._why: BaseException | None = None
        self._stopped = threading.Event()
        self._ahead: dict[int, tuple[str, ...]] = {}
        with contextlib.ExitStack() as opened:
            self._ray = opened.enter_context(joined(address))
            machines = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
            on_gpus = model.device != "cpu"
            share = share_of(self._ray.cluster_resources(), machines, workers, on_gpus=on_gpus)
            options = {"num_gpus": share.gpus, "num_cpus": share.cpus, "max_restarts": _LIVES, "max_task_retries": 0}
            hire = self._ray.remote(**options)(LocalWorker).remote
            self._workers = [hire(_for_any_folder(model), measures) for _ in range(share.workers)]
            self._left = share.workers
            # one more, whose picture is read while the others are at theirs
            self.width = share.workers + 1
            for worker in self._workers:
                self._awaited(worker)
            self._opened = opened.pop_all()

    def __enter__(self) -> RayLocalRows:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stopped.set()
        self._opened.close()

    def stop(self) -> None:
        """End rows under way at once; they cost nothing but time."""
        self._stopped.set()
        for worker in self._workers:
            self._ray.kill(worker)

    def arrange(self, rows: Iterator[PlannedRow]) -> Iterator[PlannedRow]:
        """The rows in their order, each with the prompts that its worker will most likely be at next."""
        step = len(self._workers)
        while some := list(itertools.islice(rows, AHEAD)):
            good = [row for row in some if row.problem is None]
            prompts = [str(row.values["prompt"]) for row in good]
            for place, row in enumerate(good):
                self._ahead[row.number] = tuple(dict.fromkeys(prompts[place::step]))
            yield from some

    def make(self, row: PlannedRow) -> RowResult:
        """A row's result; raises RowFailed, RunStopped, Interrupted, KontextError, ImageError, OSError."""
        ahead = self._ahead.pop(row.number, ())
        file = self._ray.put(file_of(row.path))
        errors = self._ray.exceptions
        for _ in range(_TRIES):
            worker = self._next()
            try:
                answer = self._ray.get(worker.make.remote(file, row.values, ahead))
            except errors.RayTaskError:
                raise
            except errors.RayError:  # its process died, or its machine
                self._awaited(worker)
                continue
            self._idle.put(worker)
            data, facts = value(answer)
            return RowResult(data, facts)
        raise RowFailed(f"{_TRIES} workers ended while they were at it. Have they memory enough for this picture?")

    def _next(self) -> Any:
        """A worker that has nothing to do."""
        while True:
            if self._stopped.is_set():
                raise Interrupted("The run was stopped.")
            with contextlib.suppress(queue.Empty):
                return self._idle.get(timeout=_TICK)
            if not self._left:
                raise RunStopped(f"Stopped: no worker is left. {self._why}") from self._why

    def _awaited(self, worker: Any) -> None:
        threading.Thread(target=self._admit, args=(worker,), name="kontext-bridge worker", daemon=True).start()

    def _admit(self, worker: Any) -> None:
        """Have a worker among the idle ones as soon as it is there; one that cannot be is counted out."""
        if self._stopped.is_set():
            return
        try:
            value(self._ray.get(worker.opened.options(max_task_retries=_LIVES).remote()))
        except BaseException as error:  # told by whoever waits for the last one
            with self._guard:
                self._why = error
                self._left -= 1
            return
        self._idle.put(worker)


def _for_any_folder(model: LocalModel) -> LocalModel:
    """The model with whole paths: a worker runs in a folder of its own."""

    def whole(path: Path) -> Path:
        return path.resolve()

    return replace(
        model,
        transformer=None if model.transformer is None else whole(model.transformer),
        text_encoders=whole(model.text_encoders),
        vae=whole(model.vae),
        loras=tuple((whole(file), strength) for file, strength in model.loras),
    )
