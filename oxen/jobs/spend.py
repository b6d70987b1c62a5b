"""Spend limits, checked before anything is sent."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from decimal import Decimal

from ..api.client import Client
from ..api.prices import UNKNOWN, Price, Priced
from ..errors import SpendLimitReached
from ..settings import Settings
from .ledger import DAY_SECONDS, Ledger

_RUNS_REMEMBERED = 256
_PRICE_SECONDS = 60.0

_guard = threading.Lock()
_spent_by_run: OrderedDict[str, Decimal] = OrderedDict()
_prices: dict[tuple[str, str], tuple[Price, float]] = {}


def spent_by(run_id: str) -> Decimal:
    """US dollars that a run has been allowed to spend so far."""
    with _guard:
        return _spent_by_run.get(run_id, Decimal(0))


class SpendGuard:
    """Refuses what would pass the limits in `settings`, by the price that the service publishes for the model.

    run_id: names one run of a whole graph, so that the limit holds for all its nodes together.
    """

    def __init__(self, client: Client, ledger: Ledger, settings: Settings, run_id: str) -> None:
        self._client = client
        self._ledger = ledger
        self._settings = settings
        self._run_id = run_id

    def price(self, asked: Priced) -> Decimal | None:
        """US dollars per picture as published; None where no limit is set: it is not asked for then.

        Raises SpendLimitReached where a limit is set and the service publishes no price to hold against it.
        """
        if self._settings.usd_per_run is None and self._settings.usd_per_day is None:
            return None
        price = self._published(asked.model).of(asked)
        if price is None:
            raise SpendLimitReached(
                f"A spend limit is set and Oxen.ai publishes no price per picture for {asked.model}, so it cannot be "
                "kept. Nothing was sent. Remove the limit (usd_per_run, usd_per_day) to go on without one."
            )
        return price

    def _published(self, model: str) -> Price:
        """The price of a model, asked for once in a while: the items of a list would each ask for it."""
        key = (self._client.account.base_url, model)
        with _guard:
            known = _prices.get(key)
        if known is None or time.monotonic() - known[1] > _PRICE_SECONDS:
            price = self._client.model(model).price
            if price == UNKNOWN:
                return price
            known = (price, time.monotonic())
            with _guard:
                _prices[key] = known
        return known[0]

    def check(self, requests: int, asked: Priced, *, takes: bool = True) -> None:
        """Take `requests` new pictures into this run's account.

        takes: False only looks whether that could be. Raises SpendLimitReached with the sum where a limit would be
        passed, and as `price` does. Nothing is taken into account then.
        """
        per_run, per_day = self._settings.usd_per_run, self._settings.usd_per_day
        price = self.price(asked) if requests else None
        if price is None:
            return
        cost = requests * price
        pictures = "1 new picture" if requests == 1 else f"{requests} new pictures"
        if per_day is not None:
            day = self._ledger.spent_since(time.time() - DAY_SECONDS)
            if day + cost > per_day:
                raise SpendLimitReached(
                    f"{pictures} at ${price} would bring the last 24 hours to ${day + cost}, over the "
                    f"limit of ${per_day} (usd_per_day). Nothing was sent. Raise the limit, or wait."
                )
        with _guard:
            run = _spent_by_run.get(self._run_id, Decimal(0)) + cost
            if per_run is not None and run > per_run:
                raise SpendLimitReached(
                    f"{pictures} at ${price} would bring this run to ${run}, over the limit of "
                    f"${per_run} (usd_per_run). Nothing was sent. Raise the limit, or ask for fewer."
                )
            if not takes:
                return
            _spent_by_run[self._run_id] = run
            while len(_spent_by_run) > _RUNS_REMEMBERED:
                _spent_by_run.popitem(last=False)
