"""`comfy_api.latest.ui`: what a node shows after it ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._inputs import unknown


@dataclass(frozen=True)
class PreviewText:
    """A text on the node."""

    value: str

    def as_dict(self) -> dict[str, Any]:
        return {"text": (self.value,)}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        raise unknown("ui", name)
