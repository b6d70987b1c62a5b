"""A model of one's own kept awake while a node's edits need it; of every other model nothing is done here."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from ...oxen.api.client import Client
from ...oxen.credentials import find_account, find_base_url
from ...oxen.errors import ModelNotFound, OxenError
from ...oxen.jobs.awake import Awake, Need, Rule, WakingNotes
from ...oxen.jobs.progress import Progress
from ...oxen.jobs.session import Session
from ...oxen.settings import load_settings
from ..sessions import home

_BLOCKING = (
    "If that is its queue's word, which is documented for its own models only: set wait to one blocking request."
)


def _advice(error: OxenError, awake: Awake) -> str:
    return _BLOCKING if isinstance(error, ModelNotFound) and awake.told.get("state") else ""


class Waking:
    """What one item of a list, or a node alone, does about its model's being awake.

    It claims the model when it is made, so that another item does not put it to sleep before this one's turn has come.
    """

    def __init__(self, rule: Rule | None) -> None:
        self._rule = rule
        self._notes = None if rule is None else WakingNotes(home(), find_base_url(), rule.model)
        self._claim = None if self._notes is None else Need(self._notes)
        self._awake: Awake | None = None

    @contextlib.contextmanager
    def during(self, session: Session, progress: Progress) -> Iterator[None]:
        """For the length of a with block, be able to `wake`; after it, `leave` has been called, whatever happened.

        An error says what became of the model, too.
        """
        if self._rule is None:
            yield
            return
        self._awake = awake = Awake(
            session.client, home(), session.settings, self._rule, self._claim, progress.preparing
        )
        try:
            yield
        except OxenError as error:
            self.leave(progress)
            words = list(filter(None, (_advice(error, awake), awake.afterword)))
            if words:
                raise error.reworded(" ".join((error.message, *words))) from error
            raise
        finally:
            self.leave(progress)

    def wake(self) -> None:
        """As `Awake.wake`."""
        if self._awake is not None:
            self._awake.wake()

    def leave(self, progress: Progress) -> None:
        """As `Awake.leave`; what goes on costing is said on the node."""
        if self._awake is not None:
            self._awake.leave()
            if self._awake.left:
                progress.remark(self._awake.left)

    @property
    def told(self) -> Mapping[str, Any]:
        """For info."""
        if self._awake is None or not self._awake.told:
            return {}
        return {"your_model": {**self._awake.told, **({"warning": self._awake.left} if self._awake.left else {})}}

    @property
    def says(self) -> str | None:
        """For the node itself, where something goes on costing."""
        return None if self._awake is None else self._awake.left or None

    def dropped(self) -> None:
        """The turn never came. Where another left it to this one to put the model to sleep, that is done beside."""
        if self._awake is not None or self._claim is None or self._notes is None:
            return
        left_to_us = bool((self._notes.read() or {}).get("sleeps")) and not self._claim.others()
        if not left_to_us:
            self._claim.release()
            return
        try:
            threading.Thread(target=self._leave_alone, name="kontext-bridge sleep", daemon=True).start()
        except RuntimeError:  # no thread is to be had: the note stays, and Kontext Models shows it
            self._claim.release()

    def _leave_alone(self) -> None:
        assert self._rule is not None
        client = Client(find_account(home()))
        try:
            Awake(client, home(), load_settings(home()), self._rule, self._claim).leave()
        finally:
            client.close()
