"""A fine-tune of Kontext as a model: Kontext's inputs under an id of its own, billed by the hour it is awake."""

from __future__ import annotations

from dataclasses import replace

from .flux_kontext_dev import FLUX_KONTEXT_DEV
from .spec import ModelSpec

# What stands in the list of Edit Picture; the id is an input below it.
OWN = "your own Kontext"


def own_kontext(id: str) -> ModelSpec:
    """The model of that id, with the inputs of its base."""
    return replace(FLUX_KONTEXT_DEV, id=id, name=id, about="A fine-tune of FLUX.1 Kontext [dev] of your own.")
