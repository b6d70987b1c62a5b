"""`make demo`: one edit, made remotely and on this machine, told step by step.

Remotely through submit, events and collect: at Oxen.ai where OXEN_API_KEY is set, which costs what Oxen.ai asks for one
picture; otherwise against the stand-in, whose pictures are not Kontext's. On this machine with the demo model that
comes with the pack, which is no Kontext either.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import host
from ..commands.console import open_console, say, tell
from ..nodes.sessions import home
from ..oxen.credentials import BASE_VARIABLE, KEY_VARIABLE, find_account
from ..oxen.errors import OxenError
from . import ensure_comfy_api

PACK = Path(__file__).resolve().parent.parent
PICTURES = PACK / "example_workflows"
WORKFLOW = PICTURES / "api" / "submit_and_collect.json"
OUTPUT = Path("out") / "demo"


def main() -> int:
    """The exit status: 0, or 1 with the reason on stderr."""
    open_console()
    ensure_comfy_api()
    if taken := next((place for place in (OUTPUT.parent, OUTPUT) if place.exists() and not place.is_dir()), None):
        say(f"The pictures go to {OUTPUT}, and {taken} is no folder: rename it. Nothing was run.", sys.stderr)
        return 1
    try:
        with _service() as (by, told):
            _step(1, told)
            return _edit(by)
    except OxenError as error:
        say(str(error), sys.stderr)
        return 1


def _edit(by: str) -> int:
    """by: who edits remotely, in a word or two."""
    from .__main__ import pack_nodes, run_shown
    from .folders import RunFolders
    from .graph import WorkflowError, read_workflow
    from .run import NodeFailed, RunInterrupted

    workflow = read_workflow(WORKFLOW)
    nodes = {node.class_type: node for node in workflow.nodes.values()}
    picture = PICTURES / nodes["LoadImage"].inputs["image"]
    submit = nodes["KontextSubmit"].inputs
    _step(2, f"Picture: {_shown(picture.resolve())}")
    _step(
        3,
        f"Prompt: “{submit['prompt']}”, {submit['steps']} steps, guidance {submit['guidance']}, seed {submit['seed']}",
    )
    _step(4, "Submit to the queue, listen for the event, collect:")
    folders = RunFolders(source=PICTURES, output=OUTPUT.resolve())
    try:
        result = run_shown(workflow, asyncio.run(pack_nodes()), folders, sys.stdout)
    except (WorkflowError, NodeFailed, RunInterrupted) as error:
        say(str(error), sys.stderr)
        return 1
    told = {node.class_type: node for node in result.nodes.values()}
    (edit,) = json.loads(told["KontextCollect"].texts["info"])["edits"]
    _step(5, f"Generation {edit['generation_id']}, {edit['how']}, {edit['size_returned']}, seed {edit['seed']}")
    status, local = _edit_here(picture, submit)
    _step(7, "Pictures:")
    tell(f"   before: {_shown(picture.resolve())}")
    for path in (file for node in result.nodes.values() for file in node.files):
        tell(f"   {by}: {_shown(path)}")
    if local is not None:
        tell(f"   the demo model, on this machine: {_shown(local)}")
    return status


def _edit_here(picture: Path, asked: Mapping[str, Any]) -> tuple[int, Path | None]:
    """The same edit by the demo model: the exit status, and the picture where one was made."""
    from ..edit import main as edit
    from ..edit import why_no_demo

    if (why := why_no_demo()) is not None:
        _step(6, f"No edit on this machine. {why}")
        return 0, None
    _step(
        6,
        "The same picture and prompt on this machine, with the demo model. It was taught on small drawn scenes and is "
        "not Kontext; its picture is scaled up:",
    )
    out = OUTPUT.resolve() / "demo_model.png"
    words = [str(picture), str(asked["prompt"]), "-o", str(out), "--demo"]
    for name in ("steps", "guidance", "seed"):
        words += [f"--{name}", str(asked[name])]
    status = edit(words)
    return status, None if status else out


@contextlib.contextmanager
def _service() -> Iterator[tuple[str, str]]:
    """The service to talk to: its name, and a sentence that says which."""
    if os.environ.get(KEY_VARIABLE, "").strip():
        account = find_account(home())
        yield (
            "Kontext at the service",
            f"Service: {account.base_url} with the key in {KEY_VARIABLE}. This edit is real and paid for, once.",
        )
        return
    try:
        from ..standin.painter import NoPainter, Painter
        from ..standin.records import Timing
        from ..standin.server import StandIn
    except ModuleNotFoundError as missing:
        raise SystemExit(
            f"Without {KEY_VARIABLE} this needs the stand-in, and {missing.name} is not installed. The stand-in is in "
            "a checkout (git clone https://github.com/kontext-bridge/kontext-bridge), where make demo sets all up."
        ) from missing

    paint: Painter | None = None
    try:
        paint, painted = Painter(), "are painted by the demo model."
    except NoPainter as why:
        painted = f"are only tinted, as there is no demo model. {why}"
    with StandIn(timing=Timing(queued_s=0.5, processing_s=3.0), paint=paint) as standin:
        os.environ.update({BASE_VARIABLE: standin.url, KEY_VARIABLE: standin.key})
        os.environ[host.HOME_VARIABLE] = str(OUTPUT.resolve() / "home")
        yield (
            f"the stand-in{' with the demo model' if paint else ''}, not Kontext",
            f"Service: the stand-in at {standin.url}, as {KEY_VARIABLE} is not set. It speaks like Oxen.ai; its "
            f"pictures are not Kontext's, and say so; they {painted}",
        )


def _step(number: int, text: str) -> None:
    tell(f"{number}. {text}")


def _shown(path: Path) -> str:
    try:
        return os.path.relpath(path)
    except ValueError:  # on another drive of Windows
        return str(path)


if __name__ == "__main__":
    sys.exit(main())
