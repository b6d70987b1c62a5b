"""Decisions for a list as a whole, as for a batch: which edits are made anew, and whether the limits allow them all."""

from __future__ import annotations

import contextlib
import threading
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
                several = len(self._orders) > 1
                decision = Decision(session.ledger.undecided_keys())
                for_lost = several and self._is_for_lost(session, decision.told)
                refusal = self._refusal(session, run_id, for_lost) if several else None
                self._answer = for_lost, decision, refusal
                self._orders.clear()
            return self._answer

    def _is_for_lost(self, session: Session, told: frozenset[str]) -> bool:
        return bool(told) and any(key in told for order, key in self._keys(session) if not order.terms.reuse)

    def _refusal(self, session: Session, run_id: str, for_lost: bool) -> SpendLimitReached | None:
        settings = session.settings
        if settings.usd_per_run is None and settings.usd_per_day is None:
            return None
        new = []
        for key, order in {key: order for order, key in self._keys(session)}.items():  # alike are paid once
            lost = for_lost and not order.terms.reuse
            reuse = lost or order.terms.reuse
            if session.ledger.to_go_on_from(key, reuse=reuse, pays_for_lost=lost) is None:
                new.append(order.parameters.model.id)
        guard = SpendGuard(session.client, session.ledger, settings, run_id)
        try:
            for model in set(new):
                guard.check(new.count(model), model, takes=False)
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
