"""The models of the service, each as data in a file of its own. A new one is added to MODELS.

spec.py               what a model is made of
flux_kontext_dev.py   FLUX.1 Kontext [dev]
"""

from __future__ import annotations

from .flux_kontext_dev import FLUX_KONTEXT_DEV
from .spec import ModelSpec

DEFAULT = FLUX_KONTEXT_DEV
MODELS = {spec.id: spec for spec in (FLUX_KONTEXT_DEV,)}

__all__ = ["DEFAULT", "FLUX_KONTEXT_DEV", "MODELS", "ModelSpec"]
