"""A CSV or JSONL file as a stream of rows. What is wrong with the file as a whole ends the command before any edit."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..commands.named import in_words, shown
from ..editing.values import Unfit
from .columns import IMAGE, OUTPUT, Columns
from .source_rows import SourceError, SourceRow

CSV, TSV, JSONL = (".csv",), (".tsv", ".tab"), (".jsonl", ".ndjson")
SUFFIXES = (*CSV, *TSV, *JSONL)
# Far more than twenty thousand characters of prompt take.
LONGEST_ROW = 1 << 20
_DELIMITERS = ",;\t|"
_SHOWN = 60
# Half of a character, which no file name that is written down may hold.
_HALF = re.compile("[\ud800-\udfff]")


def read_manifest(path: Path, columns: Columns, defaults: Mapping[str, Any]) -> Iterator[SourceRow]:
    """The rows of a list. defaults: what the command line gives for every row, so that no column has to.

    Raises SourceError, which names the file and the line; a value that does not fit its column is its row's problem.
    """
    try:
        with path.open("rb") as file:
            lines = _Lines(path, file)
            if path.suffix.lower() in JSONL:
                yield from _from_jsonl(lines, columns)
            else:
                yield from _from_csv(lines, columns, defaults, "\t" if path.suffix.lower() in TSV else _DELIMITERS)
    except OSError as error:
        raise SourceError(f"The list {shown(path)} cannot be read: {in_words(error)}") from None


class _Lines:
    """The lines of a file as text, each with its end; number: of the last one, from 1."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self.number = 0
        self._length = 0

    def wrong(self, what: str) -> SourceError:
        return SourceError(f"{shown(self._path)}, line {self.number}: {what}")

    def next_row(self) -> None:
        """A row begins, for the bound on what a row may hold."""
        self._length = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(LONGEST_ROW + 1):
            self.number += 1
            self._length += len(line)
            if self._length > LONGEST_ROW:
                raise self.wrong(
                    f"a row of more than {LONGEST_ROW >> 20} MiB is no edit. Is it a list, and is every quote closed?"
                )
            yield self._text(line)

    def _text(self, line: bytes) -> str:
        if self.number == 1:
            if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise self.wrong("the file is UTF-16. Save it as UTF-8.")
            line = line.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in line:
            raise self.wrong("a NUL is in it, so it is no text. Save it as UTF-8.")
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise self.wrong(f"it is not UTF-8 (byte {line[error.start]:#04x}). Save it as UTF-8.") from None


def _from_csv(lines: _Lines, columns: Columns, defaults: Mapping[str, Any], delimiters: str) -> Iterator[SourceRow]:
    texts = iter(lines)
    first = next((text for text in texts if text.strip()), None)
    if first is None:
        raise lines.wrong("the list is empty; its first line names the columns.")
    names, delimiter = _head(lines, first, delimiters)
    _check_names(lines, names, columns)
    lacking = [name for name in (IMAGE, *columns.needs) if name not in names and name not in defaults]
    if lacking:
        raise lines.wrong(f"there is no column {', '.join(lacking)}; it has {', '.join(names)}.")
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    number = 0
    while True:
        lines.next_row()
        with _csv_errors(lines):
            cells = next(reader, None)
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            raise lines.wrong(
                f"it has {len(cells)} cells and the first line {len(names)}. A cell with the separator, a quote or a "
                'line break in it stands between quotes, and a quote in it is written "".'
            )
        number += 1
        yield _typed(number, f"line {lines.number}", _given(zip(names, cells, strict=True)), columns)


def _head(lines: _Lines, first: str, delimiters: str) -> tuple[list[str], str]:
    """The columns' names, by the separator that makes most of the first line."""
    tried = []
    for delimiter in delimiters:
        with _csv_errors(lines):
            cells = next(csv.reader([first], delimiter=delimiter, strict=True))
        tried.append(([cell.strip() for cell in cells], delimiter))
    names, delimiter = max(tried, key=lambda one: len(one[0]))
    return names, delimiter


@contextmanager
def _csv_errors(lines: _Lines) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise lines.wrong(
            f"it cannot be read as a row ({error}). Is every quote closed, and doubled in a cell?"
        ) from None


def _check_names(lines: _Lines, names: Iterable[str], columns: Columns) -> None:
    counts = Counter(names)
    unknown = [name for name in counts if name not in columns.names]
    if unknown:
        told = ", ".join(repr(name[:_SHOWN]) for name in unknown[:8]) + (" and more" if len(unknown) > 8 else "")
        raise lines.wrong(f"there is no column {told}. The columns are {', '.join(columns.names)}.")
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise lines.wrong(f"the column {twice[0]} is there twice.")


def _given(cells: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """An empty cell gives nothing: what holds for every row holds for this one."""
    return {name: cell for name, cell in cells if cell.strip()}


def _from_jsonl(lines: _Lines, columns: Columns) -> Iterator[SourceRow]:
    number = 0
    for text in lines:
        lines.next_row()
        if not text.strip():
            continue
        number += 1
        found = _object(lines, text)
        _check_names(lines, [name for name, _ in found], columns)
        given = {name: value for name, value in found if value is not None and value != ""}
        yield _typed(number, f"line {lines.number}", given, columns, is_text=False)


def _object(lines: _Lines, text: str) -> list[tuple[str, Any]]:
    pairs: list[list[tuple[str, Any]]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs.append(found)
        return dict(found)

    try:
        value = json.loads(text, object_pairs_hook=keep)
    except (ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise lines.wrong(f"it is no JSON ({said}). Every line is an object, a row each.") from None
    if not isinstance(value, dict):
        raise lines.wrong('it is no object. Every line is one, such as {"image": "a.png", "prompt": "make it night"}.')
    for name, one in pairs[-1]:
        if isinstance(one, dict | list):
            raise lines.wrong(f"{name[:_SHOWN]!r} holds a list or an object; a column holds a text or a number.")
    return pairs[-1]


def _typed(number: int, where: str, given: Mapping[str, Any], columns: Columns, *, is_text: bool = True) -> SourceRow:
    """A row with the values of its columns; what does not fit is told when its turn comes, and costs nothing."""
    values, problem = {}, None
    for name, value in given.items():
        if name in (IMAGE, OUTPUT):
            continue
        try:
            values[name] = columns.typed(name, value) if is_text else value
        except Unfit as error:
            problem = problem or str(error)
    image, output = given.get(IMAGE), given.get(OUTPUT)
    for name, one in ((IMAGE, image), (OUTPUT, output)):
        if one is not None and (not isinstance(one, str) or _HALF.search(one)):
            problem = problem or f"{name} is {ascii(one)[:_SHOWN]}; it takes a path."
    if not image:
        problem = problem or "It names no image."
    return SourceRow(number, where, _path(image) or "", _path(output), values, problem)


def _path(value: object) -> str | None:
    """A path with slashes, as lists from Windows have others."""
    return _HALF.sub("?", value.strip()).replace("\\", "/") if isinstance(value, str) else None
