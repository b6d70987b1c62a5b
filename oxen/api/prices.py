"""What a picture costs, told before it is asked for: flat, by quality and size, by credits, or unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

Grid = Mapping[str, Mapping[str, Decimal]]
# No picture costs a million dollars: what says so is a fault, and must neither be added up nor held against a limit.
_MOST_DOLLARS = Decimal(1_000_000)


@dataclass(frozen=True)
class Price:
    """US dollars for one picture, in whichever way a model is priced; all None where nobody tells.

    flat: the same for every picture. grid: by quality, then by resolution; of a model without a quality it has one
    row. per_credit: of a maker's credits, of which nothing says how many a picture takes.
    """

    flat: Decimal | None = None
    grid: Grid | None = None
    per_credit: Decimal | None = None

    def of(self, asked: Priced) -> Decimal | None:
        """The price of a request; None where it is not known for certain."""
        if not self.grid:
            return self.flat
        rows = list(self.grid.values())
        row = rows[0] if len(rows) == 1 else self.grid.get(asked.quality, {})
        return row.get(asked.resolution)

    def told(self, unknown: str = "not known") -> str:
        """The price in a line, for people."""
        if self.grid:
            cells = [usd for row in self.grid.values() for usd in row.values()]
            by = "quality and resolution" if len(self.grid) > 1 else "resolution"
            return f"{min(cells)} to {max(cells)} USD per image, by {by}"
        if self.flat is not None:
            return f"{self.flat} USD per image"
        if self.per_credit is not None:
            return f"{self.per_credit} USD per credit; how many credits an image takes is {unknown}"
        return unknown


UNKNOWN = Price()


@dataclass(frozen=True)
class Priced:
    """What of a request decides its price: the model, and its quality and resolution, empty where it has none."""

    model: str
    quality: str = ""
    resolution: str = ""


def read_price(pricing: object) -> Price:
    """What a model object says of its price; what cannot be read is not known."""
    if not isinstance(pricing, Mapping):
        return UNKNOWN
    grid = pricing.get("cost_per_image_grid")
    rows: dict[str, dict[str, Decimal]] = {}
    for quality, row in grid.items() if isinstance(grid, Mapping) else ():
        cells = row.items() if isinstance(row, Mapping) else ()
        rows[str(quality)] = {str(one): usd for one, cost in cells if (usd := read_amount(cost)) is not None}
    return Price(
        read_amount(pricing.get("cost_per_image")),
        rows or None,
        read_amount(pricing.get("cost_per_credit")),
    )


def read_amount(value: Any) -> Decimal | None:
    """US dollars; None for what is no amount, or none that a picture can cost."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount < _MOST_DOLLARS else None
