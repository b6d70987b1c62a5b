"""Brings a model of Oxen.ai to Edit Picture that this version does not know: python -m kontext_bridge.models update ID

What Oxen.ai says of the model is written into the user folder, and offered after the next start of ComfyUI.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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
from .oxen.credentials import Account, find_base_url
from .oxen.errors import OxenError

_LONGEST_NAME = 100


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; gives its exit status, 1 with a line on stderr for anything the user can mend."""
    open_console()
    options = parsed(_parser(), arguments)
    try:
        folder = Path(options.folder or host.user_folder()) / FOLDER
        for name in options.id:
            _update(name, folder)
    except OSError as error:
        say(in_words(error), sys.stderr)
        return 1
    except (OxenError, BadSpec) as error:
        say(str(error), sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kontext_bridge.models", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="update")
    update = commands.add_parser("update", help="fetch what Oxen.ai says of a model; needs no key, costs nothing")
    update.add_argument("id", nargs="+", help="the model's id at Oxen.ai")
    update.add_argument(
        "--folder",
        help="the pack's user folder: of ComfyUI, its user/__kontext_bridge (default: the one that is used here)",
    )
    return parser


def _update(name: str, folder: Path) -> None:
    client = Client(Account(find_base_url(), None))
    try:
        model = client.model(name)
    finally:
        client.close()
    if model.id in bundled():
        found = disagreements(bundled()[model.id], model)
        tell("\n".join([f"{model.id} is in this version.", *(found or ["Oxen.ai says the same of it."])]))
        return
    said = file_of(model)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / _file_name(model.id)
    write_whole(path, (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode())
    mask = " It takes a mask, but which part of it is changed is told nowhere: none is sent." if "mask" in said else ""
    tell(f"{path} is written. {model.name} is in the list of Edit Picture after the next start of ComfyUI.{mask}")


def _file_name(id: str) -> str:
    """A file's name on every system, that no other model's file has: the service may call its models anything."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", id)[:_LONGEST_NAME]
    told = plain if plain == id else f"{plain}-{hashlib.sha256(id.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"
    return f"{told}.json"


if __name__ == "__main__":
    sys.exit(main())
