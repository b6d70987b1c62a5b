"""A folder with a ledger of many finished edits and their pictures, to measure the panel *Edits* with.

The first edits are made by the ledger's own writer; the others are their rows again with numbers of their own, and
their pictures are the same files under other names. One a minute, the newest now.

    python benchmarks/many_edits.py FOLDER [--edits 10000]
"""

from __future__ import annotations

import argparse
import io
import os
import sqlite3
import sys
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.jobs.ledger import FILE_NAME, Ledger
from kontext_bridge.oxen.jobs.record import COLUMNS, request_key
from PIL import Image

PATTERNS = 16
SIDE = 1024
NOUNS = ("hat", "sky", "coat", "street", "lamp", "river", "dog", "sign")
COLOURS = ("red", "blue", "golden", "white", "dark green", "violet", "orange", "black")


def picture(number: int) -> bytes:
    """A PNG of one megapixel that does not compress to nothing."""
    noise = np.random.default_rng(number).integers(0, 60, (SIDE // 8, SIDE // 8, 3), np.uint8)
    across = np.linspace(0, 190, SIDE, dtype=np.uint8)[None, :, None]
    pixels = np.kron(noise, np.ones((8, 8, 1), np.uint8)) + np.roll(across, number * 61, axis=1)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def fill(folder: Path, edits: int) -> None:
    """Make the ledger of a folder, which has none yet, with so many edits that were handed over."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ledger = Ledger(folder)
    for number in range(min(PATTERNS, edits)):
        parameters = EditParameters(prompt="The first of many", seed=number)
        key = request_key("https://hub.oxen.ai", parameters, str(number))
        record = ledger.open(key, parameters, f"data:,{number}", Decimal("0.04"))
        assert record is not None
        record = ledger.sent(record, generation_id=f"generation-{number}")
        ledger.collected(ledger.done(record, picture(number), "png"))
    ledger.close()
    began = time.time() - edits * 60.0
    names = ", ".join(COLUMNS)
    times = "created_at = ? + 60.0 * id, finished_at = ? + 60.0 * id + 9, collected_at = ? + 60.0 * id + 9.5"
    with sqlite3.connect(folder / FILE_NAME) as database:
        database.execute(f"UPDATE jobs SET {times}", (began - 60, began - 60, began - 60))
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in database.execute(f"SELECT {names} FROM jobs")]
        new = []
        for number in range(len(rows), edits):
            row = rows[number % len(rows)]
            key = f"{number:08x}{row['key'][8:]}"
            file = f"{number + 1}-{key[:12]}.png"
            os.link(folder / "results" / row["file"], folder / "results" / file)
            when = began + number * 60.0
            prompt = f"Make the {NOUNS[number % 8]} {COLOURS[number // 8 % 8]} and keep all else, number {number}"
            own = {"id": number + 1, "key": key, "prompt": prompt, "seed": number, "file": file, "opened": None}
            own |= {"generation_id": f"generation-{number}", "input_digest": f"{number:064x}", "taken": None}
            own |= {"created_at": when, "finished_at": when + 9.0, "collected_at": when + 9.5}
            new.append(tuple((row | own)[name] for name in COLUMNS))
        database.executemany(f"INSERT INTO jobs ({names}) VALUES ({', '.join('?' * len(COLUMNS))})", new)
    database.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--edits", type=int, default=10_000)
    given = parser.parse_args()
    since = time.perf_counter()
    fill(given.folder, given.edits)
    print(f"{given.edits} edits in {given.folder}, made in {time.perf_counter() - since:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
