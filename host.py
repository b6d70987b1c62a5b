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

from . import turns
from .oxen.errors import Misconfigured

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
_local_element: contextvars.ContextVar[int | None] = contextvars.ContextVar("element", default=None)


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


def blocked(message: str | None) -> Any:
    """What a node gives for an output that it has no value for: nodes that use it do not run, the artist reads why.

    None says nothing, where another says it already.
    """
    if _server() is None:
        return Blocked(message)
    return sys.modules["comfy_execution.graph_utils"].ExecutionBlocker(message)


def user_folder() -> Path:
    """The pack's private folder: ComfyUI's system user folder, which no HTTP route serves.

    KONTEXT_BRIDGE_HOME overrides it. Made on first use, for its owner alone. Raises Misconfigured where it cannot be.
    """
    try:
        folder = _place_of_user_folder()
    except RuntimeError as error:  # a user who has no home
        raise Misconfigured(
            f"There is no folder for the ledger of edits: {error} Nothing was sent. Name one with the environment "
            f"variable {HOME_VARIABLE}."
        ) from None
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Misconfigured(
            f"The folder {folder} for the ledger of edits cannot be made: {error}. Nothing was sent. Name another, on "
            f"a local disk that this user can write, with the environment variable {HOME_VARIABLE}."
        ) from None
    return folder


def _place_of_user_folder() -> Path:
    override = os.environ.get(HOME_VARIABLE, "").strip()
    if override:
        return Path(override).expanduser()
    if _server() is not None:
        return Path(sys.modules["folder_paths"].get_system_user_directory(FOLDER_NAME))
    data = os.environ.get("XDG_DATA_HOME", "").strip()
    return (Path(data) if data else Path.home() / ".local" / "share") / "kontext-bridge"


def run_id() -> str:
    """A name for the run of the whole graph: ComfyUI's prompt id, else one name for this process."""
    context = _context()
    return str(context.prompt_id) if context is not None else _process_run


def element() -> int | None:
    """Which element of a list the node is being run for, counted from 0; None where nobody tells."""
    context = _context()
    if context is not None and context.list_index is not None:
        return int(context.list_index)
    return _local_element.get()


def set_local_element(index: int) -> None:
    """What `element` says in this context while there is no ComfyUI."""
    _local_element.set(index)


def is_interruption(error: BaseException) -> bool:
    """Whether an error stands for Cancel, or for a run that is given up."""
    management = sys.modules.get("comfy.model_management")
    cancelled = (LocalInterruption, asyncio.CancelledError)
    return isinstance(error, cancelled if management is None else (*cancelled, management.InterruptProcessingException))


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


class NoThread(Exception):
    """The system gives no thread for the work, which was not begun."""

    __module__ = "kontext_bridge"


async def run_off_loop(
    work: Callable[[], T],
    control: Stoppable,
    *,
    status: Status | None = None,
    node_id: str | None = None,
    load: int = 1,
    is_last: Callable[[], bool] = lambda: True,
) -> T:
    """Run blocking `work` on a thread of its own, when its turn has come, and show its `status` until it ends.

    load: how many things the work does at once, for `turns`. is_last: asked at the end, whether all else that `status`
    tells of has ended, so that the bar is full.
    Cancel interrupts `control` and ends this call within a second, whether or not `work` is through with its
    cleaning up by then. When ComfyUI drops the node for another reason, `control` is only detached.
    Raises NoThread, and what `work` raises.
    """
    with _watch(control) as stop:
        try:
            async with turns.of_this_loop().turn(_who(node_id), load, stop.pressed):
                if stop.is_set:
                    raise interruption()
                outcome = _start(work)
                await _follow(outcome, stop, status, node_id)
        except asyncio.CancelledError:
            if not stop.is_set:
                control.detach()
            raise
    if status is not None:
        whole = outcome.exception() is None and is_last()
        await show(node_id, 1.0 if whole else min(status.fraction, 0.99), status.text)
    return outcome.result()


def _who(node_id: str | None) -> str | None:
    """The node that work is for, by its id in the graph."""
    context = _context()
    return str(context.node_id) if node_id is None and context is not None else node_id


async def _follow(outcome: asyncio.Future[T], stop: _Stop, status: Status | None, node_id: str | None) -> None:
    """Wait for an outcome and show how far it is; raises what stands for Cancel soon after it was pressed."""
    shown = (-1.0, "")
    events: set[asyncio.Future[Any]] = {outcome, stop.pressed}
    while not outcome.done():
        if status is not None:
            now = (min(status.fraction, 0.99), status.text)
            if now != shown:
                await show(node_id, *now)
                shown = now
        if stop.is_set:
            await asyncio.wait({outcome}, timeout=_GRACE)
            break
        await asyncio.wait(events, timeout=_TICK, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set:
        raise interruption()


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
    _start_thread(call, "kontext-bridge run")
    return outcome


def _start_thread(target: Callable[[], None], name: str) -> None:
    try:
        threading.Thread(target=target, name=name, daemon=True).start()
    except RuntimeError:
        raise NoThread(
            "The system gives ComfyUI no further thread, so nothing was sent. Close what else is running, or restart "
            "ComfyUI, then run again."
        ) from None


class _Stop:
    """Whether Cancel was pressed, for a thread and for an event loop; the loop is woken by `pressed`."""

    def __init__(self, control: Stoppable) -> None:
        self.is_set = False
        self._control = control
        self._loop = asyncio.get_running_loop()
        self.pressed: asyncio.Future[None] = self._loop.create_future()

    def press(self) -> None:
        """Stop the work and wake whoever waits for it; from any thread, and as often as it comes."""
        self._control.interrupt()
        if not self.is_set:
            self.is_set = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self.pressed.done():
            self.pressed.set_result(None)


_watched: set[_Stop] = set()
_watch_guard = threading.Lock()


@contextlib.contextmanager
def _watch(control: Stoppable) -> Iterator[_Stop]:
    """Interrupt `control` as soon as Cancel is pressed, also while other nodes block the event loop.

    One thread looks for all nodes at once: ComfyUI clears its flag when the first node has raised, and the
    others would never learn of it.
    """
    stop = _Stop(control)
    with _watch_guard:
        first = not _watched
        if first:
            _start_thread(_look_out, "kontext-bridge watch")
        _watched.add(stop)
    try:
        yield stop
    finally:
        with _watch_guard:
            _watched.discard(stop)


def _look_out() -> None:
    pause = threading.Event()
    while True:
        with _watch_guard:
            if not _watched:
                return
            if interrupted():
                for stop in _watched:
                    stop.press()
        pause.wait(_WATCH_TICK)


def _context() -> Any:
    """What ComfyUI is executing: prompt id, node id and element of a list; None off ComfyUI."""
    utils = sys.modules.get("comfy_execution.utils")
    return utils.get_executing_context() if utils is not None else None


def _server() -> Any:
    """ComfyUI's server, None off ComfyUI."""
    server = sys.modules.get("server")
    return getattr(getattr(server, "PromptServer", None), "instance", None)
