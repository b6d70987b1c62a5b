"""What the source and the command line together ask for: of every row its values, its result's name, its digest."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..editing.values import Unfit
from ..editing.words import SEED
from ..oxen.errors import OxenError
from .columns import Columns
from .made import PlannedRow
from .naming import SUFFIX_OF, format_asked, inside, result_name
from .plan_tables import written
from .source_rows import RowError, SourceRow

_FORMAT = "output_format"
# As many as the service tells apart.
_SEEDS = 2**31


@dataclass(frozen=True)
class Asking:
    """What the command line says of every row.

    root: where the images' paths begin. by: who edits, as part of what is asked for: a result of another model is
    another result. whole: as in `result_name`. shard: (this one, of how many), from 1. folds: as in `key_of`.
    made_with: what tells the files that every row is made with, a model's for one, from others under the same names.
    """

    root: Path
    by: str
    columns: Columns
    defaults: Mapping[str, Any]
    whole: bool = False
    shard: tuple[int, int] = (1, 1)
    folds: bool = False
    made_with: str = ""


@dataclass(frozen=True)
class AskedRow:
    """A row of the source with all that it is edited with. given: its values as a text; size: of its picture's file;
    digest: of all of it, by which a result is known to be this row's; made_with: as in PlannedRow; mine: whether it is
    of this part."""

    row: SourceRow
    path: Path
    output: str
    given: str
    size: int
    problem: str | None
    digest: str
    made_with: str
    mine: bool


def asked_row(row: SourceRow, asking: Asking) -> AskedRow:
    """The row as it is asked for; what is wrong with it alone is its problem. Raises SourceError."""
    values = {**asking.defaults, **row.given}
    problem, path = row.problem, Path()
    by_name = format_asked(row)
    if by_name is not None and _FORMAT not in row.given:
        values[_FORMAT] = by_name
    size, made_with = -1, asking.made_with
    try:
        path = inside(asking.root, row.image)
        row = replace(row, image=os.path.relpath(path, asking.root).replace(os.sep, "/"))
        size = _size(path)
        if problem is None:
            asking.columns.check(values)
        if further := asking.columns.further(values, asking.root):
            made_with = _digest(made_with, *further)
    except (RowError, Unfit, OxenError) as error:
        problem = problem or written(error)
    try:
        output = result_name(row, _format_of(values, row, asking.columns), whole=asking.whole)
    except RowError as error:
        # what no result is called, so that none of the others meets it
        problem, output = str(error), f"./row-{row.number}"
    given = json.dumps(values)
    this, of = asking.shard
    # by the name itself: whether a disk tells upper case from lower is no part of it, and differs between machines
    mine = _number_of(output) % of == this - 1
    # a picture that was exchanged is told by its size: times differ from copy to copy
    digest = _digest(asking.by, row.image, str(size), given)
    return AskedRow(row, path, output, given, size, problem, digest, made_with, mine)


def with_other_seed(row: PlannedRow, other: int) -> PlannedRow:
    """The row with its how-many-eth other seed: the same in every run, and no neighbour of another row's."""
    number = hashlib.sha256(f"{row.asked} {other}".encode()).digest()
    seed = int.from_bytes(number[:8], "big") % _SEEDS
    return replace(row, values={**row.values, SEED.name: seed}, other=other)


def _format_of(values: Mapping[str, Any], row: SourceRow, columns: Columns) -> str:
    """The format that a row's result will have; raises RowError where its own name says another than can be."""
    if columns.saves is None:
        found = values.get(_FORMAT)
        return found if found in SUFFIX_OF else "png"
    if format_asked(row) not in (None, columns.saves):
        raise RowError(
            f"Its result is to be {row.output}, and a workflow saves {columns.saves.upper()}: end the name in "
            f"{SUFFIX_OF[columns.saves]}."
        )
    return columns.saves


def _number_of(name: str) -> int:
    """A number that spreads names evenly over parts, however alike they are; on every machine the same."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _size(path: Path) -> int:
    try:
        about = path.stat()
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise RowError(f"There is no picture {path}: {said}.") from None
    if not stat.S_ISREG(about.st_mode):
        raise RowError(f"There is no picture {path}: it is {'a folder' if stat.S_ISDIR(about.st_mode) else 'no file'}.")
    return about.st_size


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "backslashreplace")).hexdigest()[:24]
