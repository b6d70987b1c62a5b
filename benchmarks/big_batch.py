"""A large batch at once: the memory that it takes beside its tensors, and for how long it holds ComfyUI's event loop.

Kontext Edit's own work on an IMAGE of many large pictures, against a stand-in in another process that makes nobody
wait. Beside it the event loop only ticks, and so does a thread: where both miss their time, the interpreter's lock was
held; where only the loop does, something ran on it. Other programs may keep a busy machine from all of this: of a gap
no more is counted than what this process computed meanwhile.

Memory is the most that was resident, without the pictures given and the pictures made. The stand-in gives pictures of
one megapixel, whatever it is sent. Exit status 1 where the loop was held for more than 50 ms, or where memory passes
six times the pictures, as 8-bit pixels, of the edits that are under way at once.

    python benchmarks/big_batch.py [--pictures 64] [--side 2048] [--overlap]

64 pictures of 2048x2048 take 3.2 GB as given, and the stand-in another one or two; with --overlap as many as 256 take
little, and those made of them 3.2 GB.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from elsewhere import load, standin
from encoding import photo_like
from kontext_bridge.headless import ensure_comfy_api
from kontext_bridge.oxen.settings import Settings

ensure_comfy_api()

from kontext_bridge.nodes.remote import runs  # noqa: E402

BOUND_MS = 50.0
PICTURES_HELD = 6
_TICK = 0.002
# What the interpreter, torch and the connections take meanwhile.
_ROOM = 64 << 20


class Gaps:
    """The longest times for which something that ticks did not: by the clock, and computed by this process.

    ready: of the longest by the clock, for how long the thread that ticks only waited for a core, as Linux counts it;
    told and not judged. Asking that lets go of the interpreter, and so is no part of a gap.
    """

    def __init__(self) -> None:
        self.clock = self.computed = self.ready = 0.0
        self._waited = _Waited()
        self.begin()

    def begin(self) -> None:
        queued = self._waited()
        self._begun = (time.perf_counter(), time.process_time(), queued)

    def end(self) -> None:
        since, cpu, queued = self._begun
        gap = time.perf_counter() - since - _TICK
        if gap > self.clock:
            self.clock, self.ready = gap, min(gap, self._waited() - queued)
        self.computed = max(self.computed, min(gap, time.process_time() - cpu))

    def __str__(self) -> str:
        computed, clock, ready = (f"{one * 1000:.0f} ms" for one in (self.computed, self.clock, self.ready))
        return f"{computed} computed here; by the clock for {clock}, {ready} of them in wait for a core"


class _Waited:
    """Seconds for which the thread that asks was ready and no core was free; 0 where that is not counted."""

    def __init__(self) -> None:
        self._of: dict[int, int] = {}

    def __call__(self) -> float:
        thread = threading.get_native_id()
        try:
            if thread not in self._of:
                self._of[thread] = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY)
            return int(os.pread(self._of[thread], 64, 0).split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0


async def _loop_ticks(gaps: Gaps) -> None:
    while True:
        gaps.begin()
        await asyncio.sleep(_TICK)
        gaps.end()


def _thread_ticks(gaps: Gaps, over: threading.Event) -> None:
    while not over.is_set():
        gaps.begin()
        time.sleep(_TICK)
        gaps.end()


def _resident(name: str) -> int:
    """Bytes of this process, of Linux's own count; VmHWM is the most since `_begin_anew`."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def _begin_anew() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def pictures(count: int, side: int, *, overlap: bool = False) -> torch.Tensor:
    """An IMAGE of different photographs: one, shifted by so many rows. overlap: they share these in memory."""
    photo = torch.from_numpy(photo_like(side, np.random.default_rng(0)))
    if overlap:
        tall = torch.cat([photo, photo[:count]]) / 255
        return tall.as_strided((count, side, side, 3), (side * 3, side * 3, 3, 1))
    image = torch.empty(count, side, side, 3)
    for number in range(count):
        torch.div(photo.roll(number, 0), 255, out=image[number])
    return image


async def run(image: torch.Tensor) -> tuple[torch.Tensor, Gaps, Gaps]:
    """The pictures made, and the longest gaps of the loop and of the thread."""
    loop_gaps, thread_gaps, over = Gaps(), Gaps(), threading.Event()
    thread = threading.Thread(target=_thread_ticks, args=(thread_gaps, over))
    thread.start()
    ticking = asyncio.create_task(_loop_ticks(loop_gaps))
    try:
        gathered = await runs.edit(image, {"prompt": "make the sky golden", "output_format": "jpg"}, None)
        for _ in range(50):  # what is let go of at the end counts, too
            await asyncio.sleep(_TICK)
    finally:
        over.set()
        ticking.cancel()
        thread.join()
    return gathered.image, loop_gaps, thread_gaps


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--overlap", action="store_true", help="the pictures given take the memory of one or two")
    options = parser.parse_args()
    in_flight = Settings().max_in_flight
    with tempfile.TemporaryDirectory() as home, standin(gives_way=True) as account:
        os.environ.update(KONTEXT_BRIDGE_HOME=home, OXEN_BASE_URL=account.base_url, OXEN_API_KEY=str(account.key))
        asyncio.run(run(pictures(1, 64)))  # what is loaded at first use
        image = pictures(options.pictures, options.side, overlap=options.overlap)
        _begin_anew()
        before, since, cpu = _resident("VmRSS"), time.perf_counter(), time.process_time()
        made, loop_gaps, thread_gaps = asyncio.run(run(image))
        seconds, cpu = time.perf_counter() - since, time.process_time() - cpu
        beside = _resident("VmHWM") - before - made.nbytes
    one = options.side**2 * 3
    most = PICTURES_HELD * in_flight * one + _ROOM
    print(f"{options.pictures} pictures of {options.side}x{options.side}, {in_flight} under way at once, {load()}")
    print(f"  {seconds:.1f} s, {cpu:.1f} s of CPU: {cpu / seconds:.2f} cores busy, {cpu / options.pictures:.3f} s each")
    print(f"  beside the tensors {beside / 1e6:.0f} MB, {beside / one:.1f} pictures (bound {most / 1e6:.0f} MB)")
    print(f"  the loop was held for at most {loop_gaps} (bound {BOUND_MS:.0f})")
    print(f"  a thread for at most {thread_gaps}")
    return 1 if beside > most or loop_gaps.computed * 1000 > BOUND_MS else 0


if __name__ == "__main__":
    sys.exit(main())
