"""Decisions for a list as a whole, as for a batch: which edits are made anew, and whether the limits allow them all."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

import torch

from ...imaging.errors import ImageError
from ...oxen.errors import InvalidParameters, SpendLimitReached
from ...oxen.jobs.given_up import Decision
from ...oxen.jobs.record import request_key
from ...oxen.jobs.session import Session
from ...oxen.jobs.spend import SpendGuard
from .orders import Order


class Asked:
    """The orders of a list's items, noted before the first of them is sent."""

    def __init__(self) -> None:
        self._orders: list[tuple[Order, torch.Tensor]] = []
        self._guard = threading.Lock()
        self._answer: tuple[bool, Decision, SpendLimitReached | None] | None = None

    def note(self, order: Order, image: torch.Tensor) -> None:
        self._orders.append((order, image))

    def look(self, session: Session, run_id: str) -> tuple[bool, Decision, SpendLimitReached | None]:
        """Whether some edit asked for anew may have been paid for, of which the artist was told; what all items decide
        together; and what speaks against sending what is new of all of them, where that would pass a limit.

        Looked at once, by whoever comes first: what is made anew then is no longer in doubt.
        """
        with self._guard:
            if self._answer is None:
                settings = session.settings
                limited = settings.usd_per_run is not None or settings.usd_per_day is not None
                decision = Decision(session.ledger.undecided_keys())
                matters = len(self._orders) > 1 and (limited or decision.told)
                keys = list(self._keys(session)) if matters else []
                for_lost = any(key in decision.told for order, key in keys if not order.terms.reuse)
                self._answer = for_lost, decision, self._refusal(session, run_id, keys, for_lost) if limited else None
                self._orders.clear()
            return self._answer

    @staticmethod
    def _refusal(
        session: Session, run_id: str, keys: list[tuple[Order, str]], for_lost: bool
    ) -> SpendLimitReached | None:
        new = []
        for key, order in {key: order for order, key in keys}.items():  # alike are paid once
            lost = for_lost and not order.terms.reuse
            reuse = lost or order.terms.reuse
            if session.ledger.to_go_on_from(key, reuse=reuse, pays_for_lost=lost) is None:
                new.append(order.parameters.priced)
        guard = SpendGuard(session.client, session.ledger, session.settings, run_id)
        try:
            for asked, count in Counter(new).items():
                guard.check(count, asked, takes=False)
        except SpendLimitReached as error:
            return error
        return None

    def _keys(self, session: Session) -> Iterator[tuple[Order, str]]:
        base_url = session.client.account.base_url
        for order, image in self._orders:
            session.control.check()
            with contextlib.suppress(ImageError, InvalidParameters):  # its own run tells
                for edit in order.edits(session, image):
                    yield order, request_key(base_url, edit.parameters, edit.pixels)
