"""`python -m kontext_bridge.standin`: the stand-in by hand, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from ..commands.console import open_console, say, tell

try:
    from .faults import SPELLING, Faults, describe, parse
    from .painter import NoPainter, Painter
    from .records import Timing
    from .server import StandIn
except ModuleNotFoundError as missing:
    if missing.name == "aiohttp":
        sys.exit("The stand-in needs the Python package aiohttp: python -m pip install 'aiohttp>=3.9'")
    if not (missing.name or "").startswith(__package__ or "."):
        raise
    sys.exit(
        "The stand-in is not in the archive that the registry gives out; it is in a checkout: git clone "
        "https://github.com/kontext-bridge/kontext-bridge"
    )

_KEY = "standin-key"


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Exit status 0, 1 where nothing can be painted, 2 for a wrong command line."""
    open_console()
    options = _options(argv)
    if options.list_faults:
        width = max(map(len, describe()))
        return 0 if tell("\n".join(f"{name:{width}}  {does}" for name, does in describe().items())) else 1
    timing = Timing(options.queued, options.processing, options.keepalive, options.result_ttl)
    stop, dump = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, lambda *_: dump.set())
    faults = Faults(**dict(options.fault))
    try:
        paint = Painter() if options.paint else None
    except NoPainter as why:
        say(f"Nothing can be painted. {why}", sys.stderr)
        return 1
    does = (
        "the small demo model paints, and the picture is labelled" if paint else "it only tints and labels the picture"
    )
    with StandIn(faults, timing, options.key, port=options.port, paint=paint) as server:
        shown = _KEY if options.key == _KEY else "'the --key given'"
        tell(
            f"Stand-in for Oxen.ai at {server.url} (not Kontext: {does})\n"
            f"export OXEN_BASE_URL={server.url}\n"
            f"export OXEN_API_KEY={shown}"
        )
        while not stop.wait(0.05):
            if options.state and dump.is_set():
                dump.clear()
                server.write_state(options.state)
        if options.state:
            server.write_state(options.state)
    return 0


def _fault(text: str) -> tuple[str, object]:
    try:
        return parse(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from e


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m kontext_bridge.standin",
        description="A stand-in for Oxen.ai on this machine, faults included. Its pictures are not Kontext's and cost "
        "nothing. It prints the two variables that lead ComfyUI or a command here, and runs until Ctrl-C.",
    )
    usual = "(default: %(default)s)"
    parser.add_argument("--port", type=int, default=0, help="where it listens (default: a free one)")
    parser.add_argument("--key", default=_KEY, help=f"the only key it knows {usual}")
    parser.add_argument("--queued", type=float, default=Timing.queued_s, help=f"seconds a job is queued {usual}")
    parser.add_argument("--processing", type=float, default=Timing.processing_s, help=f"seconds it then takes {usual}")
    parser.add_argument(
        "--keepalive", type=float, default=Timing.keepalive_s, help=f"seconds between keep-alives {usual}"
    )
    parser.add_argument(
        "--result-ttl", type=float, default=Timing.result_ttl_s, help=f"seconds a result URL lives {usual}"
    )
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar=SPELLING,
        help="turn a switch on, one of --list-faults; at that route instead of its own, for TIMES uses after the first "
        "AFTER. May be repeated",
    )
    parser.add_argument(
        "--paint",
        action="store_true",
        help="let the demo model make the edits, some seconds each on a CPU; without it they are tinted. Needs torch "
        "and diffusers",
    )
    parser.add_argument("--list-faults", action="store_true", help="say what each switch does, and stop")
    parser.add_argument("--state", type=Path, help="write counts here as JSON on exit and on SIGUSR1")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
