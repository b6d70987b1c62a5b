"""Brings models of Oxen.ai here: python -m kontext_bridge.models update ID, or fetch ID --to FOLDER

update: what Oxen.ai says of a model that this version does not know is written into the user folder, and offered by
Edit Picture after the next start of ComfyUI. fetch: the LoRA of a finished fine-tune of your own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from pathlib import Path

from . import host
from .commands.console import open_console, parsed, say, tell
from .commands.named import in_words
from .commands.written import write_whole
from .oxen.api.client import Client
from .oxen.api.models import FOLDER, bundled
from .oxen.api.models.from_schema import disagreements, file_of
from .oxen.api.models.spec_files import BadSpec
from .oxen.control import Control
from .oxen.credentials import Account, find_account, find_base_url
from .oxen.errors import OxenError
from .oxen.http.fetch import Fetcher
from .oxen.jobs.weights import NotWeights, bring, weights_of

_LONGEST_NAME = 100


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; gives its exit status, 1 with a line on stderr for anything the user can mend."""
    open_console()
    options = parsed(_parser(), arguments)
    try:
        home = Path(options.folder or host.user_folder())
        for name in options.id:
            options.does(name, home, options)
    except OSError as error:
        say(in_words(error), sys.stderr)
        return 1
    except (OxenError, BadSpec, NotWeights) as error:
        say(str(error), sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kontext_bridge.models",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="update|fetch")
    update = commands.add_parser("update", help="fetch what Oxen.ai says of a model; needs no key, costs nothing")
    update.add_argument("id", nargs="+", help="the model's id at Oxen.ai")
    update.set_defaults(does=_update)
    fetch = commands.add_parser("fetch", help="bring the LoRA of a fine-tune of your own; needs the key, costs nothing")
    fetch.add_argument("id", nargs="+", help="the model's or the fine-tune's id, or NAMESPACE/REPOSITORY/NAME")
    fetch.add_argument("--to", required=True, metavar="FOLDER", help="where it goes: ComfyUI's models/loras")
    fetch.set_defaults(does=_fetch)
    for command in (update, fetch):
        command.add_argument(
            "--folder",
            help="the pack's folder; ComfyUI's is its user/__kontext_bridge (default: that of runs without ComfyUI)",
        )
    return parser


def _fetch(name: str, home: Path, options: argparse.Namespace) -> None:
    from .kontext.checkpoint.lora_file import remark_on  # loads torch
    from .kontext.errors import KontextError

    def check(path: Path) -> None:
        try:
            remark_on(path)
        except KontextError as error:
            raise NotWeights(str(error).replace(path.name, "What came")) from None

    control, account = Control(), find_account(home)
    client, fetcher = Client(account, control), Fetcher(control, account=account)
    try:
        brought = bring(client, fetcher, weights_of(client, name), Path(options.to), check)
    finally:
        fetcher.close()
        client.close()
    came = f"came, {brought.size / 2**20:.1f} MB" if brought.is_new else "was there already"
    tell(" ".join(filter(None, (f"{brought.path} {came}.", remark_on(brought.path)))))


def _update(name: str, home: Path, options: argparse.Namespace) -> None:
    client = Client(Account(find_base_url(), None))
    try:
        model = client.model(name)
    finally:
        client.close()
    if model.id in bundled():
        found = disagreements(bundled()[model.id], model)
        tell("\n".join([f"{model.id} is in this version.", *(found or ["Oxen.ai says the same of it."])]))
        return
    said, folder = file_of(model), home / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / _file_name(model.id)
    write_whole(path, (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode())
    mask = " It takes a mask, but which part of it is changed is told nowhere: none is sent." if "mask" in said else ""
    own = not options.folder and not os.environ.get(host.HOME_VARIABLE, "").strip()
    where = " That is the folder of runs without it: for ComfyUI name its user/__kontext_bridge with --folder."
    tell(
        f"{path} is written. {model.name} is in the list of Edit Picture after the next start of ComfyUI.{mask}"
        f"{where if own else ''}"
    )


def _file_name(id: str) -> str:
    """A file's name on every system, that no other model's file has: the service may call its models anything."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", id)[:_LONGEST_NAME]
    told = plain if plain == id else f"{plain}-{hashlib.sha256(id.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"
    return f"{told}.json"


if __name__ == "__main__":
    sys.exit(main())
