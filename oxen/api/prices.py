"""What a picture costs, told before it is asked for: flat, by quality and size, by credits, or unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Grid = Mapping[str, Mapping[str, Decimal]]


@dataclass(frozen=True)
class Price:
    """US dollars for one picture, in whichever way a model is priced; all None where nobody tells.

    flat: the same for every picture. grid: by quality, then by resolution; of a model without a quality it has one
    row. per_credit: of a maker's credits, of which nothing says how many a picture takes.
    """

    flat: Decimal | None = None
    grid: Grid | None = None
    per_credit: Decimal | None = None

    def of(self, values: Mapping[str, Any]) -> Decimal | None:
        """The price of a request with these values; None where it is not known for certain."""
        if not self.grid:
            return self.flat
        rows = list(self.grid.values())
        row = rows[0] if len(rows) == 1 else self.grid.get(str(values.get("quality")), {})
        return row.get(str(values.get("resolution")))


UNKNOWN = Price()
