"""The models of the service, each as data in a file of its own: Kontext, and a JSON file for each of the others.

spec.py               what a model is made of
shape.py              how a model is told to keep the shape of the picture
field_words.py        what fields do, in words
spec_files.py         the form of the JSON files, and reading them
from_schema.py        such a file from what the service says of a model
flux_kontext_dev.py   FLUX.1 Kontext [dev]
own_kontext.py        a fine-tune of it, of one's own

Every JSON file here is a model; a new one is a new file. What is in them was read from the service's documents and
its model objects between August and October 2026, prices too; what these do not tell is not in them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from .flux_kontext_dev import FLUX_KONTEXT_DEV
from .own_kontext import OWN, own_kontext
from .spec import ModelSpec
from .spec_files import BadSpec, read_spec

logger = logging.getLogger(__name__)

DEFAULT = FLUX_KONTEXT_DEV
# Of the user folder, for models that came after this version.
FOLDER = "models"


@cache
def bundled() -> Mapping[str, ModelSpec]:
    """The models that come with the pack, by their ids; Kontext first, the others in the order of the alphabet.

    Read at first use: whoever edits with Kontext alone reads none of them.
    """
    others = (read_spec(path) for path in sorted(Path(__file__).parent.glob("*.json")))
    return {spec.id: spec for spec in (FLUX_KONTEXT_DEV, *others)}


def added(folder: Path) -> Mapping[str, ModelSpec]:
    """The models of a user folder that do not come with the pack; a file that cannot be read is told in the log."""
    found: dict[str, ModelSpec] = {}
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            spec = read_spec(path)
        except (BadSpec, OSError) as error:
            logger.warning("%s It is not offered.", error)
            continue
        if spec.id not in bundled():
            found[spec.id] = spec
    return found


__all__ = ["DEFAULT", "FLUX_KONTEXT_DEV", "FOLDER", "OWN", "ModelSpec", "added", "bundled", "own_kontext"]
