"""Which columns a list may have, and how their values are read. Values are checked here as the nodes check theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..editing.fields import Field, Kind
from ..editing.values import Unfit, sendable
from ..editing.words import Keep
from ..oxen.api.models import DEFAULT
from ..oxen.api.request import EditParameters

IMAGE, OUTPUT = "image", "output"
KEEP = Field(
    "keep",
    "keep",
    Kind.CHOICE,
    "auto lays the edit back onto its picture, so that only what was edited differs.",
    default=Keep.OFF.value,
    choices=tuple(one.value for one in Keep),
)
NAMESPACE = "namespace"
_NOT_LOCAL = ("disable_safety_checker",)
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
_LONGEST_NAMESPACE = 200


@dataclass(frozen=True)
class Columns:
    """The columns that a source may have besides `image` and `output`.

    fields: how their values are read; None for those that a workflow's inputs read. check: raises Unfit or an
    OxenError for a row's values that cannot be used together. needs: those that a row or the command must give. saves:
    the format that every result has, whatever a row asks the service for; None where `output_format` says it. further:
    of a row's values and the folder of its picture, what tells the files of its further pictures from others.
    """

    fields: Mapping[str, Field | None]
    check: Callable[[Mapping[str, Any]], None] = lambda values: None
    needs: tuple[str, ...] = ()
    saves: str | None = None
    further: Callable[[Mapping[str, Any], Path], tuple[str, ...]] = lambda values, images: ()

    @property
    def names(self) -> tuple[str, ...]:
        return (IMAGE, OUTPUT, *self.fields)

    def typed(self, name: str, text: str) -> Any:
        """The value that a text of a CSV file or of the command line stands for; raises Unfit."""
        column = self.fields[name]
        if column is None or column.kind in (Kind.TEXT, Kind.CHOICE):
            return text
        plain = text.strip()
        if column.kind is Kind.SWITCH:
            if plain.lower() in _TRUE | _FALSE:
                return plain.lower() in _TRUE
            raise Unfit(f"{name} is {plain[:40]!r}; it takes true or false.")
        try:
            # int() of thousands of digits, and of digits of other scripts, is no number that anybody meant
            if not plain.isascii() or len(plain) > 40 or "_" in plain:
                raise ValueError
            return int(plain) if column.kind is Kind.WHOLE else float(plain)
        except ValueError:
            kind = "a whole number" if column.kind is Kind.WHOLE else "a number, with a point"
            raise Unfit(f"{name} is {plain[:40]!r}; it takes {kind}.") from None


def _namespace() -> Field:
    return Field(
        NAMESPACE,
        "target_namespace",
        Kind.TEXT,
        "Who is billed and owns the results; empty means the key's own user.",
        default="",
        bounds=(0, _LONGEST_NAMESPACE),
    )


def remote_columns() -> Columns:
    """What Kontext Edit (Oxen) asks for."""
    fields = {field.name: field for field in (*DEFAULT.fields, KEEP, _namespace())}
    return Columns(fields, _check_remote, ("prompt",))


def local_columns() -> Columns:
    """What an edit on this machine asks for: the same words, as far as they mean something here."""
    fields = {field.name: field for field in (*DEFAULT.fields, KEEP) if field.name not in _NOT_LOCAL}
    return Columns(fields, _check_local, ("prompt",))


def parameters_of(values: Mapping[str, Any]) -> EditParameters:
    """A row's request to the service; raises InvalidParameters."""
    own = {name: value for name, value in values.items() if name not in (KEEP.name, NAMESPACE)}
    return EditParameters(DEFAULT, namespace=values.get(NAMESPACE), **own)


def keeps(values: Mapping[str, Any]) -> bool:
    """Whether a row's edit is laid back onto its picture; raises Unfit."""
    return bool(KEEP.read(values.get(KEEP.name, KEEP.default)) == Keep.AUTO.value)


def _check_remote(values: Mapping[str, Any]) -> None:
    parameters_of(values)
    keeps(values)
    sendable(values.get(NAMESPACE, ""), NAMESPACE, _LONGEST_NAMESPACE)


def _check_local(values: Mapping[str, Any]) -> None:
    DEFAULT.read({name: value for name, value in values.items() if name != KEEP.name})
    keeps(values)
