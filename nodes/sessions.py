"""This machine's account, settings and ledger, for every node that talks to the service. Loaded at first use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .. import host
from ..oxen.control import Control
from ..oxen.credentials import Account, find_account, find_base_url
from ..oxen.errors import Misconfigured
from ..oxen.jobs.progress import Progress
from ..oxen.jobs.session import Session, expect, prune_soon
from ..oxen.jobs.trouble import in_words
from ..oxen.settings import load_settings

T = TypeVar("T")


def home() -> Path:
    """The pack's private folder; raises Misconfigured, with what to do, where there is none and none can be made."""
    try:
        return host.user_folder()
    except host.NoFolder as error:
        raise Misconfigured(str(error)) from None


def account_without_key() -> Account:
    """This machine's service without its key, for downloads that a workflow names."""
    return Account(find_base_url(), None)


async def in_session(
    work: Callable[[Session], T],
    *,
    progress: Progress | None = None,
    node_id: str | None = None,
    load: int = 1,
    is_last: Callable[[], bool] = lambda: True,
    after_stop: Callable[[], None] = lambda: None,
) -> T:
    """Run work in a session off the event loop, when its turn has come; Cancel stops it within a second.

    The session is this machine's account, settings and ledger. load, is_last: see `host.run_off_loop`. after_stop: is
    called where the work was stopped and has cancelled its jobs, which may be after this has returned. Raises
    Misconfigured, and LocalTrouble for what the machine raises in trouble.
    """
    control = Control()
    no_more = expect()
    began = False

    def call() -> T:
        nonlocal began
        began, folder = True, None
        try:
            folder = home()
            settings = load_settings(folder)
            with in_words("The run"), Session(find_account(folder), folder, settings, control, prunes=False) as session:
                return work(session)
        finally:
            no_more()
            if control.stopped:
                after_stop()
            if folder is not None:
                prune_soon(folder)

    try:
        return await host.run_off_loop(call, control, status=progress, node_id=node_id, load=load, is_last=is_last)
    finally:
        if not began:
            no_more()
