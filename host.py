"""The running ComfyUI, as far as the rooms need it: progress, interruption, folders, the run's name.

Off ComfyUI all of it degrades: progress goes to the reporter that `set_local` names, or to the log; interruption is
what `request_interrupt` says; the user folder is one in the home directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

FOLDER_NAME = "kontext_bridge"
HOME_VARIABLE = "KONTEXT_BRIDGE_HOME"
_TICK = 0.1
_WATCH_TICK = 0.05
# For the work to end by itself once Cancel was pressed; a busy machine takes as long again for all else.
_GRACE = 0.4
_process_run = uuid.uuid4().hex


class Reporter(Protocol):
    """Where progress goes off ComfyUI; both may be called from any thread."""

    def progress(self, node_id: str, value: float, total: float) -> None: ...

    def text(self, node_id: str, text: str) -> None: ...


class Stoppable(Protocol):
    """Work that can be stopped: `interrupt` is the artist's Cancel, `detach` only stops waiting."""

    def interrupt(self) -> None: ...

    def detach(self) -> None: ...


class Status(Protocol):
    """How far work is: `fraction` 0 to 1, and one line of text."""

    @property
    def fraction(self) -> float: ...

    @property
    def text(self) -> str: ...


class LocalInterruption(BaseException):
    """Stands for ComfyUI's InterruptProcessingException where there is no ComfyUI; a BaseException like it."""


@dataclass(frozen=True)
class Blocked:
    """Stands for ComfyUI's ExecutionBlocker where there is no ComfyUI: a value that nobody may use, and why."""

    message: str | None


_reporter: Reporter | None = None
_local_interrupt = threading.Event()


def set_local(reporter: Reporter | None) -> None:
    """Send progress to `reporter` while there is no ComfyUI, and forget an earlier interruption."""
    global _reporter
    _reporter = reporter
    _local_interrupt.clear()


def request_interrupt() -> None:
    """What ComfyUI's Cancel does, for a run without it."""
    _local_interrupt.set()


def interrupted() -> bool:
    """Whether the artist has asked the current run to stop."""
    management = sys.modules.get("comfy.model_management")
    return _local_interrupt.is_set() or (management is not None and bool(management.processing_interrupted()))


def interruption() -> BaseException:
    """The exception that ends a node because the artist asked for it."""
    management = sys.modules.get("comfy.model_management")
    if management is not None and not _local_interrupt.is_set():
        stopped: BaseException = management.InterruptProcessingException()
        return stopped
    return LocalInterruption("The run was interrupted.")


def blocked(message: str) -> Any:
    """What a node gives for an output that it has no value for: nodes that use it do not run, the artist reads why."""
    if _server() is None:
        return Blocked(message)
    return sys.modules["comfy_execution.graph_utils"].ExecutionBlocker(message)


def user_folder() -> Path:
    """The pack's private folder: ComfyUI's system user folder, which no HTTP route serves.

    KONTEXT_BRIDGE_HOME overrides it. Made on first use, for its owner alone.
    """
    override = os.environ.get(HOME_VARIABLE, "").strip()
    if override:
        folder = Path(override).expanduser()
    elif _server() is not None:
        folder = Path(sys.modules["folder_paths"].get_system_user_directory(FOLDER_NAME))
    else:
        data = os.environ.get("XDG_DATA_HOME", "").strip()
        folder = (Path(data) if data else Path.home() / ".local" / "share") / "kontext-bridge"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def run_id() -> str:
    """A name for the run of the whole graph: ComfyUI's prompt id, else one name for this process."""
    utils = sys.modules.get("comfy_execution.utils")
    context = utils.get_executing_context() if utils is not None else None
    return str(context.prompt_id) if context is not None else _process_run


async def show(node_id: str | None, fraction: float, text: str) -> None:
    """Move a node's bar to `fraction` (0 to 1) and set its line of text."""
    if node_id is None:
        return
    server = _server()
    if server is not None:
        api: Any = sys.modules["comfy_api.latest"]
        await api.ComfyAPI().execution.set_progress(value=fraction * 100.0, max_value=100.0, node_id=node_id)
        server.send_progress_text(text, node_id, server.client_id)
    elif _reporter is not None:
        _reporter.progress(node_id, fraction * 100.0, 100.0)
        _reporter.text(node_id, text)
    else:
        logger.debug("%s: %.0f %% %s", node_id, fraction * 100, text)


async def run_off_loop(
    work: Callable[[], T], control: Stoppable, *, status: Status | None = None, node_id: str | None = None
) -> T:
    """Run blocking `work` on a thread of its own and show its `status` on the node until it ends.

    Cancel interrupts `control` and ends this call within a second, whether or not `work` is through with its
    cleaning up by then. When ComfyUI drops the node for another reason, `control` is only detached.
    """
    outcome = _start(work)
    shown = (-1.0, "")
    with _watch(control) as stopped:
        try:
            while not outcome.done():
                if status is not None:
                    now = (min(status.fraction, 0.99), status.text)
                    if now != shown:
                        await show(node_id, *now)
                        shown = now
                if stopped.is_set():
                    await asyncio.wait({outcome}, timeout=_GRACE)
                    raise interruption()
                awaited: set[asyncio.Future[Any]] = {outcome, stopped.told}
                await asyncio.wait(awaited, timeout=_TICK, return_when=asyncio.FIRST_COMPLETED)
            if stopped.is_set():
                raise interruption()
        except asyncio.CancelledError:
            if not stopped.is_set():
                control.detach()
            raise
    if status is not None:
        failed = outcome.exception() is not None
        await show(node_id, min(status.fraction, 0.99) if failed else 1.0, status.text)
    return outcome.result()


def _start(work: Callable[[], T]) -> asyncio.Future[T]:
    """Start `work` on a daemon thread, in a copy of this context; its outcome, dropped if nobody is left to take it."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def call() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = context.run(work)
        except BaseException as raised:  # handed to the node, which raises it
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop of a run that was stopped is closed
            loop.call_soon_threadsafe(settle, result, error)

    # an outcome that comes after the node was dropped is nobody's: its error is not worth a warning
    outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
    threading.Thread(target=call, name="kontext-bridge run", daemon=True).start()
    return outcome


class _Stop:
    """Whether a node was stopped, for its thread and, as a future, for its event loop, which it wakes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._set = False
        self.told: asyncio.Future[None] = self._loop.create_future()

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        if self._set:
            return
        self._set = True
        with contextlib.suppress(RuntimeError):  # the loop of a run that was stopped is closed
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if not self.told.done():
            self.told.set_result(None)


_watched: dict[_Stop, Stoppable] = {}
_watch_guard = threading.Lock()


@contextlib.contextmanager
def _watch(control: Stoppable) -> Iterator[_Stop]:
    """Interrupt `control` as soon as Cancel is pressed, also while other nodes block the event loop.

    One thread looks for all nodes at once: ComfyUI clears its flag when the first node has raised, and the
    others would never learn of it.
    """
    stopped = _Stop()
    with _watch_guard:
        first = not _watched
        _watched[stopped] = control
    if first:
        threading.Thread(target=_look_out, name="kontext-bridge watch", daemon=True).start()
    try:
        yield stopped
    finally:
        with _watch_guard:
            _watched.pop(stopped, None)


def _look_out() -> None:
    pause = threading.Event()
    while True:
        with _watch_guard:
            if not _watched:
                return
            if interrupted():
                for stopped, control in _watched.items():
                    stopped.set()
                    control.interrupt()
        pause.wait(_WATCH_TICK)


def _server() -> Any:
    """ComfyUI's server, None off ComfyUI."""
    server = sys.modules.get("server")
    return getattr(getattr(server, "PromptServer", None), "instance", None)
