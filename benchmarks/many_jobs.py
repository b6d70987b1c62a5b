"""A ledger of many jobs, made by the ledger's own tables in a few seconds; no pictures."""

from __future__ import annotations

import sqlite3
import time
from decimal import Decimal
from pathlib import Path

from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.jobs.ledger import FILE_NAME, Ledger
from kontext_bridge.oxen.jobs.record import COLUMNS, request_key


def fill(folder: Path, jobs: int, within: float) -> None:
    """Finished jobs that were handed over, spread evenly over the last so many seconds; their files are pruned."""
    ledger = Ledger(folder)
    parameters = EditParameters(prompt="The first of many", seed=0)
    record = ledger.open(request_key("https://hub.oxen.ai", parameters, "0"), parameters, "data:,", Decimal("0.04"))
    assert record is not None
    record = ledger.sent(record, generation_id="generation-0")
    ledger.collected(ledger.done(record, b"no picture", "png"))
    ledger.close()
    began, step = time.time() - within, within / jobs
    own = {
        "id": "number",
        "key": "printf('%064x', number)",
        "prompt": "'Keep all else as it is, number ' || number",
        "seed": "number",
        "generation_id": "'generation-' || number",
        "input_digest": "printf('%064x', number)",
        "created_at": ":began + :step * number",
        "finished_at": ":began + :step * number + 9",
        "collected_at": ":began + :step * number + 9.5",
        "file": "NULL",
    }
    values = ", ".join(own.get(name, name) for name in COLUMNS)
    database = sqlite3.connect(folder / FILE_NAME)
    numbers = (
        "WITH RECURSIVE numbers (number) AS (SELECT 2 UNION ALL SELECT number + 1 FROM numbers WHERE number < :jobs)"
    )
    with database:
        database.execute(
            f"{numbers} INSERT INTO jobs ({', '.join(COLUMNS)}) SELECT {values} FROM numbers, jobs WHERE id = 1",
            {"jobs": jobs, "began": began, "step": step},
        )
    database.close()
