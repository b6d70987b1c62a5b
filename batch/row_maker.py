"""What makes rows, whichever way it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from .made import PlannedRow, RowResult


class Maker(Protocol):
    """What makes rows, as a context manager. width: how many at once. price: US dollars of one, where it is known."""

    @property
    def width(self) -> int: ...

    @property
    def price(self) -> Decimal | None: ...

    def __enter__(self) -> Maker: ...

    def __exit__(self, *raised: Any) -> None: ...

    def stop(self) -> None: ...

    def arrange(self, rows: Iterator[PlannedRow]) -> Iterator[PlannedRow]: ...

    def make(self, row: PlannedRow) -> RowResult: ...


@dataclass(frozen=True)
class Spending:
    """usd: what is left of the limit by the report, None without one. began: when the batch began, in unix seconds.

    is_told: whether the report tells of a generation that was paid for. is_placed: whether its result is in its place,
    too.
    """

    usd: Decimal | None
    began: float
    is_told: Callable[[str], bool] = lambda generation_id: False
    is_placed: Callable[[str], bool] = lambda generation_id: False
