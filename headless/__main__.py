"""Runs a workflow from the command line, or prints what ComfyUI would say of the pack's nodes."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from .. import comfy_entrypoint, host
from ..commands.console import open_console, parsed, say, tell, typed
from ..commands.named import WrongName, path_of, source
from .changes import SettingError, apply_setting
from .folders import RunFolders
from .graph import Problem, Workflow, WorkflowError, read_workflow
from .outputs import RunResult
from .run import NodeFailed, RunInterrupted, node_table, run_workflow
from .told import TerminalReport

if TYPE_CHECKING:
    from comfy_api.latest import io

# The folder that ComfyUI's manager installs the pack into.
PYTHON_MODULE = "custom_nodes.kontext-bridge"


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0, or 1 with the reason on stderr."""
    open_console()
    options = parsed(_parser(), arguments)
    logging.basicConfig(level=logging.WARNING)
    if options.debug:
        # The pack's own log only: other libraries write whole request lines at this level.
        logging.getLogger(__package__.partition(".")[0]).setLevel(logging.DEBUG)
    classes = asyncio.run(pack_nodes())
    if options.object_info:
        return 0 if tell(json.dumps(object_info(classes), indent=2)) else 1
    if options.workflow is None:
        _parser().error("name a workflow, or ask for --object-info")
    try:
        result = _run(options, classes)
    except (WorkflowError, WrongName, SettingError, NodeFailed, RunInterrupted) as error:
        if options.debug:
            say(traceback.format_exc(), sys.stderr)
        say(str(error), sys.stderr)
        return 1
    told = tell(json.dumps(_summary(result), indent=2) if options.json else _told(result))
    for id, message in result.blocked.items():
        say(f"Node {id} ({result.nodes[id].class_type}) stopped here: {message}", sys.stderr)
    return 1 if any(result.blocked.values()) or not told else 0


def object_info(classes: list[type[io.ComfyNode]]) -> dict[str, Any]:
    """What ComfyUI answers to GET /object_info, for these nodes."""
    info = {}
    for node_class in classes:
        node_class.RELATIVE_PYTHON_MODULE = PYTHON_MODULE
        info[node_class.GET_SCHEMA().node_id] = node_class.GET_NODE_INFO_V1()
    return info


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kontext_bridge.headless",
        description="Runs a workflow of this pack, exported from ComfyUI in API format, without ComfyUI.",
    )
    parser.add_argument("workflow", nargs="?", metavar="WORKFLOW.json")
    parser.add_argument("--output", default="output", help="folder for pictures (output)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        dest="settings",
        help="change an input; may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="print texts, files and seconds as JSON")
    parser.add_argument("--object-info", action="store_true", help="describe the pack's nodes and stop")
    parser.add_argument("--debug", action="store_true", help="log more, and show where an error came from")
    return parser


async def pack_nodes() -> list[type[io.ComfyNode]]:
    """The pack's node classes, loaded as ComfyUI loads them."""
    extension = await comfy_entrypoint()
    await extension.on_load()
    return await extension.get_node_list()


def _run(options: argparse.Namespace, classes: list[type[io.ComfyNode]]) -> RunResult:
    workflow = read_workflow(source(options.workflow, "WORKFLOW.json", pipes=True))
    output = path_of(options.output, "--output")
    for setting in options.settings:
        apply_setting(workflow, node_table(classes), typed(setting))
    folders = RunFolders(source=_whole(Path(options.workflow)).parent, output=_whole(output))
    return run_shown(workflow, classes, folders, sys.stderr)


def run_shown(
    workflow: Workflow, classes: list[type[io.ComfyNode]], folders: RunFolders, stream: TextIO | None
) -> RunResult:
    """Runs a workflow, says on `stream` how far it is, and cancels what it has sent when it is interrupted."""
    report = TerminalReport(stream)
    host.set_local(report)
    try:
        with _signals_call(host.request_interrupt):
            return run_workflow(workflow, classes, folders, report, host.interrupted)
    finally:
        report.close()


def _whole(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # the folder that this runs in was removed, or links lead in a circle
        raise WorkflowError(Problem("invalid_prompt", f"{path} leads nowhere: {error}. Nothing was sent.")) from None


@contextmanager
def _signals_call(interrupt: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM calls `interrupt`, so that nodes cancel their remote jobs; a second kills."""
    watched = (signal.SIGINT, signal.SIGTERM)

    def ask(_number: int, _frame: FrameType | None) -> None:
        for one in watched:
            signal.signal(one, signal.SIG_DFL)
        interrupt()

    before = {one: signal.signal(one, ask) for one in watched}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _summary(result: RunResult) -> dict[str, Any]:
    nodes = {
        id: {
            "class_type": node.class_type,
            "seconds": round(node.seconds, 3),
            "texts": node.texts,
            "ui_text": list(node.ui.get("text", ())),
            "files": [str(path) for path in node.files],
        }
        for id, node in result.nodes.items()
    }
    return {"nodes": nodes, "blocked": result.blocked, "seconds": round(result.seconds, 3)}


def _told(result: RunResult) -> str:
    """The saved files, one a line, and the texts of the nodes that show one."""
    lines = []
    for node in result.nodes.values():
        lines += [str(path) for path in node.files]
        lines += [str(text) for text in node.ui.get("text", ())]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
