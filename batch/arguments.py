"""The command line of a batch."""

from __future__ import annotations

import argparse
import re
from decimal import Decimal, InvalidOperation

from ..oxen.choices import SendAs, WaitMode
from .walking import PATTERNS

PROG = "python -m kontext_bridge.batch"
_MOST_SHARDS = 100_000
_MOST_TRIES = 100


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=PROG,
        description="Edits a folder of pictures, or a list of edits. Stop it at any moment: the same command goes on "
        "where it was, and pays for nothing again.",
        epilog="Exit status: 0 all rows have their result, 3 some, 1 none; 2 a mistake in the command line; 130 "
        "stopped by Ctrl-C.",
    )
    made.add_argument("source", metavar="SOURCE", help="a folder of pictures; or a list, .csv or .jsonl, a row an edit")
    made.add_argument("--output", "-o", required=True, metavar="DIR", help="folder for the results and the report")
    _of_rows(made.add_argument_group("rows"))
    _of_makers(made.add_argument_group("who edits (Oxen.ai, unless told otherwise)"))
    _of_runs(made.add_argument_group("the run"))
    return made


def _of_rows(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--prompt", help="what to change, in every row that says nothing else")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="NAME=VALUE",
        help="an input of the edit for every row that says nothing else, as steps=20; with --workflow "
        "NODE.INPUT=VALUE. May be repeated",
    )
    group.add_argument(
        "--pattern",
        action="append",
        default=[],
        metavar="GLOB",
        help=f"which files of a folder (default: {' '.join(PATTERNS)}). May be repeated",
    )
    group.add_argument("--flat", action="store_true", help="leave out the folders in a folder")
    group.add_argument(
        "--images", metavar="DIR", help="where a list's pictures lie, none outside of it (default: beside the list)"
    )
    group.add_argument("--whole-names", action="store_true", help="call the result of a.jpg a.jpg.png, not a.png")
    group.add_argument("--shard", type=_shard, default=(1, 1), metavar="K/N", help="only the K-th of N parts, from 1")


def _of_makers(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--local", metavar="MODEL", help="FLUX.1 Kontext on this machine: a .safetensors file or a folder"
    )
    group.add_argument("--text-encoders", metavar="DIR", help="with --local, as for kontext_bridge.edit")
    group.add_argument("--vae", metavar="FILE", help="with --local: ae.safetensors, or a diffusers folder")
    group.add_argument("--lora", action="append", default=[], metavar="FILE[=STRENGTH]", help="with --local or --demo")
    group.add_argument("--device", help="with --local or --demo: cuda, cuda:1, cpu ...")
    group.add_argument("--demo", action="store_true", help="the small demo model that comes with the pack; no Kontext")
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread the work over the Ray cluster at this address, or, with local, over one of this machine's own",
    )
    group.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="with --ray and --local or --demo: how many models work at once (default: one a GPU; without GPUs one a "
        "machine)",
    )
    group.add_argument("--workflow", metavar="FILE.json", help="any workflow of this pack, exported in API format")
    group.add_argument(
        "--map",
        action="append",
        default=[],
        dest="mapping",
        metavar="COLUMN=NODE.INPUT",
        help="with --workflow: which input gets a column's value, as image=1.image. May be repeated, for one column, "
        "too",
    )


def _of_runs(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dry-run", action="store_true", help="tell rows, what is there already and the price, and stop"
    )
    group.add_argument(
        "--usd", type=_dollars, metavar="N", help="what the whole batch may cost; stops before passing it"
    )
    group.add_argument("--timeout", type=_seconds, default=300.0, metavar="S", help="patience for one edit (300)")
    group.add_argument(
        "--wait",
        choices=[one.value for one in WaitMode],
        default=WaitMode.EVENTS.value,
        help="how to learn that an edit at Oxen.ai is finished (default: %(default)s)",
    )
    group.add_argument(
        "--send-as",
        choices=[one.value for one in SendAs],
        default=SendAs.AUTO.value,
        help="how a picture travels: inside the request (default), or uploaded to Oxen.ai first",
    )
    group.add_argument(
        "--flag",
        action="append",
        default=[],
        dest="flags",
        metavar="MEASURE>N",
        help="mark rows in the report: changed_area, shift (pixels) or outside (the rest's difference). May be "
        "repeated",
    )
    group.add_argument(
        "--rerun-flagged",
        nargs="?",
        type=_tries,
        const=1,
        default=0,
        metavar="N",
        help="make rows that a --flag marks again with another seed, N of them at most (1), and pay for each; the "
        "result before lies beside, called by its seed",
    )
    group.add_argument("--retry-failed", action="store_true", help="try rows again that failed at the service, and pay")
    group.add_argument(
        "--pay-for-lost",
        action="store_true",
        help="pay anew for rows of which a former run said that they may have been paid for and cannot be had",
    )
    group.add_argument("--replace", action="store_true", help="write over results of other requests in DIR")


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= _MOST_SHARDS:
        raise argparse.ArgumentTypeError(f"{text!r} is no part of several; write 3/16 for the third of sixteen")
    return int(found[1]), int(found[2])


def _tries(text: str) -> int:
    if not re.fullmatch(r"\d{1,3}", text) or not 1 <= int(text) <= _MOST_TRIES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of seeds to try, from 1 to {_MOST_TRIES}; as --rerun-flagged 2"
        )
    return int(text)


def _workers(text: str) -> int:
    if re.fullmatch(r"\d{1,5}", text) is None or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of workers, from 1")
    return int(text)


def _dollars(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 <= amount <= 1_000_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount in US dollars, such as 2.50")
    return amount


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not 1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no patience in seconds, from 1 to 86400")
    return seconds
