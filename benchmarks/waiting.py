"""How soon a finished job is noticed, with how many requests, and how well edits run side by side.

Against the stand-in on loopback, with pictures of 64x64 so that the network and the waiting are what is measured.
Prints medians and exits with 1 where a bound of the README is missed.

usage: python benchmarks/waiting.py [--repeats N]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from kontext_bridge.imaging.codec import decode, encode
from kontext_bridge.imaging.uri import to_data_uri
from kontext_bridge.oxen.api.request import EditParameters
from kontext_bridge.oxen.choices import WaitMode
from kontext_bridge.oxen.credentials import Account
from kontext_bridge.oxen.jobs.batch import Batch
from kontext_bridge.oxen.jobs.order import Edit, Terms
from kontext_bridge.oxen.jobs.session import Session
from kontext_bridge.oxen.settings import Settings
from kontext_bridge.standin.records import Timing
from kontext_bridge.standin.server import StandIn

PICTURE = to_data_uri(encode(np.zeros((64, 64, 3), np.uint8)))


def edits(count: int, seed: int) -> list[Edit]:
    seeds = range(seed, seed + count)
    return [Edit(EditParameters(prompt="make it blue", seed=one), f"pixels {one}", lambda: PICTURE) for one in seeds]


def run(standin: StandIn, wait: WaitMode, count: int, seed: int) -> float:
    """Seconds that `count` edits take, from a fresh session on."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        with Session(Account(standin.url, standin.key), Path(folder), Settings()) as session:
            outcomes = Batch(session, decode, Terms(wait=wait)).edit(edits(count, seed))
        assert all(outcome.picture is not None for outcome in outcomes), outcomes
        return time.perf_counter() - begin


def lateness(wait: WaitMode, processing: float, repeats: int) -> tuple[float, int, int]:
    """Median seconds between a job's end at the service and the first look that sees it; most requests, connections."""
    late, requests, connections = [], 0, 0
    with StandIn(timing=Timing(queued_s=0.05, processing_s=processing)) as standin:
        for repeat in range(repeats):
            seen, opened = len(standin.requests), standin.connections
            run(standin, wait, 1, repeat)
            job = list(standin.jobs.values())[-1]
            looks = [r for r in standin.requests[seen:] if r.method == "GET" and r.path.endswith(job.id)]
            noticed = next(r.arrived for r in looks if r.arrived >= (job.completed_at or 0.0))
            late.append(noticed - (job.completed_at or 0.0))
            requests = max(requests, len([r for r in standin.requests[seen:] if "/events" not in r.path]))
            connections = max(connections, standin.connections - opened)
    return statistics.median(late), requests, connections


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    missed = []

    late, requests, connections = lateness(WaitMode.EVENTS, 1.2, repeats)
    print(f"events:  a 1.2 s job is noticed {late * 1000:.0f} ms late (bound 100)")
    missed += ["events"] * (late > 0.1)
    late, requests, connections = lateness(WaitMode.POLLING, 6.95, max(1, repeats - 2))
    print(
        f"polling: a 7 s job is noticed {late * 1000:.0f} ms late (bound 1000), {requests} requests (bound 12), "
        f"{connections} connection (bound 1)"
    )
    missed += ["polling"] * (late > 1.0 or requests > 12 or connections > 1)
    with StandIn(timing=Timing(queued_s=0.0, processing_s=3.0)) as standin:
        took = statistics.median(run(standin, WaitMode.EVENTS, 8, 100 * n) for n in range(max(1, repeats - 2)))
    print(f"8 edits of 3 s each: {took:.2f} s (bound 3.6)")
    missed += ["side by side"] * (took > 3.6)
    print("missed: " + ", ".join(missed) if missed else "all bounds kept")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
