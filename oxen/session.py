"""What one run works with: the client, the ledger and the downloads of one account, opened and closed together."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from types import TracebackType

from .client import Client
from .control import Control
from .credentials import Account
from .errors import Misconfigured
from .fetch import Fetcher
from .ledger import DAY_SECONDS, FILE_NAME, Ledger
from .settings import Settings
from .trouble import of_the_ledger

logger = logging.getLogger(__name__)


class Session:
    """One connection pool and one open ledger; a context manager.

    folder: where the ledger lives. control: stops the run from outside. Raises Misconfigured where the ledger cannot
    be used.
    """

    def __init__(self, account: Account, folder: Path, settings: Settings, control: Control | None = None) -> None:
        self.settings = settings
        self.control = control or Control()
        self.ledger = _open_ledger(folder)
        self.client = Client(account, self.control)
        self.fetcher = Fetcher(
            self.control,
            account=account,
            home=self.client.transport.session,
            allow_private=settings.allow_private_urls,
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as closing:
            for part in (self.client, self.fetcher, self.ledger):
                closing.callback(part.close)
            try:
                self.ledger.prune(
                    max_bytes=self.settings.store_megabytes << 20, keep_seconds=self.settings.keep_days * DAY_SECONDS
                )
            except (OSError, sqlite3.Error) as failed:
                # the run's result is worth more than a tidy folder; the next run tries again
                logger.warning("Old results could not be removed: %s", failed)


def _open_ledger(folder: Path) -> Ledger:
    try:
        return Ledger(folder)
    except sqlite3.Error as error:
        why = of_the_ledger(error)
    except OSError as error:
        why = f"{error}. Check that its folder can be written and that the disk has room."
    raise Misconfigured(f"The ledger {folder / FILE_NAME} cannot be used: {why} Nothing was sent.")
