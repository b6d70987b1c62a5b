"""The models of the service, each as data in a file of its own: Kontext, and a JSON file for each of the others.

spec.py               what a model is made of
shape.py              how a model is told to keep the shape of the picture
field_words.py        what fields do, in words
spec_files.py         the form of the JSON files, and reading them
flux_kontext_dev.py   FLUX.1 Kontext [dev]

Every JSON file here is a model; a new one is a new file. What is in them was read from the service's documents and
its model objects between August and October 2026, prices too; what these do not tell is not in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from .flux_kontext_dev import FLUX_KONTEXT_DEV
from .spec import ModelSpec
from .spec_files import read_spec

DEFAULT = FLUX_KONTEXT_DEV


@cache
def bundled() -> Mapping[str, ModelSpec]:
    """The models that come with the pack, by their ids; Kontext first, the others in the order of the alphabet.

    Read at first use: whoever edits with Kontext alone reads none of them.
    """
    others = (read_spec(path) for path in sorted(Path(__file__).parent.glob("*.json")))
    return {spec.id: spec for spec in (FLUX_KONTEXT_DEV, *others)}


__all__ = ["DEFAULT", "FLUX_KONTEXT_DEV", "ModelSpec", "bundled"]
