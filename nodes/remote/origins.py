"""What the panel *Edits* is told of a run's edits: the pictures that they are made from, and the graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from ... import host
from ...album import behind
from ...imaging.pixels import to_uint8
from ...oxen.jobs.order import Edit
from ...oxen.jobs.record import request_key
from ...oxen.jobs.session import Session
from ..sessions import home


def note_origins(session: Session, image: torch.Tensor, edits: Sequence[Edit]) -> None:
    """Note where the edits of an IMAGE [B,H,W,C] come from, those of each picture in turn; off ComfyUI nothing.

    Returns at once: it is written beside the run, which no fault of it stops.
    """
    node = host.executing_node()
    if node is None:
        return
    where, each = behind.Where(host.graph(), node), len(edits) // len(image)
    for place, picture in enumerate(image):
        mine = edits[place * each : (place + 1) * each]
        keys = [request_key(session.client.account.base_url, edit.parameters, edit.pixels) for edit in mine]
        behind.note_asked(home() / "album", behind.Source(mine[0].pixels, partial(to_uint8, picture)), keys, where)
