"""Edits in a ledger and in an album, made by their own writers."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from kontext_bridge.album import behind
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.jobs.ledger import Ledger
from kontext_bridge.oxen.jobs.record import Record, request_key
from PIL import Image


def png(shade: int = 90, size: tuple[int, int] = (640, 400)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (shade, 120, 30)).save(out, "PNG")
    return out.getvalue()


def opened(ledger: Ledger, number: int, *, price: str = "0.04") -> Record:
    """An edit whose request has just left."""
    parameters = EditParameters(prompt=f"edit {number}: the hat becomes red", seed=number)
    key = request_key("http://127.0.0.1:9", parameters, f"pixels {number}")
    record = ledger.open(key, parameters, f"data:,{number}", Decimal(price))
    assert record is not None
    ledger.leaving(record)
    return record


def sent(ledger: Ledger, number: int) -> Record:
    return ledger.sent(opened(ledger, number), generation_id=f"00000000-0000-4000-8000-{number:012d}")


def done(ledger: Ledger, number: int, data: bytes | None = None, *, handed_over: bool = True) -> Record:
    record = ledger.done(sent(ledger, number), png(number % 256) if data is None else data, "png")
    return ledger.collected(record) if handed_over else record


def source(number: int, side: int = 64) -> behind.Source:
    return behind.Source(f"{number:064x}", lambda: np.full((side, side, 3), number % 256, np.uint8))


def name_of(record: Record) -> str:
    return f"r{record.id}-{record.key[:6]}"


def local(home: Path, number: int, graph: dict[str, Any] | None = None) -> None:
    pixels = np.full((200, 300, 3), number % 256, np.uint8)
    made = behind.Made(source(number), f"local edit {number}", 2**64 - 1, 1.5, lambda: pixels)
    behind.note_local(home / "album", made, {"steps": 4}, behind.Where(graph, "7"))
    behind.settle()
