"""A batch of many rows against the stand-in: rate, memory, size of the ledger, time to start again, and kills.

    python benchmarks/batch.py [--rows 10000] [--small 1000] [--kills 3]

Two runs: one of `--small` rows and one of `--rows`, each the command in a process of its own, whose memory is looked at
while it runs; the larger one is killed at random moments and started again. Every row must have its result and one
bill. The stand-in takes 0.05 s an edit, in this process: on few cores its work is part of the rate.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from kontext_bridge.standin import StandIn, Timing
from PIL import Image

EDIT = Timing(queued_s=0.0, processing_s=0.05)
SIDES = (24, 16)


@dataclass
class Measured:
    """What a run came to. memory: MiB at the most, of each process; starts: seconds to the first row of each."""

    rows: int
    seconds: float = 0.0
    memory: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    results: int = 0
    bills: int = 0
    ledger_mib: float = 0.0
    report_mib: float = 0.0


def write_pictures(folder: Path, count: int) -> None:
    """Pictures that differ in their pixels, a thousand in each folder."""
    for number in range(count):
        path = folder / f"{number // 1000:03}" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (*SIDES, 3), np.uint8)
        Image.fromarray(pixels).save(path, compress_level=1)


def lines_of(report: Path) -> int:
    try:
        with report.open("rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    except FileNotFoundError:
        return 0


def run(base: Path, rows: int, kills: int) -> Measured:
    measured = Measured(rows)
    write_pictures(base / "pictures", rows)
    rng = random.Random(rows)
    moments = sorted(rng.uniform(0.05, 0.9) * rows for _ in range(kills))
    with StandIn(timing=EDIT, shrink=16) as service:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OXEN_BASE_URL": service.url,
            "OXEN_API_KEY": service.key,
            "KONTEXT_BRIDGE_HOME": str(base / "home"),
        }
        words = [sys.executable, "-m", "kontext_bridge.batch", str(base / "pictures"), "-o", str(base / "out")]
        words += ["--prompt", "make it night", "--set", "output_format=jpg"]
        since = time.monotonic()
        for moment in [*moments, None]:
            status = once(words, environment, base, moment, measured)
        if status == 3:  # killed between a note and a sending: nobody can know, so a person is asked
            once([*words, "--pay-for-lost"], environment, base, None, measured)
        measured.seconds = time.monotonic() - since
        measured.bills = len(service.billed)
    measured.results = sum(1 for _ in (base / "out").rglob("*.jpg"))
    ledger = [path.stat().st_size for path in (base / "home").glob("ledger.sqlite3*")]
    measured.ledger_mib = sum(ledger) / 2**20
    measured.report_mib = (base / "out" / "report.jsonl").stat().st_size / 2**20
    return measured


def once(words: list[str], environment: dict[str, str], base: Path, moment: float | None, measured: Measured) -> int:
    """One start of the command, killed when the report has so many lines; gives its status."""
    report = base / "out" / "report.jsonl"
    before, since = lines_of(report), time.monotonic()
    with (base / "log").open("ab") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    most, first = 0.0, None
    while process.poll() is None:
        most = max(most, memory_of(process.pid))
        lines = lines_of(report)
        if first is None and lines > before:
            first = time.monotonic() - since
        if moment is not None and lines >= moment:
            process.kill()
            break
        time.sleep(0.25)
    status = process.wait()
    measured.memory.append(round(most, 1))
    measured.starts.append(round(first or 0.0, 1))
    return status


def memory_of(pid: int) -> float:
    """MiB resident."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * resource.getpagesize() / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--small", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=3)
    given = parser.parse_args()
    wrong = 0
    for rows, kills in ((given.small, 0), (given.rows, given.kills)):
        with tempfile.TemporaryDirectory(prefix="batch") as folder:
            found = run(Path(folder), rows, kills)
        print(json.dumps(vars(found)))
        print(f"{rows} rows, {kills} kills: {rows / found.seconds:.1f} rows/s, at most {max(found.memory):.0f} MiB")
        wrong += found.results != rows or found.bills != rows
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
