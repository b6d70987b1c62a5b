"""A batch as one picture: small ones before and after, side by side, and what failed marked."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .made import DONE
from .thumbnails import thumbnail_below

# More are no longer looked at one by one, and a node shows them as specks.
MOST = 36
_SIDE, _GAP, _BELOW, _EDGE = 168, 6, 20, 3
_GROUND, _BOX, _WORDS, _FAILED, _FLAGGED = (28, 28, 30), (44, 44, 48), (225, 225, 225), (214, 58, 58), (226, 146, 30)
_KINDS = ("failed", "flagged", "done")
_MARKS = {"failed": _FAILED, "flagged": _FLAGGED}
# Characters that fit below a pair.
_FITS = 46


def contact_sheet(
    entries: Callable[[], Iterator[Mapping[str, Any]]], *, results: Path, images: Path, most: int = MOST
) -> Image.Image:
    """The sheet, RGB. entries: gives the last entry of every row, and may be asked several times. results, images:
    where the entries' paths begin. Of many rows it shows some, with those that failed or are marked first."""
    shown = list(_chosen(entries, most))
    columns = 1 if len(shown) < 3 else 2 if len(shown) < 9 else 3
    rows = max(1, -(-len(shown) // columns))
    width, height = 2 * _SIDE + _GAP + 2 * _EDGE, _SIDE + _BELOW + 2 * _EDGE
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP), _GROUND)
    for place, (kind, entry) in enumerate(shown):
        down, across = divmod(place, columns)
        cell = _cell(kind, entry, results, images, (width, height))
        sheet.paste(cell, (_GAP + across * (width + _GAP), _GAP + down * (height + _GAP)))
    return sheet


def _chosen(entries: Callable[[], Iterator[Mapping[str, Any]]], most: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    counts = Counter(map(_kind, entries()))
    for number, kind in enumerate(_KINDS):
        # what is wrong comes first and leaves half of the room to what follows, where something does
        follows = any(counts[other] for other in _KINDS[number + 1 :])
        room = min(counts[kind], max(1, most // 2) if follows else most)
        most -= room
        step = -(-counts[kind] // room) if room else 0
        place = 0
        for entry in entries() if room else ():
            if _kind(entry) != kind:
                continue
            if place % step == 0:
                yield kind, entry
            place += 1


def _kind(entry: Mapping[str, Any]) -> str:
    return "failed" if entry["state"] != DONE else "flagged" if entry.get("flags") else "done"


def _cell(kind: str, entry: Mapping[str, Any], results: Path, images: Path, size: tuple[int, int]) -> Image.Image:
    cell = Image.new("RGB", size, _GROUND)
    pen, font = ImageDraw.Draw(cell), ImageFont.load_default(13)
    before = thumbnail_below(images, entry.get("image"), _SIDE)
    after = thumbnail_below(results, entry["output"], _SIDE) if entry["state"] == DONE else None
    for number, small in enumerate((before, after)):
        left = _EDGE + number * (_SIDE + _GAP)
        pen.rectangle((left, _EDGE, left + _SIDE - 1, _EDGE + _SIDE - 1), _BOX)
        if small is not None:
            at = (left + (_SIDE - small.width) // 2, _EDGE + (_SIDE - small.height) // 2)
            cell.paste(small, at, small.getchannel("A") if small.mode == "RGBA" else None)
        elif number and kind == "failed":
            why = "\n".join(textwrap.wrap(_drawable(str(entry.get("error", ""))), 25)[:8])
            pen.multiline_text((left + 8, _EDGE + 8), f"failed\n\n{why}", _FAILED, font, spacing=3)
        else:
            pen.text((left + 8, _EDGE + 8), "not readable", _WORDS, font)
    if kind != "done":
        pen.rectangle((0, 0, size[0] - 1, 2 * _EDGE + _SIDE - 1), outline=_MARKS[kind], width=_EDGE - 1)
    marks = ", ".join(map(str, entry["flags"])) if kind == "flagged" and isinstance(entry.get("flags"), list) else ""
    name = str(entry.get("image") if kind == "failed" else entry["output"])
    pen.text((_EDGE, _SIDE + 2 * _EDGE + 1), _fitted(name, marks), _MARKS.get(kind, _WORDS), font)
    return cell


def _fitted(name: str, marks: str) -> str:
    """A name and what marks it, in the room below a pair; of a long name its end, which tells names apart."""
    text = _drawable(f"{name}  ({marks})" if marks else name)
    return text if len(text) <= _FITS else f"...{text[3 - _FITS :]}"


def _drawable(text: str) -> str:
    """Pillow's own font has Latin letters; others would be empty boxes, whose number says more than they do."""
    return "".join(one if one.isprintable() and ord(one) < 0x250 else "?" for one in text)
