"""The running ComfyUI, as far as the rooms need it: progress, interruption, folders, the run's name.

Off ComfyUI all of it degrades: progress goes to the reporter that `set_local` names, or to the log; interruption is
what `request_interrupt` says; the user folder is one in the home directory.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

logger = logging.getLogger(__name__)

FOLDER_NAME = "kontext_bridge"
HOME_VARIABLE = "KONTEXT_BRIDGE_HOME"
_process_run = uuid.uuid4().hex


class Reporter(Protocol):
    """Where progress goes off ComfyUI; both may be called from any thread."""

    def progress(self, node_id: str, value: float, total: float) -> None: ...

    def text(self, node_id: str, text: str) -> None: ...


class NoFolder(OSError):
    """There is no folder for the pack's own files, and none can be made."""

    __module__ = "kontext_bridge"


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


def check() -> None:
    """Raise what stands for Cancel where the artist has asked the current run to stop."""
    if interrupted():
        raise interruption()


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


def user_folder(*, make: bool = True) -> Path:
    """The pack's private folder: ComfyUI's system user folder, which no HTTP route serves.

    KONTEXT_BRIDGE_HOME overrides it. Made on first use, for its owner alone. Raises NoFolder where it cannot be.
    make: False where it is only to be looked into.
    """
    try:
        folder = _place_of_user_folder()
    except RuntimeError as error:  # a user who has no home
        raise NoFolder(
            f"There is no folder for the ledger of edits: {error} Nothing was sent. Name one with the environment "
            f"variable {HOME_VARIABLE}."
        ) from None
    if not make:
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise NoFolder(
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


def model_folder(kind: str) -> Path | None:
    """Where new model files of a kind, for example "loras", belong; None off ComfyUI."""
    folders = sys.modules.get("folder_paths")
    found = [] if folders is None else folders.get_folder_paths(kind)
    return Path(found[0]) if found else None


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


def executing_node() -> str | None:
    """The id in the graph of the node that is being run; None where nobody tells."""
    context = _context()
    return None if context is None else str(context.node_id)


def graph() -> dict[str, Any] | None:
    """The workflow that is being executed, as the page that queued it would save it; None where nobody sent one."""
    context = _context()
    queue = getattr(_server(), "prompt_queue", None)
    if context is None or queue is None:
        return None
    running, _ = queue.get_current_queue_volatile()
    for item in running:  # (number, prompt id, prompt, what came with it, …)
        if str(item[1]) == str(context.prompt_id):
            sent = item[3].get("extra_pnginfo") if isinstance(item[3], dict) else None
            workflow = sent.get("workflow") if isinstance(sent, dict) else None
            return workflow if isinstance(workflow, dict) else None
    return None


def bar(total: int) -> Callable[[int], None]:
    """Moves the bar of the node that is being run, by telling how many of `total` steps are done; off ComfyUI nothing.

    For work that blocks ComfyUI's own thread; what runs beside the event loop has `show`.
    """
    utils = sys.modules.get("comfy.utils")
    if utils is None:
        return lambda _: None
    moved: Callable[[int], None] = utils.ProgressBar(total).update_absolute
    return moved


async def move_bar(node_id: str | None, fraction: float) -> None:
    """Move a node's bar to `fraction` (0 to 1)."""
    if node_id is None:
        return
    if _server() is not None:
        api: Any = sys.modules["comfy_api.latest"]
        await api.ComfyAPI().execution.set_progress(value=fraction * 100.0, max_value=100.0, node_id=node_id)
    elif _reporter is not None:
        _reporter.progress(node_id, fraction * 100.0, 100.0)


def client() -> Any:
    """Whom ComfyUI tells of the run that it executes; None off ComfyUI, and where it tells everybody."""
    return getattr(_server(), "client_id", None)


def tell(event: str, node_id: str, text: str, run: str, to: Any) -> None:
    """Tell ComfyUI's front ends a line of text of a node, from any thread; off ComfyUI the reporter, or the log."""
    server = _server()
    if server is not None:
        server.send_sync(event, {"node": node_id, "text": text, "prompt_id": run}, to)
    elif _reporter is not None:
        _reporter.text(node_id, text)
    else:
        logger.debug("%s: %s", node_id, text)


def route_table() -> Any:
    """What ComfyUI will serve once all packs are loaded, as aiohttp's RouteTableDef; None off ComfyUI."""
    return getattr(_server(), "routes", None)


def several_users() -> bool:
    """Whether ComfyUI keeps its users apart (--multi-user), so that what one sets is not for the others."""
    arguments = getattr(sys.modules.get("comfy.cli_args"), "args", None)
    return bool(getattr(arguments, "multi_user", False))


def _context() -> Any:
    """What ComfyUI is executing: prompt id, node id and element of a list; None off ComfyUI."""
    utils = sys.modules.get("comfy_execution.utils")
    return utils.get_executing_context() if utils is not None else None


def _server() -> Any:
    """ComfyUI's server, None off ComfyUI."""
    server = sys.modules.get("server")
    return getattr(getattr(server, "PromptServer", None), "instance", None)
