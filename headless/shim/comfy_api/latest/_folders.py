"""Where pictures are written: the little of ComfyUI's `folder_paths` that saving one needs."""

from __future__ import annotations

import os
import time
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Folders:
    """The folders of one run."""

    output: Path
    temp: Path


current: ContextVar[Folders] = ContextVar("current")


@dataclass(frozen=True)
class Place:
    """Where the next picture of a prefix goes: `folder / f"{name}_{counter:05}_.png"`."""

    folder: Path
    subfolder: str
    name: str
    counter: int


def next_place(prefix: str, root: Path, width: int, height: int) -> Place:
    """The first free number for `prefix` under `root`, as ComfyUI counts: one above the highest there.

    `prefix` may name a subfolder, and %width%, %height%, %year%, %month%, %day%, %hour%, %minute%,
    %second%. The folder is made. Raises ValueError where the prefix leads outside `root`.
    """
    prefix = os.path.normpath(_filled(prefix, width, height))
    subfolder, name = os.path.split(prefix)
    folder = root / subfolder
    if not folder.resolve().is_relative_to(root.resolve()):
        raise ValueError(f'The file name prefix "{prefix}" leads outside the output folder {root}.')
    folder.mkdir(parents=True, exist_ok=True)
    return Place(folder, subfolder, name, 1 + max(map(_number_after(name), folder.iterdir()), default=0))


def _filled(prefix: str, width: int, height: int) -> str:
    stamp = zip(
        ("year", "month", "day", "hour", "minute", "second"),
        time.strftime("%Y %m %d %H %M %S").split(),
        strict=True,
    )
    for key, value in (("width", str(width)), ("height", str(height)), *stamp):
        prefix = prefix.replace(f"%{key}%", value)
    return prefix


class _number_after:
    def __init__(self, name: str) -> None:
        self._start = f"{name}_"

    def __call__(self, path: Path) -> int:
        if not path.name.startswith(self._start):
            return 0
        digits = path.name[len(self._start) :].split(".")[0].split("_")[0]
        return int(digits) if digits.isdecimal() else 0
