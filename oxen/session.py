"""What one run works with: the client, the ledger and the downloads of one account, opened and closed together."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from .client import Client
from .control import Control
from .credentials import Account
from .fetch import Fetcher
from .ledger import Ledger
from .settings import Settings

DAY_SECONDS = 86400.0


class Session:
    """One connection pool and one open ledger; a context manager.

    folder: where the ledger lives. control: stops the run from outside.
    """

    def __init__(self, account: Account, folder: Path, settings: Settings, control: Control | None = None) -> None:
        self.settings = settings
        self.control = control or Control()
        self.client = Client(account, self.control)
        self.ledger = Ledger(folder)
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
        self.ledger.prune(
            max_bytes=self.settings.store_megabytes << 20, keep_seconds=self.settings.keep_days * DAY_SECONDS
        )
        self.ledger.close()
        self.fetcher.close()
        self.client.close()
