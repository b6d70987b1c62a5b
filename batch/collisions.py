"""Results that would be written over something: over one another, over pictures of the source, over files of others.

Each looks at the tables of a plan, before anything is sent, and raises SourceError.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from .plan_tables import OWN
from .source_rows import Clashing, Taken, Unwritable

# Of very many, so many are named.
TOLD = 8


def refuse_clashes(database: sqlite3.Connection) -> None:
    """Raise Clashing where results of two rows are one file, or one's is a folder of another's."""
    database.execute("INSERT INTO clashes SELECT folders.number, rows.number FROM folders JOIN rows USING (key)")
    ((count,),) = database.execute("SELECT COUNT(*) FROM clashes").fetchall()
    if not count:
        return
    found = database.execute(
        "SELECT one.output, one.spot, two.spot FROM clashes JOIN rows one ON one.number = clashes.number"
        " JOIN rows two ON two.number = clashes.other ORDER BY clashes.number LIMIT ?",
        (TOLD,),
    ).fetchall()
    told = "; ".join(f"{output} of {other} and of {where}" for output, where, other in found)
    more = f"; and {count - len(found)} more" if count > len(found) else ""
    raise Clashing(
        f"{count} results would be written over one another: {told}{more}.",
        "Give each a name in the column output, or keep the pictures' whole names with --whole-names.",
    )


def refuse_sources(database: sqlite3.Connection, results: Path) -> None:
    """Raise Unwritable where a result that is still to be made would replace a picture of the source."""
    found = database.execute(
        "SELECT rows.output, sourced.spot FROM rows JOIN sources ON sources.key = rows.key"
        " JOIN rows sourced ON sourced.number = sources.number LEFT JOIN placed ON placed.key = rows.key"
        f" WHERE rows.mine AND rows.problem IS NULL AND NOT {OWN}"
    )
    count, told = _counted(
        f"{name}, the picture of {where}" for name, where in found if os.path.lexists(results / name)
    )
    if count:
        raise Unwritable(
            f"{count} results would be written over pictures that are to be edited: {told}.",
            "Name another folder with --output.",
        )


def refuse_strangers(database: sqlite3.Connection, results: Path) -> None:
    """Raise Taken where a result's place is taken by what is not this row's result."""
    query = (
        "SELECT output, placed.asked, placed.asked IS rows.asked FROM rows LEFT JOIN placed USING (key)"
        f" WHERE mine AND problem IS NULL AND NOT {OWN}"
    )
    there = (row for row in database.execute(query) if os.path.lexists(results / row[0]))
    count, told = _counted(f"{output} ({_origin(before, is_like)})" for output, before, is_like in there)
    if count:
        exchanged = any(is_like and os.path.lexists(results / output) for output, _, is_like in database.execute(query))
        back = "Put the file back that they were made with, name" if exchanged else "Name"
        raise Taken(
            f"{count} results would be written over what is in {results} already: {told}.",
            f"{back} another folder with --output, or have them written over with --replace.",
        )


def _origin(before: str | None, is_like: bool) -> str:
    if before is None:
        return "of unknown origin"
    return "made with a model or picture that was exchanged since" if is_like else "made of another request or picture"


def _counted(told: Iterable[str]) -> tuple[int, str]:
    """How many they are, and the first of them; none of the others is kept."""
    told = iter(told)
    first = list(itertools.islice(told, TOLD))
    more = sum(1 for _ in told)
    return len(first) + more, ", ".join(first) + (f" and {more} more" if more else "")
