"""The weights of a finished fine-tune as a file: whole or not at all, and never in the place of another.

The service's documents name one place for them: the file models/NAME/model.safetensors on the branch models/NAME of the
repository that the training was started in.
"""

from __future__ import annotations

import contextlib
import filecmp
import itertools
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

from ..api.client import Client
from ..api.own_models import FineTune, checked_id, fine_tunes
from ..errors import ConnectionFailed, InvalidParameters, LocalTrouble, OxenError, ResultUnavailable
from ..http.fetch import Fetcher

SUFFIX = ".safetensors"
_TRIES = 3
_LONGEST_NAME = 70
_PARTS = 3
_OLD_SECONDS = 86400.0
# Names that Windows keeps for itself, with whatever ending.
_KEPT = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_ASKED = "Nothing was brought, nothing was charged."


class NotWeights(ValueError):
    """What came is no file of weights; the text says what it is."""


@dataclass(frozen=True)
class TrainedWeights:
    """Where a fine-tune's weights lie. repository: NAMESPACE/NAME."""

    repository: str
    name: str

    @property
    def path(self) -> str:
        name = quote(self.name, safe="")
        return f"/api/repos/{quote(self.repository)}/file/models/{name}/models/{name}/model{SUFFIX}"

    @property
    def file(self) -> str:
        """A name that every file system takes, and that leads into no other folder."""
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", self.name).strip(".")[:_LONGEST_NAME] or "fine-tune"
        return ("_" if _KEPT.fullmatch(plain) else "") + plain + SUFFIX


@dataclass(frozen=True)
class Brought:
    """A file that is there. is_new: whether it came now; otherwise the same was there before."""

    path: Path
    size: int
    is_new: bool


def weights_of(client: Client, id: str) -> TrainedWeights:
    """Where the weights of what an id names are: NAMESPACE/REPOSITORY/NAME, or a model, or a fine-tune of the account.

    Raises InvalidParameters, with what to do, where that is not known.
    """
    plain = checked_id(client, id)
    parts = plain.split("/")
    if len(parts) == _PARTS and all(part.strip(". ") for part in parts):
        return TrainedWeights(f"{parts[0]}/{parts[1]}", parts[2])
    tune = find_fine_tune(fine_tunes(client), plain)
    if tune is None:
        raise InvalidParameters(
            f"No fine-tune of the account is called {plain}. {_ASKED} Copy its id from Kontext Models, or name its "
            "weights as NAMESPACE/REPOSITORY/NAME, as they stand on its page at Oxen.ai."
        )
    if not tune.is_finished:
        raise InvalidParameters(f"{tune.name} is {tune.status or 'not finished'}: it has no weights yet. {_ASKED}")
    if not tune.repository:
        raise InvalidParameters(
            f"Oxen.ai does not say in which repository the weights of {tune.name} are. {_ASKED} Name them as "
            f"NAMESPACE/REPOSITORY/{tune.name}, with the repository that it was trained in."
        )
    return TrainedWeights(tune.repository, tune.name)


def find_fine_tune(tunes: tuple[FineTune, ...], id: str) -> FineTune | None:
    """The fine-tune with that id, name, or model, with or without `oxen:`; the newest of several."""
    bare = id.removeprefix("oxen:").rpartition("/")[2]
    for tune in tunes:
        if id in (tune.id, tune.name, tune.model) or bare in (tune.name, tune.model.removeprefix("oxen:")):
            return tune
    return None


def bring(
    client: Client,
    fetcher: Fetcher,
    weights: TrainedWeights,
    folder: Path,
    check: Callable[[Path], None],
    at: Callable[[int, int | None], None] = lambda *_: None,
) -> Brought:
    """Put the weights into a folder under a name of their own.

    check: raises NotWeights for a file that is none; it is looked at before it has its name. at: how much is there.
    A download that breaks off is begun anew, up to three times in all. Raises ResultUnavailable, NotWeights,
    LocalTrouble, ConnectionFailed, Interrupted.
    """
    stem = weights.file.removesuffix(SUFFIX)
    _tidy(folder, stem)
    part = folder / f".{stem}-{uuid.uuid4().hex}.part"
    try:
        with _written(folder):
            folder.mkdir(parents=True, exist_ok=True)
            size = _downloaded(client, fetcher, client.account.base_url + weights.path, part, weights, at)
            check(part)
            return _named(part, folder / weights.file, size)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _downloaded(
    client: Client,
    fetcher: Fetcher,
    url: str,
    part: Path,
    weights: TrainedWeights,
    at: Callable[[int, int | None], None],
) -> int:
    for attempt in itertools.count(1):
        try:
            with part.open("wb") as file:
                size = fetcher.save(url, file, at)
                file.flush()
                os.fsync(file.fileno())
            return size
        except (ConnectionFailed, ResultUnavailable) as error:
            if attempt >= _TRIES or (isinstance(error, ResultUnavailable) and (error.status or 0) < 500):
                raise _not_brought(error, weights) from None
            client.control.sleep(0.25 * 2**attempt)
    raise AssertionError  # the loop has no other end


def _not_brought(error: OxenError, weights: TrainedWeights) -> OxenError:
    where = f"models/{weights.name}/model{SUFFIX} on the branch models/{weights.name} of {weights.repository}"
    if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED):
        return error.reworded(
            f"There are no weights at {where}, or the key may not see them (HTTP {error.status}). {_ASKED} Look at the "
            "page of the fine-tune at Oxen.ai, under Info."
        )
    return error.reworded(f"The weights at {where} did not come whole: {error.message} {_ASKED} Run again.")


def _named(part: Path, path: Path, size: int) -> Brought:
    """Give the file its name, or the next that is free; where the same file is there already, that is it."""
    for name in _names(path):
        if os.path.lexists(name):
            if name.is_file() and filecmp.cmp(part, name, shallow=False):
                return Brought(name, size, is_new=False)
            continue
        try:
            _rename_new(part, name)
        except FileExistsError:
            continue
        return Brought(name, size, is_new=True)
    raise AssertionError  # there is always another name


def _rename_new(part: Path, name: Path) -> None:
    """Rename without replacing; raises FileExistsError."""
    try:
        os.link(part, name)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: only Windows refuses to replace then
        if os.path.lexists(name):
            raise FileExistsError(name) from None
        part.rename(name)


def _names(path: Path) -> Iterator[Path]:
    yield path
    for number in itertools.count(2):
        yield path.with_stem(f"{path.stem}_{number}")


def _tidy(folder: Path, stem: str) -> None:
    """Remove what runs left behind that were killed; a younger one may be of a run that goes on."""
    for old in folder.glob(f".{stem}-*.part"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _OLD_SECONDS:
                old.unlink()


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalTrouble(
            f"The weights could not be written into {folder}: {error.strerror or error}. Nothing is left of them. Make "
            "room there, or allow writing, and run again; downloading costs nothing."
        ) from None
