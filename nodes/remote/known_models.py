"""The models that can be chosen: those of the pack, and those that were added to the user folder before this start."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache

from ... import host
from ...oxen.api.models import ModelSpec, added, bundled

logger = logging.getLogger(__name__)


@cache
def known() -> Mapping[str, ModelSpec]:
    """By their ids. Read once: what is added later is offered after a restart, as ComfyUI's list of nodes is."""
    try:
        own = added(host.user_folder(make=False))
    except OSError as error:  # there may be no folder at all
        logger.debug("No models are added: %s", error)
        own = {}
    return {**bundled(), **own}
