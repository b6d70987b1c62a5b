"""What one run works with: the client, the ledger and the downloads of one account.

Runs of this process that go on at once share what costs handles: one connection pool, one open ledger and one event
stream for an account and a folder. Each has a `Control` of its own over them. The last to leave closes them, except
where somebody has said, by `expect`, that more are to come.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from ..api.client import Client
from ..api.events import EventStream
from ..control import Control, Deadline
from ..credentials import Account
from ..errors import LocalTrouble, Misconfigured
from ..http.fetch import Fetcher
from ..settings import Settings, load_settings
from .ledger import DAY_SECONDS, FILE_NAME, OPEN_SECONDS, Ledger, not_opened
from .trouble import of_the_ledger

logger = logging.getLogger(__name__)

_PRUNE_PAUSE = 60.0


class Session:
    """One run's view of the connections of its account; a context manager.

    folder: where the ledger lives. control: stops the run from outside. prunes: remove old results when the last
    session leaves; otherwise that is `prune_soon`'s. Raises Misconfigured where the ledger cannot be used, LocalTrouble
    where another program keeps it, Interrupted.
    """

    def __init__(
        self,
        account: Account,
        folder: Path,
        settings: Settings,
        control: Control | None = None,
        *,
        prunes: bool = True,
    ) -> None:
        self.settings = settings
        self.control = control or Control()
        self._prunes = prunes
        self._shared = _enter(account, folder, settings.allow_private_urls, self.control)
        self.ledger = self._shared.ledger
        self.client = self._shared.client.under(self.control)
        self.fetcher = self._shared.fetcher.under(self.control)
        self.stream = self._shared.stream

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _leave(self._shared, self.settings if self._prunes else None)

    def prune(self) -> None:
        """Remove old results now, for a run so long that its end would be too late."""
        _prune(self.ledger, self.settings)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Open the account's event `stream`, if nobody has yet, and let it wake this run in the with block."""
        self._shared.listen()
        with self.stream.waking(self.control):
            yield


class _Shared:
    """The connections of one account and folder, with the number of sessions that use them."""

    def __init__(self, account: Account, folder: Path, allow_private: bool, control: Control, within: Deadline) -> None:
        self.key = (account, folder, allow_private)
        self.users = 1
        self._listens = False
        self._guard = threading.Lock()
        with contextlib.ExitStack() as opened:
            self.ledger = open_ledger(folder, control, within)
            opened.callback(self.ledger.close)
            self.client = Client(account)
            opened.callback(self.client.close)
            self.fetcher = Fetcher(
                self.client.control,
                account=account,
                home=self.client.transport.session,
                allow_private=allow_private,
            )
            opened.callback(self.fetcher.close)
            self.stream = EventStream(self.client.transport)
            self._opened = opened.pop_all()

    def listen(self) -> None:
        """Open the event stream, if nobody has yet."""
        with self._guard:
            if not self._listens:
                self._listens = True
                self._opened.callback(self.stream.close)
                self.stream.start()

    def close(self, settings: Settings | None) -> None:
        with self._opened:
            if settings is not None:
                _prune(self.ledger, settings)


_guard = threading.Condition()
_open: dict[tuple[Account, Path, bool], _Shared] = {}
_opening: set[tuple[Account, Path, bool]] = set()
_count_guard = threading.Lock()
_expected = 0


def _enter(account: Account, folder: Path, allow_private: bool, control: Control) -> _Shared:
    """What is open for an account and a folder, opened by whoever comes first; nobody else waits for that one."""
    key = (account, folder, allow_private)
    within = Deadline(OPEN_SECONDS)
    with _guard:
        if not control.wait_on(_guard, lambda: key in _open or key not in _opening, within.left):
            raise not_opened(folder)
        if key in _open:
            _open[key].users += 1
            return _open[key]
        _opening.add(key)
    try:
        shared = _Shared(*key, control, within)
        with _guard:
            _open[key] = shared
        return shared
    finally:
        with _guard:
            _opening.discard(key)
            _guard.notify_all()


def _leave(shared: _Shared, settings: Settings | None) -> None:
    with _guard:
        shared.users -= 1
        if shared.users or _expected:
            return
        del _open[shared.key]
    shared.close(settings)


def expect() -> Callable[[], None]:
    """Keep open what is open until the function that this gives is called, for somebody who comes later.

    Neither call takes time or opens anything.
    """
    global _expected
    said = False
    with _count_guard:
        _expected += 1

    def no_more() -> None:
        global _expected
        nonlocal said
        with _count_guard:
            if said:
                return
            said = True
            _expected -= 1
            last = not _expected
        if last:
            _close_unused()

    return no_more


def _close_unused() -> None:
    with _guard:
        unused = [] if _expected else [shared for shared in _open.values() if not shared.users]
        for shared in unused:
            del _open[shared.key]
    for shared in unused:
        shared.close(None)


def open_ledger(folder: Path, control: Control | None = None, within: Deadline | None = None) -> Ledger:
    """The ledger in a folder. Raises Misconfigured where it cannot be used, with what to do; LocalTrouble, Interrupted.

    control, within: as in `Ledger`.
    """
    try:
        return Ledger(folder, control, within)
    except sqlite3.Error as error:
        why = of_the_ledger(error)
    except OSError as error:
        why = f"{error}. Check that its folder can be written and that the disk has room."
    raise Misconfigured(f"The ledger {folder / FILE_NAME} cannot be used: {why} Nothing was sent.")


_pruned: dict[Path, float] = {}


def prune_soon(folder: Path) -> None:
    """Remove old results beside everything else, at most once a minute, unless somebody is expected; returns at once.

    The thread is no daemon: a program that ends with its run, as a headless one does, would never get to it.
    """
    now = time.monotonic()
    with _count_guard:
        if _expected or (folder in _pruned and now - _pruned[folder] < _PRUNE_PAUSE):
            return
        _pruned[folder] = now
    with contextlib.suppress(RuntimeError):  # no thread is to be had: the next run tries again
        threading.Thread(target=_prune_folder, args=(folder,), name="kontext-bridge prune").start()


def _prune_folder(folder: Path) -> None:
    try:
        settings, ledger = load_settings(folder), Ledger(folder)
    except (OSError, sqlite3.Error, LocalTrouble, Misconfigured) as failed:
        logger.warning("Old results could not be removed: %s", failed)
        return
    with contextlib.closing(ledger):
        _prune(ledger, settings)


def _prune(ledger: Ledger, settings: Settings) -> None:
    try:
        ledger.prune(max_bytes=settings.store_megabytes << 20, keep_seconds=settings.keep_days * DAY_SECONDS)
    except (OSError, sqlite3.Error) as failed:
        # the run's result is worth more than a tidy folder; the next run tries again
        logger.warning("Old results could not be removed: %s", failed)
