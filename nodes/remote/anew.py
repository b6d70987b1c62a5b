"""What a list asks for anew: as in a batch, what may have been paid for already, and nothing else."""

from __future__ import annotations

import contextlib
import threading

import torch

from ...imaging.errors import ImageError
from ...oxen.errors import InvalidParameters
from ...oxen.jobs.record import request_key
from ...oxen.jobs.session import Session
from .orders import Order


class Asked:
    """The orders of a list's items, noted before the first of them is sent."""

    def __init__(self) -> None:
        self._orders: list[tuple[Order, torch.Tensor]] = []
        self._guard = threading.Lock()
        self._answer: bool | None = None

    def note(self, order: Order, image: torch.Tensor) -> None:
        self._orders.append((order, image))

    def on_account_of_lost(self, session: Session) -> bool:
        """Whether some edit of the list may have been paid for, of which the artist was told; the same for all items.

        Looked at once, by whoever comes first: what is made anew then is no longer in doubt.
        """
        with self._guard:
            if self._answer is None:
                self._answer = self._look(session)
                self._orders.clear()
            return self._answer

    def _look(self, session: Session) -> bool:
        told = session.ledger.undecided_keys()
        if not told or len(self._orders) < 2:
            return False
        base_url = session.client.account.base_url
        for order, image in self._orders:
            session.control.check()
            with contextlib.suppress(ImageError, InvalidParameters):  # its own run tells
                if any(request_key(base_url, e.parameters, e.pixels) in told for e in order.edits(session, image)):
                    return True
        return False
