"""Keeps of an edit only what it changed, without ComfyUI: python -m kontext_bridge.keep SOURCE EDITED -o OUT"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import torch

from .commands.console import open_console, parsed, say, tell
from .commands.named import WrongName, in_words, path_of, shown, source, target
from .commands.written import write_whole
from .imaging.codec import decode, encode, to_tensors
from .imaging.errors import ImageError, ImageTooLarge
from .imaging.formats import ImageFormat
from .imaging.keep.engine import Options
from .imaging.keep.pairs import keep_batch
from .imaging.keep.scope import Scope
from .imaging.pixels import to_uint8, with_alpha

_FORMATS = {
    ".png": ImageFormat.PNG,
    ".webp": ImageFormat.WEBP_LOSSLESS,
    ".jpg": ImageFormat.JPEG,
    ".jpeg": ImageFormat.JPEG,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; gives its exit status, 1 with a line on stderr for anything the user can mend."""
    open_console()
    options = parsed(_parser(), arguments)
    try:
        _check(options)
        _keep(options)
    except OSError as error:
        say(in_words(error), sys.stderr)
        return 1
    except (ImageError, WrongName) as error:
        say(str(error), sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kontext_bridge.keep", description=__doc__)
    parser.add_argument("source", help="the picture before the edit")
    parser.add_argument("edited", help="the edit of it, at any size")
    parser.add_argument("-o", "--out", required=True, help=f"where to write: {', '.join(_FORMATS)}")
    parser.add_argument("--mask", help="white where the change may be, black where nothing may change")
    parser.add_argument("--mask-out", metavar="FILE", help="where to write what was taken from the edit")
    parser.add_argument("--info", metavar="FILE", help="where to write what was found, as JSON")
    parser.add_argument("--change", choices=[one.value for one in Scope], default="auto", help="default: auto")
    parser.add_argument("--strength", type=float, default=1.0, help="of the colour correction, 0 to 1 (default: 1)")
    parser.add_argument("--feather", type=int, default=4, help="pixels of the edit to fade over (default: 4)")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Make paths of the options; raises WrongName or ImageError for what can be known to be wrong before any work."""
    written = {"--out": options.out, "--mask-out": options.mask_out, "--info": options.info}
    paths = {name: path_of(text, name) for name, text in written.items() if text is not None}
    for name, path in paths.items():
        if name != "--info" and path.suffix.lower() not in _FORMATS:
            raise ImageError(f"{shown(path)} must end in {', '.join(_FORMATS)}.")
    options.source, options.edited = source(options.source, "SOURCE"), source(options.edited, "EDITED")
    options.mask = None if options.mask is None else source(options.mask, "--mask")
    for name, path in paths.items():
        target(str(path), name)
    read = {"SOURCE": options.source, "EDITED": options.edited, "--mask": options.mask}
    for name, path in paths.items():
        for what, given in read.items():
            if given is not None and path.exists() and path.samefile(given):
                raise WrongName(f"{shown(path)}, which {name} names, is {what}, which would be lost. Name another.")
    if len({os.path.realpath(path) for path in paths.values()}) < len(paths):
        raise WrongName(f"Two of {', '.join(paths)} name the same file. Name one for each.")
    options.out, options.mask_out, options.info = (paths.get(name) for name in written)


def _keep(options: argparse.Namespace) -> None:
    if not 0 <= options.strength <= 1 or options.feather < 0:
        raise ImageError("The strength must be from 0 to 1 and the feather not negative.")
    mask = None if options.mask is None else _read(options.mask)[..., :3].mean(-1)
    chosen = Options(Scope(options.change), options.strength, options.feather)
    kept = keep_batch(_read(options.source), _read(options.edited), mask, chosen)
    _write(kept.images[0], options.out)
    if options.mask_out is not None:
        _write(kept.masks[0].unsqueeze(-1), options.mask_out)
    report = kept.reports[0]
    if options.info is not None:
        write_whole(options.info, json.dumps(report.numbers(), indent=2).encode())
    tell(report.line)


def _read(path: Path) -> torch.Tensor:
    """IMAGE [1,H,W,C], with its alpha where it has one; raises ImageError."""
    try:
        stacked = to_tensors([decode(path.read_bytes())])
    except ImageTooLarge as error:
        raise ImageTooLarge(f"{path.name}: {error} Scale it down first.") from None
    except ImageError as error:
        raise ImageError(f"{path.name}: {error}") from None
    return with_alpha(stacked.image, stacked.mask)


def _write(picture: torch.Tensor, path: Path) -> None:
    write_whole(path, encode(to_uint8(picture), format=_FORMATS[path.suffix.lower()]).data)


if __name__ == "__main__":
    raise SystemExit(main())
