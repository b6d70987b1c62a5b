"""A result put in its place, after its line in the report.

Killed before the line, the row was not done, and the next run has its picture from the ledger. Killed between the line
and the place, the same: a result that is not in its place is made, or brought, again. So that another request's result
is not taken for it, that one goes before the line.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import hashlib
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..oxen.private_files import put_in_place
from .journal import Journal
from .made import DONE, FAILED, PlannedRow, RowFailed, RowResult
from .naming import LONGEST_PART

# What folders of rows under way are called in the batch's own.
RUN = "run-"
_NO_FOLDER = (errno.EEXIST, errno.ENOTDIR)
# Too long, characters that the disk does not take, a link in a circle, a folder in the file's place.
_OF_A_NAME = (*_NO_FOLDER, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ELOOP, errno.EISDIR, errno.ENOTEMPTY)


class Placer:
    """Writes results and their lines. results: the folder; work: one of its own on the same disk, for drafts.

    is_taken: whether a name is some row's or somebody's, so that a row's further picture does not take it.
    """

    def __init__(self, results: Path, work: Path, journal: Journal, is_taken: Callable[[str], bool]) -> None:
        self._results = results
        self._work = work
        self._journal = journal
        self._is_taken = is_taken
        self._numbers = itertools.count()

    def done(self, row: PlannedRow, made: RowResult, seconds: float, flags: Sequence[str] = ()) -> dict[str, Any]:
        """Write a row's pictures and its line; gives the line. Raises OSError, and RowFailed for a place outside."""
        more = [(self._further(row.output, place, suffix), data) for place, (suffix, data) in enumerate(made.more, 2)]
        places = [(self._place(name), data) for name, data in ((row.output, made.data), *more)]
        drafts = [(self._draft(data), place) for place, data in places]
        facts = {"more": [name for name, _ in more] or None, **made.facts}
        cost = None if made.cost is None else float(made.cost)
        aside = None if row.former is None else self._laid_aside(row.output, row.former)
        entry = _entry(row, DONE, seconds) | {
            "file": row.output,
            "cost_usd": cost,
            "paid": made.is_paid,
            **facts,
            "flags": list(flags) or None,
            "aside": aside,
        }
        for place, _ in places:
            with contextlib.suppress(FileNotFoundError), _of_this_name(place.relative_to(self._results)):
                place.unlink()
        self._journal.write(entry)
        # the row's own result last: by it the next run knows that all are there
        for draft, place in reversed(drafts):
            with _of_this_name(place.relative_to(self._results)):
                put_in_place(draft, place)
        made.delivered()
        return entry

    def failed(self, row: PlannedRow, failure: RowFailed, seconds: float) -> dict[str, Any]:
        """Write the line of a row that has no result; gives it. Raises OSError."""
        entry = _entry(row, FAILED, seconds) | {"error": str(failure), "over": failure.is_over or None, **failure.facts}
        self._journal.write(entry)
        return entry

    def _draft(self, data: bytes) -> Path:
        draft = self._work / f"{next(self._numbers)}.part"
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return draft

    def _place(self, name: str) -> Path:
        place = self._results / name
        with _of_this_name(name):
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.is_dir():
                raise IsADirectoryError(errno.EISDIR, "a folder is there")
        if not place.parent.resolve().is_relative_to(self._results.resolve()):
            raise RowFailed(f"{name} would lie outside {self._results}, as a folder there is a link. Nothing is lost.")
        return place

    def _laid_aside(self, output: str, seed: int) -> str:
        """The result that is there moved to a name that says its seed; gives the name.

        Before the line: killed here, the next run has it from the ledger again, and nothing in the place is taken for
        what is not there yet. It lies there as well then, and is not laid beside itself.
        """
        there = self._results / output
        name = next(
            name
            for name in self._beside(output, f".seed-{seed}", PurePosixPath(output).suffix)
            if not self._is_taken(name) or _are_alike(self._results / name, there)
        )
        with contextlib.suppress(FileNotFoundError), _of_this_name(name):
            put_in_place(there, self._results / name)
        return name

    def _further(self, output: str, number: int, suffix: str) -> str:
        return next(name for name in self._beside(output, f"_{number}", suffix) if not self._is_taken(name))

    @staticmethod
    def _beside(output: str, more: str, suffix: str) -> Iterator[str]:
        """The result's name with something more before its ending, and then with more and more."""
        path = PurePosixPath(output)
        for again in itertools.count():
            ending = f"{more}{'-' * bool(again)}{again or ''}{suffix}"
            yield str(path.with_name(f"{_fitted(path, ending)}{ending}"))


def _are_alike(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _fitted(output: PurePosixPath, ending: str) -> str:
    """The stem of a result's name, cut where a disk would not take it with this ending; told apart by a digest then."""
    room = LONGEST_PART - len(ending.encode())
    stem = output.stem.encode()
    if len(stem) <= room:
        return output.stem
    mark = f"-{hashlib.sha256(str(output).encode()).hexdigest()[:8]}"
    return stem[: room - len(mark)].decode("utf-8", "ignore") + mark


@contextlib.contextmanager
def _of_this_name(name: object) -> Iterator[None]:
    """What a disk has against one name, it may not have against the next."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_A_NAME:
            raise
        said = "a file is where its folder would be" if error.errno in _NO_FOLDER else error.strerror
        raise RowFailed(f"There is no room for {name}: {said}. What was paid for is in the ledger.") from None


def _entry(row: PlannedRow, state: str, seconds: float) -> dict[str, Any]:
    return {
        "row": row.number,
        "where": row.where,
        "image": row.image,
        "output": row.output,
        "state": state,
        "asked": row.asked,
        "made_with": row.made_with or None,
        "other": row.other or None,
        "seconds": round(seconds, 3),
        "time": round(time.time(), 3),
    }


def cleared(work: Path) -> Path:
    """The batch's own folder, made, and without what a run that was killed left in it."""
    work.mkdir(parents=True, exist_ok=True)
    for path in work.glob("*.part"):
        with contextlib.suppress(OSError):
            path.unlink()
    for path in work.glob(f"{RUN}*"):
        shutil.rmtree(path, ignore_errors=True)
    return work
