"""Kontext Edit for each picture of a list, as ComfyUI calls it: all at once, in one event loop, few handles to be had.

`python list_worker.py PICTURES HANDLES` prints what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from kontext_bridge.headless import ensure_comfy_api

ensure_comfy_api()

from kontext_bridge.nodes.remote import runs  # noqa: E402


def handles() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Gauge(threading.Thread):
    """The most file handles and threads of this process that were seen at once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.handles = self.threads = 0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.005):
            self.handles = max(self.handles, handles())
            self.threads = max(self.threads, threading.active_count())

    def stop(self) -> None:
        self._over.set()
        self.join()


async def edit_all(count: int) -> list[Any]:
    widgets: dict[str, Any] = {"prompt": "a hat", "aspect_ratio": "match_input_image", "steps": 28, "guidance": 2.5}
    widgets.update(seed=5, output_format="jpg")
    pictures = torch.zeros(count, 1, 24, 32, 3)
    pictures[:, 0, 0, 0, 0], pictures[:, 0, 0, 0, 1] = torch.arange(count) % 16 / 15, torch.arange(count) // 16 / 255
    calls = (runs.edit(picture, widgets, "1") for picture in pictures)
    return list(await asyncio.gather(*calls, return_exceptions=True))


def main(count: int, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    before = handles()
    gauge = Gauge()
    gauge.start()
    since = time.monotonic()
    outcomes = asyncio.run(edit_all(count))
    seconds = time.monotonic() - since
    gauge.stop()
    for thread in threading.enumerate():
        if thread.name == "kontext-bridge prune":  # it clears up beside the run's end, with a ledger of its own
            thread.join()
    told = {
        "pictures": sum(isinstance(one, runs.Gathered) for one in outcomes),
        "errors": sorted({str(one) for one in outcomes if isinstance(one, BaseException)})[:3],
        "handles": gauge.handles - before,
        "threads": gauge.threads,
        "left": handles() - before,
        "seconds": seconds,
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
