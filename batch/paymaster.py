"""The one process of a Ray run that pays: it has the ledger, the key and the spend limits, on the driver's machine.

Who does what. The driver reads a picture and hands its row on, once. A worker makes of the picture what is sent. The
paymaster writes the request down, sends it, waits, and keeps what comes. A worker makes a file of it; the driver puts
it in its place and has the paymaster note that it is delivered.

So workers send nothing, and none that dies leaves a request in doubt: Ray gives its work to another, from what had come
in. Ray never repeats a call of the paymaster's. Where that dies, or the driver, the run ends as one that was killed on
one machine, and the next finds everything in the same ledger.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..imaging.codec import EncodedImage
from ..oxen.jobs.order import Edit
from ..oxen.jobs.record import Record
from .columns import parameters_of
from .made import RunStopped
from .ray_cluster import answered
from .remote_rows import Paid, Payer, RemoteRows, RemoteTerms
from .source_rows import SourceError


@dataclass(frozen=True)
class Sendable:
    """A row's picture, ready to be sent. pixels: their digest, by which a request is known again."""

    pixels: str
    encoded: EncodedImage


class Paymaster:
    """A Ray actor; every call gives its answer as `answered` does. payer: without its key, which comes by `pipe`."""

    def __init__(self, payer: Payer, terms: RemoteTerms, pipe: Path | None) -> None:
        self._payer = payer
        self._terms = terms
        self._pipe = pipe

    def opened(self) -> Decimal | Exception | None:
        """The price of an edit, with all open that edits need."""
        return answered(self._open)

    def pay(self, values: Mapping[str, Any], given: Sendable | Exception) -> Paid | Exception:
        """A row's edit. given: its picture, or why there is none."""
        if isinstance(given, Exception):
            return given
        rows, sendable = self._rows, given
        return answered(
            lambda: rows.pay(Edit(parameters_of(values), sendable.pixels, lambda: rows.sent_as(sendable.encoded)))
        )

    def delivered(self, record: Record) -> None:
        self._rows.delivered(record)

    def stop(self) -> None:
        self._rows.stop()

    def close(self) -> None:
        self._rows.__exit__(None, None, None)

    def _open(self) -> Decimal | None:
        account = replace(self._payer.account, key=None if self._pipe is None else _key_from(self._pipe))
        self._rows = RemoteRows(self._terms, replace(self._payer, account=account))
        return self._rows.price


@contextlib.contextmanager
def key_pipe(key: str | None) -> Iterator[Path | None]:
    """A pipe with the key in it, for one reader on this machine: no argument, no environment and no disk holds it."""
    if key is None:
        yield None
        return
    if sys.platform == "win32":
        raise SourceError("--ray makes remote edits on Linux and macOS alone.")
    with tempfile.TemporaryDirectory(prefix="kontext-bridge") as folder:
        path = Path(folder) / "key"
        os.mkfifo(path, 0o600)
        handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            os.write(handle, key.encode() + b"\n")
            yield path
        finally:
            os.close(handle)


def _key_from(pipe: Path) -> str:
    try:
        with pipe.open("rb") as file:
            return file.readline().decode().removesuffix("\n")
    except OSError as error:
        raise RunStopped(
            f"Ray's process with the ledger cannot read what this one gives it ({error.strerror}). Start Ray on this "
            "machine as the user who runs the command."
        ) from None
